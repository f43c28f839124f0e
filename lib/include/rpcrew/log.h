/* Log lines of the library and of workers: one line an event, to a file descriptor, with fields.
 * The library says nothing until crew_log_open. One log a process. */
#ifndef RPCREW_LOG_H
#define RPCREW_LOG_H

#include <rpcrew/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum crew_log_level {
    CREW_LOG_OFF,
    CREW_LOG_ERROR, /* something is lost or will not work until somebody acts */
    CREW_LOG_WARN,  /* it goes on, but not as it should */
    CREW_LOG_INFO,  /* changes of state: started, connected, draining */
    CREW_LOG_DEBUG  /* single messages */
} crew_log_level;

typedef enum crew_log_format {
    CREW_LOG_TEXT,   /* 2026-01-31T12:00:00.123Z INFO listening endpoint=… */
    CREW_LOG_LOGFMT, /* time=… level=info msg=listening endpoint=… */
    CREW_LOG_JSON    /* {"time":"…","level":"info","msg":"listening","endpoint":"…"} */
} crew_log_format;

typedef struct crew_log_options {
    crew_log_level level; /* OFF: silent */
    crew_log_format format;
    int fd; /* 0: stderr. Borrowed. */
} crew_log_options;

/* Starts, changes or (level OFF) ends logging. Call it before threads log, or between. */
CREW_API void crew_log_open(const crew_log_options *options);

/* "error", "warn", "info", "debug", "off" and the formats' names "text", "logfmt", "json" to their values.
 * CREW_BAD_ARGUMENT with the names that are allowed. */
CREW_NODISCARD CREW_API crew_status crew_log_level_parse(const char *name, crew_log_level *level,
                                                         crew_error *why);
CREW_NODISCARD CREW_API crew_status crew_log_format_parse(const char *name, crew_log_format *format,
                                                          crew_error *why);

CREW_API bool crew_log_enabled(crew_log_level level);

/* Writes one line, if the level is on. fields is an object in crew_pack's format, such as "{s:s,s:i}", or
 * NULL. A line is one write; nothing is buffered; failures to write are ignored. Any thread. */
CREW_API void crew_log(crew_log_level level, const char *event, const char *fields, ...);

/* One message going over the wire, for the trace hooks of servers and clients. Borrowed for the hook's time.
 */
typedef struct crew_trace {
    bool incoming;
    const char *endpoint;     /* URL, without password */
    const char *content_type; /* "" if there is none */
    crew_string bytes;
} crew_trace;

/* Called on the endpoint's I/O thread: it must not block. */
typedef void crew_trace_fn(void *context, const crew_trace *trace);

#ifdef __cplusplus
}
#endif
#endif
