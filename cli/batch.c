/* batch: a call for each line of JSON, many at a time; a line of JSON for each answer, in the same order. */
#include "colour.h"
#include "commands.h"
#include "load.h"
#include "show.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { LINE_MOST = 256 << 20 };

/* A line that is on its way, in a ring of them. The arena and id are the reader's until the call is under
 * way, then its completion's, and then, with done, the writer's. */
struct slot {
    struct batch *batch;
    crew_arena *arena;    /* of the line's values */
    const crew_value *id; /* the line's, NULL if it has none */
    int64_t started_ns;
    bool done;
    crew_bytes answer; /* without memory for it: empty */
    crew_error why;
};

/* One thread reads lines and starts their calls, one writes the answers, the oldest first. */
struct batch {
    const struct cli *cli;
    FILE *input;
    const char *name;
    uint64_t lines;
    off_t size; /* of the input; 0: not known */
    struct latencies latencies;
    struct slot *ring;

    pthread_mutex_t mutex; /* of all below, and of the slots' done */
    pthread_cond_t changed;
    size_t first, count; /* the slots that are under way */
    off_t read;
    bool all_read;
    crew_error failure; /* the writer's: nothing more is read then */
    uint64_t errors;
    struct failures failures;
    crew_error first_error; /* in the order of the lines */
};

static crew_status describe(struct slot *slot, const crew_result *result, const crew_error *why,
                            const crew_value **answer)
{
    crew_value *made;
    const crew_value *part = NULL;
    crew_status status = crew_object_new(slot->arena, &made);
    if (status == CREW_OK && slot->id)
        status = crew_object_add(slot->arena, made, crew_str("id"), slot->id);
    if (status == CREW_OK && why->status == CREW_OK) {
        const crew_value *value = crew_result_value(result);
        status = crew_object_add(slot->arena, made, crew_str("result"), value);
    } else if (status == CREW_OK) {
        status = crew_pack(slot->arena, &part, "{s:s,s:I,s:s,s:s,s:o,s:s,s:I}", "status",
                           crew_status_name(why->status), "code", why->code, "message",
                           *why->peer_message ? why->peer_message : why->message, "executed",
                           crew_executed_name(why->executed), "data", crew_result_error_data(result),
                           "endpoint", why->endpoint, "elapsed_ms", why->elapsed_ms);
        if (status == CREW_OK)
            status = crew_object_add(slot->arena, made, crew_str("error"), part);
    }
    *answer = made;
    return status;
}

static void on_done(void *context, crew_result *result, const crew_error *why)
{
    struct slot *slot = context;
    struct batch *batch = slot->batch;
    const crew_value *answer;
    crew_bytes text = { 0 };
    if (why->status == CREW_OK)
        latencies_add(&batch->latencies, (uint64_t)(load_now_ns() - slot->started_ns) / 1000);
    else
        failures_add(&batch->failures, why);
    if (describe(slot, result, why, &answer) == CREW_OK &&
        cli_show(slot->arena, answer, &answer) == CREW_OK &&
        crew_json_encode(answer, CREW_JSON_COMPACT, &text) != CREW_OK)
        text = (crew_bytes){ 0 };
    crew_result_free(result);
    pthread_mutex_lock(&batch->mutex);
    slot->answer = text;
    slot->why = *why;
    slot->done = true;
    pthread_cond_broadcast(&batch->changed);
    pthread_mutex_unlock(&batch->mutex);
}

/* ---- writing ---- */

/* Waits until the oldest line has its answer; NULL when there is none to come. Whoever reads along sees what
 * there is before each wait. Nothing is written under the lock: completions want it, and must not wait for a
 * reader. */
static struct slot *await_oldest(struct batch *batch, struct load_progress *progress)
{
    bool shown = false;
    pthread_mutex_lock(&batch->mutex);
    struct slot *slot = &batch->ring[batch->first];
    while (!(batch->count && slot->done) && !(batch->all_read && !batch->count)) {
        if (shown) {
            load_wait(&batch->changed, &batch->mutex);
            shown = false;
            continue;
        }
        double share = batch->size ? (double)batch->read / (double)batch->size : -1;
        pthread_mutex_unlock(&batch->mutex);
        int error = fflush(stdout) == 0 ? 0 : errno;
        load_progress_show(progress, share,
                           atomic_load(&batch->latencies.count) + failures_count(&batch->failures));
        pthread_mutex_lock(&batch->mutex);
        if (error && batch->failure.status == CREW_OK) {
            crew_error_set(&batch->failure, CREW_SYSTEM, "writing the output: %s", strerror(error));
            pthread_cond_broadcast(&batch->changed);
        }
        shown = true;
    }
    bool good = batch->count > 0;
    pthread_mutex_unlock(&batch->mutex);
    return good ? slot : NULL;
}

static void write_answer(struct slot *slot, struct load_progress *progress, crew_error *why)
{
    *why = (crew_error){ .status = CREW_OK };
    if (!slot->answer.data) {
        crew_error_set(why, CREW_NO_MEMORY, "an answer cannot be shown: no memory, or no JSON");
        return;
    }
    load_progress_hide(progress);
    cli_print_json((crew_string){ slot->answer.data, slot->answer.size }, stdout);
    if (putchar('\n') == EOF || ferror(stdout))
        crew_error_set(why, CREW_SYSTEM, "writing the output: %s", strerror(errno));
    crew_bytes_free(&slot->answer);
}

static void *run_writer(void *argument)
{
    struct batch *batch = argument;
    struct load_progress progress = { .started_ns = load_now_ns() };
    for (struct slot *slot; (slot = await_oldest(batch, &progress));) {
        crew_error why;
        write_answer(slot, &progress, &why);
        crew_arena_reset(slot->arena);
        pthread_mutex_lock(&batch->mutex);
        if (slot->why.status != CREW_OK && !batch->errors++)
            batch->first_error = slot->why;
        if (why.status != CREW_OK && batch->failure.status == CREW_OK)
            batch->failure = why;
        slot->done = false;
        batch->first = (batch->first + 1) % batch->cli->concurrency;
        batch->count--;
        pthread_cond_broadcast(&batch->changed);
        pthread_mutex_unlock(&batch->mutex);
    }
    load_progress_done(&progress);
    return NULL;
}

/* ---- reading ---- */

/* {"method":…, "params":…, "id":…}; the last two may be left out, what else there is is not looked at. */
static crew_status read_line(struct batch *batch, struct slot *slot, crew_string line, const char **method,
                             const crew_value **params, crew_error *why)
{
    const crew_limits limits = { .message_bytes = LINE_MOST };
    const crew_value *value = NULL;
    crew_error reason;
    crew_status status = crew_json_decode(line, &limits, slot->arena, &value, &reason);
    if (status != CREW_OK)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "%s:%llu: %s", batch->name,
                              (unsigned long long)batch->lines, reason.message);
    *method = NULL;
    *params = crew_value_get(value, "params");
    slot->id = crew_value_get(value, "id");
    if (*params && crew_value_type(*params) == CREW_TYPE_NULL)
        *params = NULL;
    crew_type type = *params ? crew_value_type(*params) : CREW_TYPE_ARRAY;
    if (crew_unpack(value, "{s:s}", "method", method) != CREW_OK ||
        (type != CREW_TYPE_ARRAY && type != CREW_TYPE_OBJECT))
        return crew_error_set(
            why, CREW_BAD_ARGUMENT,
            "%s:%llu: wants {\"method\": string, \"params\": array or object}, params optional", batch->name,
            (unsigned long long)batch->lines);
    return CREW_OK;
}

/* Waits until fewer than that are under way; the next free slot, or NULL if the output has failed. */
static struct slot *await_room(struct batch *batch, size_t fewer_than)
{
    pthread_mutex_lock(&batch->mutex);
    while (batch->count >= fewer_than && batch->failure.status == CREW_OK)
        pthread_cond_wait(&batch->changed, &batch->mutex);
    struct slot *slot = &batch->ring[(batch->first + batch->count) % batch->cli->concurrency];
    bool good = batch->failure.status == CREW_OK;
    pthread_mutex_unlock(&batch->mutex);
    return good ? slot : NULL;
}

static crew_status start_line(struct batch *batch, struct slot *slot, crew_string line, crew_error *why)
{
    const char *method = NULL;
    const crew_value *params = NULL;
    crew_error reason;
    crew_status status = read_line(batch, slot, line, &method, &params, why);
    if (status != CREW_OK)
        return status;
    size_t others;
    do { /* where the client has room for fewer calls than we, it waits for the others */
        pthread_mutex_lock(&batch->mutex);
        others = batch->count++;
        pthread_mutex_unlock(&batch->mutex);
        slot->started_ns = load_now_ns();
        status = crew_client_start_value(batch->cli->client, method, params, &batch->cli->call, on_done, slot,
                                         NULL, &reason);
        if (status == CREW_OVERLOADED && others) {
            pthread_mutex_lock(&batch->mutex);
            batch->count--;
            pthread_mutex_unlock(&batch->mutex);
        }
        if (status == CREW_OVERLOADED && others && !await_room(batch, others))
            return CREW_OK; /* the output has failed, which run will say */
    } while (status == CREW_OVERLOADED && others);
    if (status != CREW_OK) /* it ends here, as others do elsewhere */
        on_done(slot, NULL, &reason);
    return CREW_OK;
}

static crew_status read_lines(struct batch *batch, crew_error *why)
{
    char *line = NULL;
    size_t room = 0;
    crew_status status = CREW_OK;
    struct slot *slot;
    for (ssize_t size; status == CREW_OK && (size = getline(&line, &room, batch->input)) > 0;) {
        crew_string text = { line, (size_t)size - (line[size - 1] == '\n') };
        pthread_mutex_lock(&batch->mutex);
        batch->read += size;
        pthread_mutex_unlock(&batch->mutex);
        batch->lines++;
        if (strspn(line, " \t\r\n") == (size_t)size)
            continue;
        if (text.size > LINE_MOST)
            status = crew_error_set(why, CREW_LIMIT, "%s:%llu: more than %d bytes", batch->name,
                                    (unsigned long long)batch->lines, LINE_MOST);
        else if ((slot = await_room(batch, batch->cli->concurrency)))
            status = start_line(batch, slot, text, why);
        else
            break;
    }
    if (status == CREW_OK && ferror(batch->input))
        status = crew_error_set(why, CREW_SYSTEM, "%s: %s", batch->name, strerror(errno));
    free(line);
    return status;
}

/* Also after a mistake in the input, what is under way is answered. */
static crew_status run(struct batch *batch, crew_error *why)
{
    pthread_t writer;
    int error = pthread_create(&writer, NULL, run_writer, batch);
    if (error)
        return crew_error_set(why, CREW_SYSTEM, "starting a thread: %s", strerror(error));
    crew_status status = read_lines(batch, why);
    pthread_mutex_lock(&batch->mutex);
    batch->all_read = true;
    pthread_cond_broadcast(&batch->changed);
    pthread_mutex_unlock(&batch->mutex);
    (void)pthread_join(writer, NULL);
    if (status == CREW_OK && batch->failure.status != CREW_OK) {
        *why = batch->failure;
        status = why->status;
    }
    return status;
}

static crew_status open_input(struct batch *batch, crew_error *why)
{
    const struct cli *cli = batch->cli;
    struct stat about;
    if (cli->count > 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s': only a FILE is wanted behind the URL",
                              cli->words[1]);
    bool standard = cli->count == 0 || strcmp(cli->words[0], "-") == 0;
    batch->name = standard ? "standard input" : cli->words[0];
    batch->input = standard ? stdin : fopen(cli->words[0], "r");
    if (!batch->input)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "%s: %s", batch->name, strerror(errno));
    if (fstat(fileno(batch->input), &about) == 0 && S_ISREG(about.st_mode))
        batch->size = about.st_size;
    batch->ring = calloc(cli->concurrency, sizeof *batch->ring);
    crew_status status = batch->ring ? CREW_OK : CREW_NO_MEMORY;
    for (unsigned i = 0; i < cli->concurrency && status == CREW_OK; i++) {
        batch->ring[i].batch = batch;
        status = crew_arena_new(&batch->ring[i].arena);
    }
    return status == CREW_OK ? CREW_OK : crew_error_set(why, status, "no memory");
}

static bool write_summary(struct batch *batch, double seconds)
{
    const char *name = batch->cli->summary;
    crew_client_stats stats;
    crew_client_stats_get(batch->cli->client, &stats);
    struct load_summary summary = { .seconds = seconds,
                                    .concurrency = batch->cli->concurrency,
                                    .latencies = &batch->latencies,
                                    .failures = &batch->failures,
                                    .stats = &stats };
    FILE *file = fopen(name, "w");
    if (file)
        load_print(&summary, true, file);
    bool good = file && fclose(file) == 0;
    if (!good)
        cli_complain("%s: %s\n", name, strerror(errno));
    return good;
}

int cli_batch(const struct cli *cli)
{
    crew_error why = { .status = CREW_NO_MEMORY, .message = "no memory" };
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return cli_fail(&why);
    batch->cli = cli;
    (void)pthread_mutex_init(&batch->mutex, NULL);
    (void)pthread_mutex_init(&batch->failures.mutex, NULL);
    (void)pthread_cond_init(&batch->changed, NULL);
    int64_t start_ns = load_now_ns();
    crew_status status = open_input(batch, &why);
    if (status == CREW_OK)
        status = run(batch, &why);
    int code = status == CREW_OK ? EXIT_OK : cli_fail(&why);
    if (cli->summary && !write_summary(batch, (double)(load_now_ns() - start_ns) / 1e9) && code == EXIT_OK)
        code = EXIT_LOCAL;
    if (code == EXIT_OK && batch->errors)
        code = cli_fail(&batch->first_error);
    for (unsigned i = 0; batch->ring && i < cli->concurrency; i++)
        crew_arena_free(batch->ring[i].arena);
    if (batch->input && batch->input != stdin)
        (void)fclose(batch->input);
    (void)pthread_cond_destroy(&batch->changed);
    (void)pthread_mutex_destroy(&batch->failures.mutex);
    (void)pthread_mutex_destroy(&batch->mutex);
    free(batch->ring);
    free(batch);
    return code;
}
