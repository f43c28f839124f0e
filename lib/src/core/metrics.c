/* A series for each combination of labels, in a table that only grows, up to a bound: a caller who invents
 * methods makes none, since what no table of the service's has is _OTHER. What others choose, codes of
 * services and the methods of a client that passes them on, makes half of them at most.
 *
 * Names, units and buckets are those of OpenTelemetry's conventions for RPC (rpc.server.call.duration,
 * rpc.client.call.duration), as Prometheus writes them. */
#include "core/metrics.h"

#include "core/utf8.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4096, SERIES_MOST = 1024, BUCKETS = 14, CLIENTS_MOST = 256, NAME_MOST = 200 };

/* What others choose, when that has made half of the series. */
static const int64_t OTHER_CODE = INT64_MIN;
static const char OTHER[] = "_OTHER";

static const char *const bounds[BUCKETS] = { "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
                                             "0.5",   "0.75", "1",     "2.5",  "5",     "7.5", "10" };
static const int64_t bounds_ns[BUCKETS] = { 5000000,    10000000,   25000000,   50000000,   75000000,
                                            100000000,  250000000,  500000000,  750000000,  1000000000,
                                            2500000000, 5000000000, 7500000000, 10000000000 };

struct histogram {
    atomic_uint_fast64_t counts[BUCKETS + 1], sum_ns;
};

/* What tells one series from another. */
struct labels {
    crew_string method, endpoint, error;
    const char *protocol; /* a protocol's own name */
    int64_t code;
};

struct series {
    struct labels labels;
    char *texts;       /* the labels' own */
    crew_buffer shown; /* the labels, as they are written */
    uint64_t hash;
    struct histogram total, wait, run;
    atomic_uint_fast64_t requests, responses; /* bytes */
};

struct table {
    _Atomic(struct series *) slots[SLOTS];
    atomic_uint count;
};

struct crew_metrics {
    atomic_uint holds;
    struct table sides[CREW_SIDES];
    atomic_uint_fast64_t left_out; /* calls of which there is no series */
    pthread_mutex_t mutex;         /* of whoever adds to clients */
    _Atomic(struct crew_client_counts *) clients;
    size_t client_count;
};

crew_status crew_metrics_new(crew_metrics **metrics)
{
    *metrics = calloc(1, sizeof **metrics);
    if (!*metrics)
        return CREW_NO_MEMORY;
    atomic_init(&(*metrics)->holds, 1);
    (void)pthread_mutex_init(&(*metrics)->mutex, NULL);
    return CREW_OK;
}

crew_metrics *crew_metrics_hold(crew_metrics *metrics)
{
    if (metrics)
        atomic_fetch_add(&metrics->holds, 1);
    return metrics;
}

static void free_series(struct series *one)
{
    if (one) {
        free(one->texts);
        crew_buffer_fini(&one->shown);
    }
    free(one);
}

void crew_metrics_free(crew_metrics *metrics)
{
    if (!metrics || atomic_fetch_sub(&metrics->holds, 1) > 1)
        return;
    for (size_t side = 0; side < CREW_SIDES; side++)
        for (size_t i = 0; i < SLOTS; i++)
            free_series(atomic_load(&metrics->sides[side].slots[i]));
    for (struct crew_client_counts *c = atomic_load(&metrics->clients), *next; c; c = next) {
        next = c->next;
        free(c->endpoint);
        free(c);
    }
    (void)pthread_mutex_destroy(&metrics->mutex);
    free(metrics);
}

/* ---- clients ---- */

static struct crew_client_counts *find_client(struct crew_client_counts *first, const char *endpoint)
{
    while (first && strcmp(first->endpoint, endpoint) != 0)
        first = first->next;
    return first;
}

struct crew_client_counts *crew_metrics_client(crew_metrics *metrics, const char *endpoint)
{
    pthread_mutex_lock(&metrics->mutex);
    struct crew_client_counts *first = atomic_load(&metrics->clients), *found = find_client(first, endpoint);
    if (!found && metrics->client_count >= CLIENTS_MOST) {
        endpoint = OTHER;
        found = find_client(first, endpoint);
    }
    struct crew_client_counts *fresh = found ? NULL : calloc(1, sizeof *fresh);
    if (fresh)
        fresh->endpoint = strdup(endpoint);
    if (fresh && fresh->endpoint) {
        fresh->next = first;
        metrics->client_count++;
        atomic_store(&metrics->clients, fresh);
        found = fresh;
    } else {
        free(fresh);
    }
    pthread_mutex_unlock(&metrics->mutex);
    return found;
}

/* ---- counting ---- */

static uint64_t mix(uint64_t hash, uint64_t more)
{
    return (hash ^ more) * UINT64_C(0x9E3779B97F4A7C15);
}

static uint64_t mix_word(uint64_t hash, const char *bytes, size_t size)
{
    uint64_t word = 0;
    memcpy(&word, bytes, size);
    return mix(hash ^ hash >> 29, word);
}

/* By words, of which the last overlaps the one before. */
static uint64_t mix_text(uint64_t hash, crew_string text)
{
    hash = mix(hash, text.size);
    if (text.size < 8)
        return text.size ? mix_word(hash, text.data, text.size) : hash;
    for (size_t at = 0; at + 8 < text.size; at += 8)
        hash = mix_word(hash, text.data + at, 8);
    return mix_word(hash, text.data + text.size - 8, 8);
}

static uint64_t hash_of(const struct labels *l)
{
    uint64_t hash = mix_text(mix((uint64_t)l->code, (uintptr_t)l->protocol), l->method);
    hash = mix_text(mix_text(hash, l->endpoint), l->error);
    return hash ^ hash >> 32;
}

static bool same(const struct series *s, uint64_t hash, const struct labels *l)
{
    return s->hash == hash && s->labels.protocol == l->protocol && s->labels.code == l->code &&
           crew_string_equal(s->labels.method, l->method) &&
           crew_string_equal(s->labels.endpoint, l->endpoint) && crew_string_equal(s->labels.error, l->error);
}

void crew_metrics_head(crew_buffer *out, const char *name, const char *type, const char *help)
{
    crew_buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void crew_metrics_label(crew_buffer *out, const char *value, size_t size)
{
    size_t start = out->size;
    for (size_t i = 0; i < size; i++) {
        if (value[i] == '\n')
            crew_buffer_text(out, "\\n");
        else if (value[i] == '"' || value[i] == '\\')
            crew_buffer_printf(out, "\\%c", value[i]);
        else
            crew_buffer_append(out, value + i, 1);
    }
    if (!out->failed && out->size > start) /* one label that is no UTF-8 would cost them all */
        crew_utf8_mend(out->data + start, out->size - start);
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
        write_label(out, ",rpc_status_code", crew_str(OTHER));
    else if (l->code)
        crew_buffer_printf(out, ",rpc_status_code=\"%" PRId64 "\"", l->code);
    if (l->error.size)
        write_label(out, ",error_type", l->error);
    write_label(out, ",endpoint", l->endpoint);
}

/* A copy of text at *at, which moves behind it. */
static crew_string copy_text(char **at, crew_string text)
{
    crew_string copy = { *at, text.size };
    if (text.size)
        memcpy(*at, text.data, text.size);
    *at += text.size;
    return copy;
}

static struct series *series_new(const struct labels *l, uint64_t hash)
{
    struct series *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->texts = malloc(l->method.size + l->endpoint.size + l->error.size + 1);
    if (!s->texts) {
        free(s);
        return NULL;
    }
    char *at = s->texts;
    s->labels = *l;
    s->labels.method = copy_text(&at, l->method);
    s->labels.endpoint = copy_text(&at, l->endpoint);
    s->labels.error = copy_text(&at, l->error);
    s->hash = hash;
    write_labels(&s->shown, &s->labels);
    if (!s->shown.failed)
        return s;
    free_series(s);
    return NULL;
}

/* The labels' series, made if there are fewer than most; NULL: there are more, or no memory. */
static struct series *series_of(struct table *table, const struct labels *labels, unsigned most)
{
    uint64_t hash = hash_of(labels);
    for (size_t i = 0; i < SLOTS; i++) {
        _Atomic(struct series *) *slot = &table->slots[(hash + i) % SLOTS];
        struct series *found = atomic_load_explicit(slot, memory_order_acquire);
        if (!found) {
            bool full = atomic_fetch_add(&table->count, 1) >= most;
            struct series *fresh = full ? NULL : series_new(labels, hash);
            if (fresh && atomic_compare_exchange_strong(slot, &found, fresh))
                return fresh;
            atomic_fetch_sub(&table->count, 1);
            free_series(fresh);
            if (!fresh)
                found = atomic_load_explicit(slot, memory_order_acquire);
            if (!found)
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

void crew_metrics_count(crew_metrics *metrics, enum crew_metrics_side side,
                        const struct crew_metrics_end *end)
{
    struct table *table = &metrics->sides[side];
    struct labels labels = { .method = end->method,
                             .endpoint = crew_str(end->endpoint),
                             .error = crew_str(end->error ? end->error : ""),
                             .protocol = end->protocol,
                             .code = end->code };
    if (end->free_method && end->method.size > NAME_MOST)
        labels.method = crew_str(OTHER);
    bool is_free = end->free_code || end->free_method;
    struct series *s = series_of(table, &labels, is_free ? SERIES_MOST / 2 : SERIES_MOST);
    if (!s && end->free_code) {
        labels.code = OTHER_CODE;
        s = series_of(table, &labels, end->free_method ? SERIES_MOST / 2 : SERIES_MOST);
    }
    if (!s && end->free_method) {
        labels.method = crew_str(OTHER);
        s = series_of(table, &labels, SERIES_MOST);
    }
    if (!s) {
        add(&metrics->left_out, 1);
        return;
    }
    observe(&s->total, end->total_ns);
    if (side == CREW_SIDE_SERVER) {
        observe(&s->wait, end->wait_ns);
        if (end->run_ns >= 0)
            observe(&s->run, end->run_ns);
    }
    add(&s->requests, end->request_bytes);
    add(&s->responses, end->response_bytes);
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

static const void *member(const struct series *s, size_t offset)
{
    return (const char *)s + offset;
}

static const struct series *series_at(const struct table *table, size_t index)
{
    return atomic_load_explicit(&table->slots[index], memory_order_acquire);
}

static void write_histograms(const struct table *table, crew_buffer *out, const char *name, const char *help,
                             size_t offset)
{
    crew_metrics_head(out, name, "histogram", help);
    for (size_t i = 0; i < SLOTS; i++) {
        const struct series *s = series_at(table, i);
        if (s)
            write_histogram(out, name, s, member(s, offset));
    }
}

static void write_counters(const struct table *table, crew_buffer *out, const char *name, const char *help,
                           size_t offset)
{
    crew_metrics_head(out, name, "counter", help);
    for (size_t i = 0; i < SLOTS; i++) {
        const struct series *s = series_at(table, i);
        if (!s)
            continue;
        write_sample(out, name, "", s, "");
        write_count(out, value_of(member(s, offset)));
    }
}

static void write_server(const struct table *table, crew_buffer *out)
{
    write_histograms(table, out, "rpc_server_call_duration_seconds",
                     "From a request's receipt to its call's end.", offsetof(struct series, total));
    write_histograms(table, out, "rpcrew_server_wait_duration_seconds",
                     "From a request's receipt to its call's turn.", offsetof(struct series, wait));
    write_histograms(table, out, "rpcrew_server_run_duration_seconds", "From a call's turn to its end.",
                     offsetof(struct series, run));
    write_counters(table, out, "rpcrew_server_request_bytes_total",
                   "Bytes of requests; a batch's count for each of its calls.",
                   offsetof(struct series, requests));
    write_counters(table, out, "rpcrew_server_response_bytes_total", "Bytes of answers.",
                   offsetof(struct series, responses));
}

static void write_clients(const struct table *table, struct crew_client_counts *first, crew_buffer *out)
{
    static const struct {
        const char *name, *type, *help;
    } rows[CREW_CLIENT_COUNTS] = {
        [CREW_CLIENT_UP] = { "rpcrew_client_up", "gauge", "Connections that are open." },
        [CREW_CLIENT_OUTSTANDING] = { "rpcrew_client_outstanding", "gauge",
                                      "Calls that have not ended yet." },
        [CREW_CLIENT_RESENT] = { "rpcrew_client_resent_total", "counter",
                                 "Requests sent again over a new connection." },
        [CREW_CLIENT_RETRIED] = { "rpcrew_client_retried_total", "counter",
                                  "Requests tried again, having not been executed." },
        [CREW_CLIENT_STRAY_REPLIES] = { "rpcrew_client_stray_replies_total", "counter",
                                        "Replies that nobody waited for." },
        [CREW_CLIENT_BAD_REPLIES] = { "rpcrew_client_bad_replies_total", "counter",
                                      "Replies that broke the protocol." },
    };
    write_histograms(table, out, "rpc_client_call_duration_seconds", "From a call's start to its outcome.",
                     offsetof(struct series, total));
    write_counters(table, out, "rpcrew_client_request_bytes_total",
                   "Bytes of requests; each once, sent or not.", offsetof(struct series, requests));
    write_counters(table, out, "rpcrew_client_response_bytes_total",
                   "Bytes of answers; a batch's count for each of its calls.",
                   offsetof(struct series, responses));
    for (size_t i = 0; i < CREW_CLIENT_COUNTS; i++) {
        crew_metrics_head(out, rows[i].name, rows[i].type, rows[i].help);
        for (const struct crew_client_counts *c = first; c; c = c->next) {
            crew_buffer_printf(out, "%s{endpoint=\"", rows[i].name);
            crew_metrics_label(out, c->endpoint, strlen(c->endpoint));
            crew_buffer_printf(out, "\"} %" PRIu64 "\n", value_of(&c->counts[i]));
        }
    }
}

void crew_metrics_write(const crew_metrics *metrics, crew_buffer *out)
{
    static const char left_out[] = "rpcrew_metrics_left_out_total";
    struct crew_client_counts *clients = atomic_load(&metrics->clients);
    write_server(&metrics->sides[CREW_SIDE_SERVER], out);
    if (clients)
        write_clients(&metrics->sides[CREW_SIDE_CLIENT], clients, out);
    crew_metrics_head(out, left_out, "counter", "Calls beyond the most series that are kept.");
    crew_buffer_printf(out, "%s %" PRIu64 "\n", left_out, value_of(&metrics->left_out));
}

crew_status crew_metrics_text(const crew_metrics *metrics, char **text)
{
    crew_buffer out = { 0 };
    crew_metrics_write(metrics, &out);
    crew_buffer_append(&out, "", 1);
    *text = NULL;
    if (out.failed) {
        crew_buffer_fini(&out);
        return CREW_NO_MEMORY;
    }
    *text = out.data;
    return CREW_OK;
}
