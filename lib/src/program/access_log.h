/* A line for each call, in the log's format. */
#ifndef PROGRAM_ACCESS_LOG_H
#define PROGRAM_ACCESS_LOG_H

#include "core/log.h"

#include <rpcrew/observe.h>

struct access_log {
    atomic_int fd; /* -1: not open */
    bool owned;
    struct crew_sink sink;
};

/* file: "-" for standard error. It is written to at its end. log is borrowed for the process's life:
 * deferred calls may end after the server. */
CREW_NODISCARD crew_status access_log_open(struct access_log *log, const char *file, crew_server *server,
                                           crew_error *why);
void access_log_close(struct access_log *log);

#endif
