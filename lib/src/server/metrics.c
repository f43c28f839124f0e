/* A series for each combination of labels, in a table that only grows, up to a bound: a caller who invents
 * methods makes none, since what no table of the service's has is _OTHER, and an endpoint's codes are its
 * service's.
 *
 * Names, units and buckets are those of OpenTelemetry's conventions for RPC (rpc.server.call.duration), as
 * Prometheus writes them. */
#include "server/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4096, SERIES_MOST = 1024, BUCKETS = 14 };

/* A service's codes, when they have made half of the series: callers may choose some. */
static const int64_t OTHER_CODE = INT64_MIN;

static const char *const bounds[BUCKETS] = { "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
                                             "0.5",   "0.75", "1",     "2.5",  "5",     "7.5", "10" };
static const int64_t bounds_ns[BUCKETS] = { 5000000,    10000000,   25000000,   50000000,   75000000,
                                            100000000,  250000000,  500000000,  750000000,  1000000000,
                                            2500000000, 5000000000, 7500000000, 10000000000 };

struct histogram {
    atomic_uint_fast64_t counts[BUCKETS + 1], sum_ns;
};

/* What tells one series from another; pointers are the process's. */
struct labels {
    const char *endpoint, *protocol, *reason;
    int64_t code;
    crew_ending ending;
    crew_string method;
};

struct series {
    struct labels labels;
    char *method;      /* a copy */
    crew_buffer shown; /* the labels, as they are written */
    uint64_t hash;
    struct histogram total, wait, run;
    atomic_uint_fast64_t bytes_in, bytes_out;
};

struct crew_metrics {
    _Atomic(struct series *) slots[SLOTS];
    atomic_uint count;
    atomic_uint_fast64_t left_out; /* calls of which there is no series */
};

struct crew_metrics *crew_metrics_new(void)
{
    return calloc(1, sizeof(struct crew_metrics));
}

static void free_series(struct series *one)
{
    if (one) {
        free(one->method);
        crew_buffer_fini(&one->shown);
    }
    free(one);
}

void crew_metrics_free(struct crew_metrics *metrics)
{
    for (size_t i = 0; metrics && i < SLOTS; i++)
        free_series(atomic_load(&metrics->slots[i]));
    free(metrics);
}

/* ---- counting ---- */

static uint64_t mix(uint64_t hash, uint64_t more)
{
    return (hash ^ more) * UINT64_C(0x9E3779B97F4A7C15);
}

static uint64_t hash_of(const struct labels *l)
{
    uint64_t hash = mix(mix(l->method.size, (uintptr_t)l->endpoint), (uint64_t)l->code * 16 + l->ending);
    size_t at = 0;
    for (uint64_t word; at + 8 <= l->method.size; at += 8) {
        memcpy(&word, l->method.data + at, 8);
        hash = mix(hash ^ hash >> 29, word);
    }
    for (; at < l->method.size; at++)
        hash = mix(hash ^ hash >> 29, (unsigned char)l->method.data[at]);
    hash = mix(hash ^ hash >> 32, (uintptr_t)l->protocol ^ (l->reason ? (unsigned char)*l->reason : 0U));
    return hash ^ hash >> 32;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same(const struct series *s, uint64_t hash, const struct labels *l)
{
    return s->hash == hash && s->labels.endpoint == l->endpoint && s->labels.protocol == l->protocol &&
           same_text(s->labels.reason, l->reason) && s->labels.code == l->code &&
           s->labels.ending == l->ending && crew_string_equal(s->labels.method, l->method);
}

void crew_metrics_head(crew_buffer *out, const char *name, const char *type, const char *help)
{
    crew_buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void crew_metrics_label(crew_buffer *out, const char *value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (value[i] == '\n')
            crew_buffer_text(out, "\\n");
        else if (value[i] == '"' || value[i] == '\\')
            crew_buffer_printf(out, "\\%c", value[i]);
        else
            crew_buffer_append(out, value + i, 1);
    }
}

static void write_label(crew_buffer *out, const char *name, crew_string value)
{
    crew_buffer_printf(out, "%s=\"", name);
    crew_metrics_label(out, value.data, value.size);
    crew_buffer_text(out, "\"");
}

static void write_labels(crew_buffer *out, const struct labels *l)
{
    crew_string system = crew_str(strcmp(l->protocol, "msgpack") == 0 ? "msgpackrpc" : l->protocol);
    write_label(out, "rpc_system_name", system);
    write_label(out, ",rpc_method", l->method);
    if (l->code == OTHER_CODE)
        crew_buffer_text(out, ",rpc_status_code=\"_OTHER\"");
    else if (l->code)
        crew_buffer_printf(out, ",rpc_status_code=\"%" PRId64 "\"", l->code);
    if (l->ending != CREW_ENDED_RESULT)
        write_label(out, ",error_type", crew_str(l->reason ? l->reason : crew_ending_name(l->ending)));
    write_label(out, ",endpoint", crew_str(l->endpoint));
}

static struct series *series_new(const struct labels *labels, uint64_t hash)
{
    struct series *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->labels = *labels;
    s->hash = hash;
    s->method = malloc(labels->method.size + 1);
    if (!s->method) {
        free(s);
        return NULL;
    }
    memcpy(s->method, labels->method.data, labels->method.size);
    s->method[labels->method.size] = '\0';
    s->labels.method.data = s->method;
    write_labels(&s->shown, &s->labels);
    if (!s->shown.failed)
        return s;
    free_series(s);
    return NULL;
}

/* The labels' series, made if need be; NULL: there are too many, or no memory. */
static struct series *series_of(struct crew_metrics *metrics, const struct labels *labels)
{
    uint64_t hash = hash_of(labels);
    for (size_t i = 0; i < SLOTS; i++) {
        _Atomic(struct series *) *slot = &metrics->slots[(hash + i) % SLOTS];
        struct series *found = atomic_load_explicit(slot, memory_order_acquire);
        if (!found) {
            bool is_chosen = labels->ending == CREW_ENDED_ERROR && labels->code != OTHER_CODE;
            if (atomic_fetch_add(&metrics->count, 1) >= (is_chosen ? SERIES_MOST / 2 : SERIES_MOST)) {
                atomic_fetch_sub(&metrics->count, 1);
                return NULL;
            }
            struct series *fresh = series_new(labels, hash);
            if (fresh && atomic_compare_exchange_strong(slot, &found, fresh))
                return fresh;
            atomic_fetch_sub(&metrics->count, 1);
            free_series(fresh);
            if (!fresh)
                return NULL;
        }
        if (same(found, hash, labels)) /* perhaps another thread's, a moment ago */
            return found;
    }
    return NULL;
}

static void add(atomic_uint_fast64_t *to, uint64_t more)
{
    atomic_fetch_add_explicit(to, more, memory_order_relaxed);
}

static void observe(struct histogram *h, int64_t ns)
{
    size_t bucket = 0;
    ns = ns > 0 ? ns : 0;
    while (bucket < BUCKETS && ns > bounds_ns[bucket])
        bucket++;
    add(&h->counts[bucket], 1);
    add(&h->sum_ns, (uint64_t)ns);
}

void crew_metrics_call(void *context, const crew_call_end *end)
{
    struct crew_metrics *metrics = context;
    struct labels labels = { .endpoint = end->endpoint,
                             .protocol = end->protocol,
                             .reason = end->ending == CREW_ENDED_SHED ? end->reason : NULL,
                             .code = end->code,
                             .ending = end->ending,
                             .method = end->known ? end->method : crew_str("_OTHER") };
    struct series *s = series_of(metrics, &labels);
    if (!s && labels.ending == CREW_ENDED_ERROR) {
        labels.code = OTHER_CODE;
        s = series_of(metrics, &labels);
    }
    if (!s) {
        add(&metrics->left_out, 1);
        return;
    }
    observe(&s->total, end->ended_ns - end->received_ns);
    observe(&s->wait, (end->started_ns ? end->started_ns : end->ended_ns) - end->received_ns);
    if (end->started_ns)
        observe(&s->run, end->ended_ns - end->started_ns);
    add(&s->bytes_in, end->bytes_in);
    add(&s->bytes_out, end->bytes_out);
}

/* ---- writing ---- */

static uint64_t value_of(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void write_sample(crew_buffer *out, const char *name, const char *suffix, const struct series *s,
                         const char *more)
{
    crew_buffer_text(out, name);
    crew_buffer_text(out, suffix);
    crew_buffer_text(out, "{");
    crew_buffer_append(out, s->shown.data, s->shown.size);
    crew_buffer_text(out, more);
    crew_buffer_text(out, "} ");
}

static void write_count(crew_buffer *out, uint64_t count)
{
    crew_buffer_printf(out, "%" PRIu64 "\n", count);
}

static void write_histogram(crew_buffer *out, const char *name, const struct series *s,
                            const struct histogram *h)
{
    uint64_t count = 0, sum = value_of(&h->sum_ns);
    for (size_t i = 0; i <= BUCKETS; i++) {
        char bound[24];
        count += value_of(&h->counts[i]);
        (void)snprintf(bound, sizeof bound, ",le=\"%s\"", i < BUCKETS ? bounds[i] : "+Inf");
        write_sample(out, name, "_bucket", s, bound);
        write_count(out, count);
    }
    write_sample(out, name, "_sum", s, "");
    crew_buffer_printf(out, "%" PRIu64 ".%09" PRIu64 "\n", sum / 1000000000, sum % 1000000000);
    write_sample(out, name, "_count", s, "");
    write_count(out, count);
}

static void write_all(const struct crew_metrics *metrics, crew_buffer *out, const char *name, size_t offset)
{
    for (size_t i = 0; i < SLOTS; i++) {
        const struct series *s = atomic_load_explicit(&metrics->slots[i], memory_order_acquire);
        const struct histogram *h =
            s ? (const struct histogram *)(const void *)((const char *)s + offset) : NULL;
        if (h)
            write_histogram(out, name, s, h);
    }
}

static void write_counters(const struct crew_metrics *metrics, crew_buffer *out, const char *name,
                           size_t offset)
{
    for (size_t i = 0; i < SLOTS; i++) {
        const struct series *s = atomic_load_explicit(&metrics->slots[i], memory_order_acquire);
        if (!s)
            continue;
        write_sample(out, name, "", s, "");
        write_count(out, value_of((const atomic_uint_fast64_t *)(const void *)((const char *)s + offset)));
    }
}

void crew_metrics_write(const struct crew_metrics *metrics, crew_buffer *out)
{
    static const char total[] = "rpc_server_call_duration_seconds",
                      wait[] = "rpcrew_server_wait_duration_seconds",
                      run[] = "rpcrew_server_run_duration_seconds",
                      in[] = "rpcrew_server_request_bytes_total",
                      answered[] = "rpcrew_server_response_bytes_total",
                      left_out[] = "rpcrew_metrics_left_out_total";
    crew_metrics_head(out, total, "histogram", "From a request's receipt to its call's end.");
    write_all(metrics, out, total, offsetof(struct series, total));
    crew_metrics_head(out, wait, "histogram", "From a request's receipt to its call's turn.");
    write_all(metrics, out, wait, offsetof(struct series, wait));
    crew_metrics_head(out, run, "histogram", "From a call's turn to its end.");
    write_all(metrics, out, run, offsetof(struct series, run));
    crew_metrics_head(out, in, "counter", "Bytes of requests; a batch's count for each of its calls.");
    write_counters(metrics, out, in, offsetof(struct series, bytes_in));
    crew_metrics_head(out, answered, "counter", "Bytes of answers.");
    write_counters(metrics, out, answered, offsetof(struct series, bytes_out));
    crew_metrics_head(out, left_out, "counter", "Calls beyond the most series that are kept.");
    crew_buffer_printf(out, "%s %" PRIu64 "\n", left_out, value_of(&metrics->left_out));
}
