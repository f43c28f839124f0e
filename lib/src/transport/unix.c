/* unix:///path and unix://@name: JSON-RPC and MessagePack-RPC over unix sockets. */
#include "transport/listen.h"
#include "transport/stream_caller.h"
#include "transport/stream_worker.h"
#include "transport/transports.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_worker *w = state;
    crew_status status = stream_worker_open(w, config, why);
    if (status == CREW_OK)
        status = listen_inherits(config->url) ? listen_inherited(w, why) : listen_unix(w, why);
    if (status != CREW_OK)
        stream_worker_close(w, 0, NULL);
    return status;
}

/* A queue of connections that is full is waited for: there is no event for that. */
static int connect_path(const char *path, const crew_transport_config *config)
{
    struct sockaddr_un address;
    socklen_t size = path_address(path, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int64_t until_ms = crew_now_ms() + config->connect_timeout_ms;
    while (fd >= 0 && connect(fd, (const struct sockaddr *)&address, size) != 0) {
        int error = errno;
        if (error == EAGAIN && crew_now_ms() < until_ms && crew_opening_waits_for(config->opening, -1)) {
            (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
            continue;
        }
        close(fd);
        errno = error == EAGAIN ? ETIMEDOUT : error;
        return -1;
    }
    return fd;
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    char path[PATH_MOST];
    const char *shown = crew_url_text(config->url);
    crew_status status = path_of_url(config->url, path, why);
    if (status == CREW_OK)
        status = path_is_there(path, shown, why);
    if (status != CREW_OK)
        return status;
    int fd = connect_path(path, config);
    if (fd >= 0)
        return stream_caller_open(state, config, fd, fd, NULL, why);
    bool ours = errno == EMFILE || errno == ENFILE;
    return crew_error_set(why, ours ? CREW_SYSTEM : CREW_NO_SERVICE, "connecting to %s: %s", shown,
                          strerror(errno));
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    char path[PATH_MOST];
    return server && listen_inherits(url) ? CREW_OK : path_of_url(url, path, why);
}

static const crew_url_option_spec options[] = {
    STREAM_FRAMING_OPTION,
    STREAM_WORKER_OPTIONS,
    STREAM_CALLER_OPTIONS,
    LISTEN_OPTIONS,
    { "mode", NULL, 0, 0, "worker: who may connect, as three octal digits; else by the umask" },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops =
    STREAM_WORKER_OPS(struct stream_worker, worker_open, stream_worker_close);
static const struct crew_transport_ops caller_ops = STREAM_CALLER_OPS(caller_open);

const crew_transport crew_unix = { .scheme = "unix",
                                   .options = options,
                                   .carries = stream_framing_carries,
                                   .check = check,
                                   .server = &worker_ops,
                                   .client = &caller_ops };
