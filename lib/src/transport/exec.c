/* exec:///path?arg=…: a caller that runs its worker, and talks to its standard input and output. */
#include "transport/child.h"
#include "transport/stream_caller.h"
#include "transport/transports.h"

#include <errno.h>
#include <sys/wait.h>

enum { ARGUMENTS_MOST = 64 }; /* a URL has no more options */

struct caller {
    struct stream_caller stream; /* first, so that its operations serve */
    struct child child;
};

/* The path, or a name that is looked for in PATH. */
static const char *program_of(const crew_url *url)
{
    return *crew_url_host(url, 0) ? crew_url_host(url, 0) : crew_url_path(url);
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    const char *arguments[ARGUMENTS_MOST + 1] = { NULL };
    for (size_t i = 0; i < ARGUMENTS_MOST; i++)
        arguments[i] = crew_url_option_at(config->url, "arg", i);
    struct child child;
    int error = child_start(&child, program_of(config->url), arguments);
    if (error) {
        bool ours = error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
        return crew_error_set(why, ours ? CREW_SYSTEM : CREW_NO_SERVICE, "running %s: %s",
                              program_of(config->url), strerror(error));
    }
    crew_status status = stream_caller_open(&c->stream, config, child.from, child.to, NULL, why);
    if (status == CREW_OK)
        c->child = child;
    else
        child_end(&child, 0);
    return status;
}

/* A program that has ended says more than that its output has. */
static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    enum { A_MOMENT_MS = 50 };
    struct caller *c = state;
    int how = 0;
    crew_status status = stream_caller_recv(&c->stream, messages, room);
    if (status != CREW_DISCONNECTED || !c->child.pid || !child_ends_within(&c->child, A_MOMENT_MS, &how))
        return status;
    crew_error *lost = c->stream.set.config->lost;
    if (WIFSIGNALED(how))
        return crew_error_set(lost, status, "the program has ended: %s", strsignal(WTERMSIG(how)));
    return crew_error_set(lost, status, "the program has ended with exit status %d", WEXITSTATUS(how));
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    int64_t until_ms = crew_now_ms() + linger_ms;
    stream_caller_close(&c->stream, linger_ms, unsent);
    int64_t left_ms = until_ms - crew_now_ms();
    child_end(&c->child, left_ms > 0 ? (unsigned)left_ms : 0);
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    if (server)
        return crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': a worker that is run listens on stdio://",
                              crew_url_text(url));
    if (crew_url_host_count(url) != 1 || crew_url_port(url, 0) || crew_url_user(url) ||
        !*crew_url_host(url, 0) == !*crew_url_path(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "URL '%s': wants exec:///path, or exec://name for a program in PATH",
                              crew_url_text(url));
    return CREW_OK;
}

static const crew_url_option_spec options[] = {
    STREAM_FRAMING_OPTION,
    STREAM_CALLER_OPTIONS,
    { "arg", NULL, 0, 0, "an argument of the program's; can be repeated", true },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops caller_ops = { .size = sizeof(struct caller),
                                                      .both_call = true,
                                                      .has_with = true,
                                                      .open = caller_open,
                                                      .wait = stream_caller_wait,
                                                      .send = stream_caller_send,
                                                      .recv = caller_recv,
                                                      .ready = stream_caller_ready,
                                                      .close = caller_close };

const crew_transport crew_exec = { .scheme = "exec",
                                   .options = options,
                                   .carries = stream_framing_carries,
                                   .check = check,
                                   .client = &caller_ops };
