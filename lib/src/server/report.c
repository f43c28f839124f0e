#include "server/report.h"

#include "core/json.h"
#include "core/metrics.h"
#include "server/tell.h"

#include <rpcrew/impl/message.h>

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Until the server runs, whoever listens may still add some. */
static size_t endpoint_count(const crew_server *server)
{
    return atomic_load(&server->started) ? server->endpoint_count : 0;
}

/* ---- health ---- */

/* Why the server as a whole is not ready; NULL: it is no reason. */
static const char *server_reason(const crew_server *server)
{
    if (atomic_load(&server->tokens.draining) || atomic_load(&server->stops))
        return "draining";
    return atomic_load(&server->started) ? NULL : "starting";
}

/* The same of an endpoint. */
static const char *endpoint_reason(const crew_server *server, const struct crew_endpoint *e, char words[80])
{
    int64_t since = atomic_load(&e->away_since_ms), away_ms = since ? crew_now_ms() - since : 0;
    bool is_away = since && (!atomic_load(&e->ever_listened) || away_ms >= server->options.unready_ms);
    bool is_over = atomic_load(&e->over) && !server_reason(server); /* else it is how it should be */
    if (e->reports_only || (!is_away && !is_over))
        return NULL;
    (void)snprintf(words, 80, is_away ? "not open for %" PRId64 " s" : "closed", away_ms / 1000);
    return words;
}

static bool is_ready(const crew_server *server)
{
    char words[80];
    bool ready = !server_reason(server);
    for (size_t i = 0; i < endpoint_count(server) && ready; i++)
        ready = !endpoint_reason(server, server->endpoints[i], words);
    return ready;
}

static void add_reason(crew_buffer *out, bool *first, const char *endpoint, const char *reason)
{
    if (!reason)
        return;
    crew_buffer_text(out, *first ? "{" : ",{");
    *first = false;
    if (endpoint) {
        crew_buffer_text(out, "\"endpoint\":");
        if (crew_json_write_string(crew_str(endpoint), out) != CREW_OK)
            out->failed = true;
        crew_buffer_text(out, ",");
    }
    crew_buffer_printf(out, "\"reason\":\"%s\"}", reason);
}

static void write_reasons(const crew_server *server, crew_buffer *out)
{
    bool first = true;
    char words[80];
    crew_buffer_text(out, "[");
    add_reason(out, &first, NULL, server_reason(server));
    for (size_t i = 0; i < endpoint_count(server); i++) {
        const struct crew_endpoint *e = server->endpoints[i];
        add_reason(out, &first, crew_url_text(e->url), endpoint_reason(server, e, words));
    }
    crew_buffer_text(out, "]");
}

bool crew_report_alive(crew_server *server)
{
    bool alive = true;
    for (size_t i = 0; i < endpoint_count(server); i++) {
        struct crew_endpoint *e = server->endpoints[i];
        unsigned rounds = atomic_load(&e->rounds);
        bool opens = !atomic_load(&e->ready); /* which may hold its thread for a while */
        alive = alive && (opens || atomic_load(&e->over) || rounds != e->rounds_seen);
        e->rounds_seen = rounds;
        crew_queue_wake(&e->queue);
    }
    return alive;
}

/* What is said goes by one look at it all. */
static unsigned report_ready(const crew_server *server, bool in_detail, crew_buffer *out)
{
    crew_buffer reasons = { 0 };
    write_reasons(server, &reasons);
    bool ready = crew_string_equal(crew_buffer_string(&reasons), crew_str("[]"));
    crew_buffer_printf(out, "{\"ready\":%s", ready ? "true" : "false");
    if (in_detail)
        crew_buffer_printf(out, ",\"reasons\":%.*s", CREW_STR(crew_buffer_string(&reasons)));
    crew_buffer_text(out, "}\n");
    out->failed = out->failed || reasons.failed;
    crew_buffer_fini(&reasons);
    return ready ? 200 : 503;
}

/* ---- metrics ---- */

static void write_number(crew_buffer *out, const char *name, const char *type, const char *help,
                         uint64_t value)
{
    crew_metrics_head(out, name, type, help);
    crew_buffer_printf(out, "%s %" PRIu64 "\n", name, value);
}

/* What only the process knows; names are those of Prometheus's own clients. */
static void write_process(crew_buffer *out)
{
    char text[100] = "";
    FILE *file = fopen("/proc/self/statm", "re"); /* its second number, in pages */
    if (file && !fgets(text, sizeof text, file))
        text[0] = '\0';
    if (file)
        (void)fclose(file);
    const char *second = strchr(text, ' ');
    long pages = second ? strtol(second, NULL, 10) : 0;
    write_number(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
                 (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE));
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) == 0) {
        static const char cpu[] = "process_cpu_seconds_total";
        uint64_t us = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
                      (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
        crew_metrics_head(out, cpu, "counter", "User and system CPU time.");
        crew_buffer_printf(out, "%s %" PRIu64 ".%06" PRIu64 "\n", cpu, us / 1000000, us % 1000000);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        write_number(out, "process_max_fds", "gauge", "Descriptors that may be open.", limit.rlim_cur);
    DIR *open_ones = opendir("/proc/self/fd");
    int count = -3; /* . and .., and this one */
    while (open_ones && readdir(open_ones))
        count++;
    if (open_ones) {
        (void)closedir(open_ones);
        write_number(out, "process_open_fds", "gauge", "Descriptors that are open.",
                     count > 0 ? (uint64_t)count : 0);
    }
}

static void write_counts(const crew_server *server, crew_buffer *out)
{
    static const struct {
        const char *name, *help;
    } counts[CREW_COUNTS] = {
        [CREW_COUNT_RECEIVED] = { "rpcrew_messages_received_total", "Messages that came in." },
        [CREW_COUNT_CALLS] = { "rpcrew_calls_total",
                               "Calls decoded, notifications and invalid ones included." },
        [CREW_COUNT_REPLIED] = { "rpcrew_messages_replied_total", "Messages settled with an answer." },
        [CREW_COUNT_DONE] = { "rpcrew_messages_done_total", "Messages settled without one." },
        [CREW_COUNT_REQUEUED] = { "rpcrew_messages_requeued_total", "Messages given back unstarted." },
        [CREW_COUNT_REJECTED] = { "rpcrew_messages_rejected_total", "Undecodable, and nowhere to answer." },
        [CREW_COUNT_MALFORMED] = { "rpcrew_messages_malformed_total", "Messages that could not be decoded." },
        [CREW_COUNT_EXPIRED] = { "rpcrew_messages_expired_total",
                                 "Dropped unstarted, their time being over." },
        [CREW_COUNT_SHED] = { "rpcrew_calls_shed_total", "Calls answered and not run." },
        [CREW_COUNT_REDELIVERED] = { "rpcrew_messages_redelivered_total",
                                     "Messages that a worker had before." },
        [CREW_COUNT_DROPPED] = { "rpcrew_messages_dropped_total",
                                 "Settled after their connection was lost." },
        [CREW_COUNT_LOST] = { "rpcrew_answers_lost_total", "Answers that were not written." },
        [CREW_COUNT_UNANSWERABLE] = { "rpcrew_messages_unanswerable_total",
                                      "Messages whose calls want answers, without an address for them." },
    };
    for (size_t i = 0; i < CREW_COUNTS; i++)
        write_number(out, counts[i].name, "counter", counts[i].help,
                     atomic_load_explicit(&server->counts[i], memory_order_relaxed));
}

static uint64_t is_up(const struct crew_endpoint *e)
{
    return atomic_load(&e->ready);
}

static uint64_t calls_of(const struct crew_endpoint *e)
{
    return atomic_load(&e->calls);
}

static uint64_t bytes_of(const struct crew_endpoint *e)
{
    return atomic_load(&e->bytes);
}

/* Endpoints of the same URL are one. */
static void write_gauge(const struct crew_server *server, crew_buffer *out, const char *name,
                        const char *help, uint64_t (*value_of)(const struct crew_endpoint *e))
{
    crew_metrics_head(out, name, "gauge", help);
    for (size_t i = 0; i < endpoint_count(server); i++) {
        const struct crew_endpoint *e = server->endpoints[i];
        const char *label = crew_label_of(e);
        uint64_t sum = 0;
        if (e->reports_only || label != crew_url_text(e->url))
            continue;
        for (size_t k = i; k < endpoint_count(server); k++)
            sum += crew_label_of(server->endpoints[k]) == label ? value_of(server->endpoints[k]) : 0;
        crew_buffer_printf(out, "%s{endpoint=\"", name);
        crew_metrics_label(out, label, strlen(label));
        crew_buffer_printf(out, "\"} %" PRIu64 "\n", sum);
    }
}

static void write_endpoints(const crew_server *server, crew_buffer *out)
{
    write_gauge(server, out, "rpcrew_endpoint_up", "Those that listen, or consume from their broker.", is_up);
    write_gauge(server, out, "rpcrew_endpoint_in_flight", "Calls taken and not yet answered.", calls_of);
    write_gauge(server, out, "rpcrew_endpoint_in_flight_bytes", "Bytes that those take.", bytes_of);
}

static void write_pool(crew_server *server, crew_buffer *out)
{
    pthread_mutex_lock(&server->pool.mutex);
    uint64_t slots = server->pool.slots, running = server->pool.running, blocked = server->pool.blocked;
    pthread_mutex_unlock(&server->pool.mutex);
    write_number(out, "rpcrew_pool_threads", "gauge", "Handlers that may run at a time.", slots);
    write_number(out, "rpcrew_pool_running", "gauge", "Handlers that run.", running);
    write_number(out, "rpcrew_pool_blocked", "gauge", "Handlers that wait for a call of their own.", blocked);
    write_number(out, "rpcrew_pool_waiting", "gauge", "Calls whose turn has not come.",
                 crew_pool_waiting(&server->pool));
}

static unsigned report_metrics(crew_server *server, crew_buffer *out)
{
    write_number(out, "rpcrew_ready", "gauge", "Whether the worker takes calls (/readyz).", is_ready(server));
    write_endpoints(server, out);
    write_pool(server, out);
    write_counts(server, out);
    crew_metrics_write(server->metrics, out);
    write_process(out);
    return 200;
}

unsigned crew_report(struct crew_endpoint *endpoint, const char *name, const char **content_type,
                     crew_buffer *out)
{
    crew_server *server = crew_server_of(endpoint);
    bool in_detail = endpoint->reports_only || crew_url_option_is(endpoint->url, "reports", "yes");
    *content_type = "application/json";
    if (strcmp(name, "readyz") == 0)
        return report_ready(server, in_detail, out);
    if (strcmp(name, "healthz") == 0) {
        crew_buffer_text(out, "{\"status\":\"ok\"}\n");
        return 200;
    }
    *content_type = "text/plain; version=0.0.4; charset=utf-8";
    return strcmp(name, "metrics") == 0 && in_detail && server->metrics ? report_metrics(server, out) : 0;
}
