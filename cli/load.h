/* What batch and bench share: latencies, a line of progress. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include <rpcrew.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* Latencies in microseconds, each within two parts of a hundred. All zero is empty; any thread adds. */
struct latencies {
    atomic_uint buckets[128 + 57 * 64];
    _Atomic(uint64_t) count, most;
};

void latencies_add(struct latencies *latencies, uint64_t us);
/* The latency that a share of all, 0 to 1, did not exceed. */
uint64_t latencies_at(struct latencies *latencies, double share);

/* Waits for the condition, for a tenth of a second at most. */
void load_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t load_now_ns(void);

/* Errors, each kind counted: by status, and code for those of the service; the last kind is all others. All
 * zero is empty. Any thread adds. */
enum { FAILURES_KINDS = 16 };
struct failures {
    pthread_mutex_t mutex;
    size_t kinds;
    struct failure {
        crew_status status;
        int64_t code;
        uint64_t count;
        char message[200]; /* of the first */
    } of[FAILURES_KINDS];
};
void failures_add(struct failures *failures, const crew_error *why);
uint64_t failures_count(struct failures *failures);

/* calls (that had a result), errors, unfinished, calls_per_s, p50_us, p90_us, p99_us, max_us, error_kinds,
 * and for batches resent and retried (stats not NULL). As one object of JSON, or for people, with a
 * histogram. */
struct load_summary {
    double seconds;
    unsigned concurrency;
    unsigned unfinished;         /* neither: they were under way when the time was over */
    struct latencies *latencies; /* of calls that had a result */
    struct failures *failures;
    const crew_client_stats *stats;
};
void load_print(const struct load_summary *summary, bool json, FILE *file);

/* Shows how far something is on standard error, if that is a terminal, ten times a second at most, since
 * started_ns; share below 0: not known. */
struct load_progress {
    int64_t next_ns, started_ns;
    bool shown;
};
void load_progress_show(struct load_progress *progress, double share, uint64_t calls);
/* Makes way for output, if that goes to a terminal too; the next call shows it again. */
void load_progress_hide(struct load_progress *progress);
/* Removes it. */
void load_progress_done(struct load_progress *progress);

#endif
