/* What observing costs a call: the observer that counts, beside the reading of a clock, of which a call that
 * is observed wants three; by turns in one run: `observer [SECONDS [ROUNDS]]`. CPU time of this one thread.
 */
#include "core/metrics.h"
#include "server/tell.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS_MOST = 100, AT_A_TIME = 1000 };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static crew_metrics *metrics;
static volatile int64_t sink;

static void read_clock(int i)
{
    (void)i;
    sink = crew_now_ns();
}

/* Three methods by turns, one of which fails. */
static void count_served(int i)
{
    static const char *const names[] = { "subtract", "account.transfer", "list" };
    const crew_call_end end = { .method = crew_str(names[i % 3]),
                                .known = true,
                                .ending = i % 3 == 1 ? CREW_ENDED_ERROR : CREW_ENDED_RESULT,
                                .code = i % 3 == 1 ? 7 : 0,
                                .endpoint = "amqp://rabbitmq.example/?queue=accounts",
                                .protocol = "jsonrpc",
                                .bytes_in = 80,
                                .bytes_out = 40,
                                .received_ns = 1000,
                                .started_ns = 2000 + i,
                                .ended_ns = 3000 + 2 * i };
    crew_tell_metrics(metrics, &end);
}

static const struct kind {
    const char *name;
    void (*run)(int i);
} kinds[] = { { "a clock, read once", read_clock }, { "a call's end, counted", count_served } };
enum { KINDS = sizeof kinds / sizeof *kinds };

static double measure(const struct kind *kind, double seconds)
{
    double start = now_ns(), passed;
    long count = 0;
    do {
        for (int i = 0; i < AT_A_TIME; i++)
            kind->run(i);
        count += AT_A_TIME;
        passed = now_ns() - start;
    } while (passed < seconds * 1e9);
    return passed / (double)count;
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.5, ns[KINDS][ROUNDS_MOST];
    int rounds = argc > 2 ? atoi(argv[2]) : 5; // NOLINT(cert-err34-c): checked below
    if (!(seconds > 0) || rounds < 1 || rounds > ROUNDS_MOST)
        errx(2, "usage: observer [SECONDS [ROUNDS]], at most %d rounds", ROUNDS_MOST);
    if (crew_metrics_new(&metrics) != CREW_OK)
        errx(1, "no memory");
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < KINDS; i++)
            ns[i][round] = measure(&kinds[i], seconds);
    for (int i = 0; i < KINDS; i++) {
        qsort(ns[i], (size_t)rounds, sizeof *ns[i], compare);
        printf("%-24s %6.1f ns  (%.1f to %.1f)\n", kinds[i].name, ns[i][rounds / 2], ns[i][0],
               ns[i][rounds - 1]);
    }
    crew_metrics_free(metrics);
    return 0;
}
