/* bench: as many calls as go through in a while, so many at a time. */
#include "colour.h"
#include "commands.h"
#include "load.h"
#include "params.h"

#include <pthread.h>
#include <stdlib.h>

enum { GRACE_MS = 1000 }; /* for answers, behind the end */

struct bench {
    const struct cli *cli;
    const char *method;
    const crew_value *params;
    int64_t end_ns;
    _Atomic(int64_t) last_ns; /* when the last call had a result */
    struct latencies latencies;
    struct failures failures;
    atomic_uint unfinished; /* that the end has cut off */

    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t ended;
    unsigned lanes_open;
    bool failed;
    crew_error first; /* the first error */
};

/* One call after the other. */
struct lane {
    struct bench *bench;
    int64_t started_ns;
    bool is_cut; /* its time ends with the bench's */
};

static void note_error(struct bench *bench, const crew_error *why)
{
    failures_add(&bench->failures, why);
    pthread_mutex_lock(&bench->mutex);
    if (!bench->failed)
        bench->first = *why;
    bench->failed = true;
    pthread_mutex_unlock(&bench->mutex);
}

static void close_lane(struct bench *bench)
{
    pthread_mutex_lock(&bench->mutex);
    bench->lanes_open--;
    pthread_cond_signal(&bench->ended);
    pthread_mutex_unlock(&bench->mutex);
}

static void next_call(struct lane *lane);

static void on_done(void *context, crew_result *result, const crew_error *why)
{
    struct lane *lane = context;
    crew_result_free(result);
    if (why->status == CREW_OK) {
        int64_t now_ns = load_now_ns();
        latencies_add(&lane->bench->latencies, (uint64_t)(now_ns - lane->started_ns) / 1000);
        atomic_store(&lane->bench->last_ns, now_ns);
    } else if (lane->is_cut && (why->status == CREW_TIMEOUT || why->status == CREW_EXPIRED)) {
        atomic_fetch_add(&lane->bench->unfinished, 1);
    } else {
        note_error(lane->bench, why);
    }
    next_call(lane);
}

static void next_call(struct lane *lane)
{
    struct bench *bench = lane->bench;
    crew_error why;
    lane->started_ns = load_now_ns();
    if (lane->started_ns >= bench->end_ns) {
        close_lane(bench);
        return;
    }
    crew_call_options options = bench->cli->call;
    int64_t left_ms = (bench->end_ns - lane->started_ns) / 1000000 + GRACE_MS;
    lane->is_cut = left_ms < bench->cli->timeout_ms;
    if (lane->is_cut)
        options.timeout_ms = (unsigned)left_ms;
    crew_status status = crew_client_start_value(bench->cli->client, bench->method, bench->params, &options,
                                                 on_done, lane, NULL, &why);
    if (status != CREW_OK) {
        note_error(bench, &why);
        close_lane(bench);
    }
}

/* Waits for all lanes, with a look at the progress now and then. */
static void wait_for_lanes(struct bench *bench, int64_t start_ns)
{
    struct load_progress progress = { .started_ns = start_ns };
    pthread_mutex_lock(&bench->mutex);
    while (bench->lanes_open) {
        load_wait(&bench->ended, &bench->mutex);
        pthread_mutex_unlock(&bench->mutex); /* completions want it, and must not wait for a terminal */
        double share = (double)(load_now_ns() - start_ns) / (double)(bench->end_ns - start_ns);
        load_progress_show(&progress, share, atomic_load(&bench->latencies.count));
        pthread_mutex_lock(&bench->mutex);
    }
    pthread_mutex_unlock(&bench->mutex);
    load_progress_done(&progress);
}

static int run(struct bench *bench)
{
    const struct cli *cli = bench->cli;
    struct lane *lanes = calloc(cli->concurrency, sizeof *lanes);
    if (!lanes)
        return cli_fail(&(crew_error){ .status = CREW_NO_MEMORY, .message = "no memory" });
    crew_error why;
    /* The first call finds out whether anybody is there, and is not counted. */
    crew_status status =
        crew_client_call_value(cli->client, bench->method, bench->params, &cli->call, NULL, &why);
    if (status != CREW_OK) {
        free(lanes);
        return cli_fail(&why);
    }
    int64_t start_ns = load_now_ns();
    bench->end_ns = start_ns + (int64_t)(cli->duration_s * 1e9);
    bench->lanes_open = cli->concurrency;
    for (unsigned i = 0; i < cli->concurrency; i++) {
        lanes[i].bench = bench;
        next_call(&lanes[i]);
    }
    wait_for_lanes(bench, start_ns);
    int64_t last_ns = atomic_load(&bench->last_ns),
            until_ns = last_ns > bench->end_ns ? last_ns : bench->end_ns;
    struct load_summary summary = { .seconds = (double)(until_ns - start_ns) / 1e9,
                                    .concurrency = cli->concurrency,
                                    .unfinished = atomic_load(&bench->unfinished),
                                    .latencies = &bench->latencies,
                                    .failures = &bench->failures };
    load_print(&summary, cli->json, stdout);
    free(lanes);
    if (!bench->failed && summary.unfinished == cli->concurrency &&
        last_ns < bench->end_ns - GRACE_MS * 1000000LL) {
        cli_complain("it does not answer any more\n");
        return EXIT_TIME;
    }
    return bench->failed ? cli_fail(&bench->first) : EXIT_OK;
}

int cli_bench(const struct cli *cli)
{
    crew_arena *arena = NULL;
    crew_error why = { .status = CREW_NO_MEMORY, .message = "no memory" };
    struct bench *bench = calloc(1, sizeof *bench);
    crew_status status = bench ? crew_arena_new(&arena) : CREW_NO_MEMORY;
    if (status == CREW_OK)
        status = cli_read_call(cli, arena, &bench->params, &why);
    int code;
    if (status == CREW_OK) {
        bench->cli = cli;
        bench->method = cli->words[0];
        (void)pthread_mutex_init(&bench->mutex, NULL);
        (void)pthread_mutex_init(&bench->failures.mutex, NULL);
        (void)pthread_cond_init(&bench->ended, NULL);
        code = run(bench);
        (void)pthread_cond_destroy(&bench->ended);
        (void)pthread_mutex_destroy(&bench->failures.mutex);
        (void)pthread_mutex_destroy(&bench->mutex);
    } else {
        code = cli_fail(&why);
    }
    crew_arena_free(arena);
    free(bench);
    return code;
}
