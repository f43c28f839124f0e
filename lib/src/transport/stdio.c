/* stdio://: a worker of one caller, whoever started it: an editor, inetd, ssh, another program (exec://). */
#include "transport/stdio.h"

#include "transport/transports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The process's own descriptors, while they are taken from it. */
static atomic_bool taken;

/* A descriptor of the same file that does not block. For a pipe or a terminal a new one, since the flag
 * belongs to all who have the old one: the shell that started us would have it afterwards. */
static int copy(int fd, int mode)
{
    struct stat file;
    char path[40];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    bool anew = fstat(fd, &file) == 0 && (S_ISFIFO(file.st_mode) || S_ISCHR(file.st_mode));
    int fresh = anew ? open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY) : -1;
    if (fresh >= 0)
        return fresh;
    fresh = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (anew && fresh >= 0) /* it may not be opened anew: then for all who have it */
        (void)fcntl(fresh, F_SETFL, fcntl(fresh, F_GETFL) | O_NONBLOCK);
    return fresh;
}

/* Whether standard error is the stream as well, as inetd has it. */
static bool error_is_the_stream(void)
{
    struct stat one, other;
    return fstat(STDERR_FILENO, &one) == 0 && fstat(STDOUT_FILENO, &other) == 0 && S_ISSOCK(one.st_mode) &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* What a handler, or a program that it starts, reads and prints is not to be in the stream, nor is the log.
 */
static void put_others_in_place(void)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) {
        (void)dup2(nothing, STDIN_FILENO);
        if (error_is_the_stream())
            (void)dup2(nothing, STDERR_FILENO);
        close(nothing);
    }
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
}

void stdio_worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    stream_worker_close(state, linger_ms, unsent);
    atomic_store(&taken, false);
}

crew_status stdio_worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_worker *w = state;
    if (atomic_exchange(&taken, true))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': standard input and output are taken already",
                              crew_url_text(config->url));
    crew_status status = stream_worker_open(w, config, why);
    if (status != CREW_OK) {
        atomic_store(&taken, false);
        return status;
    }
    w->sole = true;
    int in = copy(STDIN_FILENO, O_RDONLY), out = copy(STDOUT_FILENO, O_WRONLY);
    if (in < 0 || out < 0) {
        status = crew_error_set(why, CREW_SYSTEM, "standard input and output: %s", strerror(errno));
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
    } else {
        status = stream_worker_adopt(w, in, out, why);
    }
    if (status == CREW_OK)
        put_others_in_place();
    else
        stdio_worker_close(w, 0, NULL);
    return status;
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    if (!server)
        return crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': a caller runs its worker: exec:///path",
                              crew_url_text(url));
    if (*crew_url_host(url, 0) || *crew_url_path(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': stdio:// wants no host and no path",
                              crew_url_text(url));
    return CREW_OK;
}

static const crew_url_option_spec options[] = {
    STREAM_FRAMING_OPTION,
    STREAM_WORKER_OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops =
    STREAM_WORKER_OPS(struct stream_worker, stdio_worker_open, stdio_worker_close);

const crew_transport crew_stdio = {
    .scheme = "stdio", .options = options, .check = check, .server = &worker_ops
};
