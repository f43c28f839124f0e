/* Lines whose fields are not known beforehand, and lines that would be too many. */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/log.h>
#include <rpcrew/value.h>

#include <pthread.h>
#include <stdatomic.h>

/* A line that is put together; all zero but for the arena's use at first. Fields that are empty are left out.
 */
struct crew_line {
    crew_arena arena;
    crew_value *fields;
};
void crew_line_text(struct crew_line *line, const char *key, crew_string text);
void crew_line_number(struct crew_line *line, const char *key, int64_t number);
/* Writes it as crew_log does, if the level is on, and frees it. */
void crew_line_log(struct crew_line *line, crew_log_level level, const char *event);
/* Where lines go: what is not written, since nobody reads, is counted, and told when there is room again. */
struct crew_sink {
    pthread_mutex_t mutex; /* one looks and writes at a time */
    unsigned long dropped;
};
void crew_sink_init(struct crew_sink *sink);
/* Writes it to another descriptor, whatever the level, in the log's format, and frees it. */
void crew_line_write(struct crew_line *line, int fd, struct crew_sink *sink, crew_log_level level,
                     const char *event);

/* How many lines of a kind there may be in a while. All zero at first. */
struct crew_rate {
    _Atomic(int64_t) until_ms;
    atomic_uint count, left_out;
};
enum { CREW_RATE_LINES = 10, CREW_RATE_MS = 10000 };
/* Whether this one may be written; then *left_out is how many were not since the last. Any thread. */
bool crew_rate_allows(struct crew_rate *rate, unsigned *left_out);

#endif
