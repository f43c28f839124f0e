#include "program/access_log.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void on_call(void *context, const crew_call_end *end)
{
    struct access_log *log = context;
    struct crew_line line = { 0 };
    int fd = atomic_load(&log->fd);
    if (fd < 0)
        return;
    crew_line_text(&line, "method", end->method);
    crew_line_text(&line, "ending", crew_str(crew_ending_name(end->ending)));
    if (end->code)
        crew_line_number(&line, "code", end->code);
    crew_line_text(&line, "reason", crew_str(end->reason));
    crew_line_text(&line, "id", end->id);
    crew_line_number(&line, "us", (end->ended_ns - end->received_ns) / 1000);
    crew_line_number(&line, "wait_us",
                     ((end->started_ns ? end->started_ns : end->ended_ns) - end->received_ns) / 1000);
    crew_line_number(&line, "in", (int64_t)end->bytes_in);
    crew_line_number(&line, "out", (int64_t)end->bytes_out);
    crew_line_text(&line, "protocol", crew_str(end->protocol));
    crew_line_text(&line, "peer", crew_str(end->peer));
    crew_line_text(&line, "address", crew_str(end->address));
    crew_line_text(&line, "endpoint", crew_str(end->endpoint));
    crew_line_write(&line, fd, &log->sink, CREW_LOG_INFO, "call");
}

crew_status access_log_open(struct access_log *log, const char *file, crew_server *server, crew_error *why)
{
    const crew_server_hooks hooks = { .call = on_call, .context = log };
    log->owned = strcmp(file, "-") != 0;
    int fd = log->owned ? open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640) : STDERR_FILENO;
    if (fd < 0)
        return crew_error_set(why, CREW_SYSTEM, "--access-log: %s: %s", file, strerror(errno));
    crew_sink_init(&log->sink);
    atomic_store(&log->fd, fd);
    return crew_server_observe(server, &hooks, why);
}

void access_log_close(struct access_log *log)
{
    int fd = atomic_exchange(&log->fd, -1);
    if (log->owned && fd >= 0)
        close(fd);
}
