/* exec:///path?arg=…: a caller that runs its worker, and talks to its standard input and output. */
#include "transport/stream_caller.h"
#include "transport/transports.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TICK_MS = 10, GRACE_MS = 100 };

struct caller {
    struct stream_caller stream; /* first, so that its operations serve */
    pid_t child;
};

/* ---- the end of a program ---- */

/* Whether it has ended; then nobody has to wait for it any more. */
static bool has_ended(pid_t child, int *how)
{
    pid_t ended = waitpid(child, how, WNOHANG);
    return ended == child || (ended < 0 && errno == ECHILD);
}

static bool ends_within(pid_t child, unsigned ms)
{
    int64_t until_ms = crew_now_ms() + ms;
    int how;
    while (!has_ended(child, &how)) {
        if (crew_now_ms() >= until_ms)
            return false;
        (void)poll(NULL, 0, TICK_MS);
    }
    return true;
}

/* Its input has ended; if that does not end it within its time, and it does not when it is told to, it is
 * killed: whoever runs it may be gone in a moment. */
static void end_child(pid_t child, unsigned linger_ms)
{
    if (ends_within(child, linger_ms > GRACE_MS ? linger_ms : GRACE_MS))
        return;
    (void)kill(child, SIGTERM);
    if (ends_within(child, GRACE_MS))
        return;
    (void)kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* ---- its beginning ---- */

/* Its descriptors: what we write to and read from, and its ends of that. */
struct pipes {
    int to[2], from[2];
};

static bool make_pipes(struct pipes *pipes)
{
    *pipes = (struct pipes){ { -1, -1 }, { -1, -1 } };
    return pipe2(pipes->to, O_CLOEXEC) == 0 && pipe2(pipes->from, O_CLOEXEC) == 0 &&
           fcntl(pipes->to[1], F_SETFL, O_NONBLOCK) == 0 && fcntl(pipes->from[0], F_SETFL, O_NONBLOCK) == 0;
}

static void close_both(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

/* 0, or errno. Signals are as a program expects them, whatever thread this is. */
static int spawn(const char *program, char **arguments, const struct pipes *pipes, pid_t *child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &all);
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        error = posix_spawn_file_actions_adddup2(&actions, pipes->to[0], STDIN_FILENO);
        if (!error)
            error = posix_spawn_file_actions_adddup2(&actions, pipes->from[1], STDOUT_FILENO);
        if (!error)
            error = posix_spawnp(child, program, &actions, &attributes, arguments, environ);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* The path, or a name that is looked for in PATH. */
static const char *program_of(const crew_url *url)
{
    return *crew_url_host(url, 0) ? crew_url_host(url, 0) : crew_url_path(url);
}

static int start(const crew_url *url, const struct pipes *pipes, pid_t *child)
{
    size_t count = 0;
    while (crew_url_option_at(url, "arg", count))
        count++;
    char **arguments = calloc(count + 2, sizeof *arguments);
    bool good = arguments && (arguments[0] = strdup(program_of(url)));
    for (size_t i = 0; good && i < count; i++)
        good = (arguments[i + 1] = strdup(crew_url_option_at(url, "arg", i))) != NULL;
    int error = good ? spawn(program_of(url), arguments, pipes, child) : ENOMEM;
    for (size_t i = 0; arguments && i < count + 1; i++)
        free(arguments[i]);
    free(arguments);
    return error;
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    struct pipes pipes;
    pid_t child = 0;
    int error = make_pipes(&pipes) ? start(config->url, &pipes, &child) : errno;
    if (error) {
        bool ours = error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
        close_both(pipes.to);
        close_both(pipes.from);
        return crew_error_set(why, ours ? CREW_SYSTEM : CREW_NO_SERVICE, "running %s: %s",
                              program_of(config->url), strerror(error));
    }
    close(pipes.to[0]);
    close(pipes.from[1]);
    crew_status status = stream_caller_open(&c->stream, config, pipes.from[0], pipes.to[1], why);
    if (status == CREW_OK)
        c->child = child;
    else
        end_child(child, 0);
    return status;
}

/* A program that has ended says more than that its output has. */
static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    enum { A_MOMENT_MS = 50 };
    struct caller *c = state;
    int how = 0;
    crew_status status = stream_caller_recv(&c->stream, messages, room);
    if (status != CREW_DISCONNECTED)
        return status;
    for (int i = 0; i < A_MOMENT_MS / TICK_MS && c->child; i++) {
        if (has_ended(c->child, &how))
            c->child = 0;
        else
            (void)poll(NULL, 0, TICK_MS);
    }
    if (c->child)
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
    if (c->child)
        end_child(c->child, left_ms > 0 ? (unsigned)left_ms : 0);
    c->child = 0;
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
    { "framing", STREAM_FRAMINGS, 0, 0, "how messages are told apart; else by the first bytes" },
    { "arg", NULL, 0, 0, "an argument of the program's; can be repeated", true },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops caller_ops = { .size = sizeof(struct caller),
                                                      .both_call = true,
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
