#include "server/server.h"

#include "core/back.h"
#include "core/cores.h"
#include "core/metrics.h"
#include "server/intake.h"
#include "server/report.h"
#include "server/request.h"
#include "server/tell.h"
#include "service/table.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LINGER_MS = 1000, IN_FLIGHT_BYTES = 256 << 20 };

void crew_server_unref(crew_server *server)
{
    if (atomic_fetch_sub(&server->refs, 1) > 1)
        return;
    for (size_t i = 0; i < server->endpoint_count; i++) {
        crew_endpoint_fini(server->endpoints[i]);
        free(server->endpoints[i]);
    }
    close(server->control);
    crew_tokens_fini(&server->tokens);
    crew_in_flight_fini(&server->in_flight);
    crew_metrics_free(server->metrics);
    crew_dispatcher_release(server->dispatcher);
    free(server);
}

/* ---- the endpoints' side ---- */

static crew_room room(struct crew_endpoint *endpoint)
{
    const crew_server *server = crew_server_of(endpoint);
    bool taking = atomic_load(&server->started) &&
                  !(atomic_load(&server->tokens.draining) && endpoint->requeue == CREW_REQUEUE_FIRST);
    return taking ? crew_intake_room(endpoint) : (crew_room){ 0 };
}

static void gone(struct crew_endpoint *endpoint, crew_peer *peer)
{
    if (atomic_load(&peer->gone) && peer->told)
        crew_tell_change(crew_server_of(endpoint), CREW_PEER_GONE, endpoint, peer->name, NULL);
    crew_tokens_raise(&crew_server_of(endpoint)->tokens, false);
    crew_backs_wake();
}

/* Those whose connection was lost have gone. */
static void changed(struct crew_endpoint *endpoint, const crew_error *why, crew_list *unsent)
{
    crew_server *server = crew_server_of(endpoint);
    if (why->status != CREW_OK) {
        crew_in_flight_disinherit(&server->in_flight, endpoint);
        crew_tokens_raise(&server->tokens, false);
    }
    assert(!unsent->count);
    (void)unsent;
    bool was_open = endpoint->tells_open;
    int64_t away = why->status == CREW_OK ? 0 : atomic_load(&endpoint->away_since_ms);
    atomic_store(&endpoint->away_since_ms, why->status == CREW_OK || away ? away : crew_now_ms());
    endpoint->tells_open = why->status == CREW_OK;
    if (endpoint->tells_open)
        atomic_store(&endpoint->ever_listened, true);
    crew_change change = endpoint->tells_open ? CREW_ENDPOINT_OPENED
                         : was_open           ? CREW_ENDPOINT_LOST
                                              : CREW_ENDPOINT_FAILED;
    crew_tell_change(server, change, endpoint, NULL, endpoint->tells_open ? NULL : why->message);
}

static void wake(crew_server *server)
{
    int error = errno;
    uint64_t one = 1;
    ssize_t written = write(server->control, &one, sizeof one);
    (void)written;
    errno = error;
}

static void paused(struct crew_endpoint *endpoint)
{
    wake(crew_server_of(endpoint));
}

static bool idle(struct crew_endpoint *endpoint)
{
    return atomic_load(&endpoint->in_flight) == 0;
}

static void closed(struct crew_endpoint *endpoint)
{
    crew_server *server = crew_server_of(endpoint);
    crew_tell_change(server, CREW_ENDPOINT_CLOSED, endpoint, NULL, NULL);
    if (atomic_load(&server->started)) /* else it would look like a stop */
        wake(server);
}

static const struct crew_endpoint_owner owner = {
    .room = room,
    .received = crew_request_received,
    .sending = crew_request_sending,
    .answered = crew_request_answered,
    .too_large = crew_request_too_large,
    .report = crew_report,
    .gone = gone,
    .changed = changed,
    .due = crew_intake_due,
    .paused = paused,
    .idle = idle,
    .closed = closed,
};

/* ---- life ---- */

static unsigned or_default(unsigned value, unsigned fallback)
{
    return value ? value : fallback;
}

static unsigned default_threads(void)
{
    unsigned cores = crew_cores("/sys/fs/cgroup", "/proc/self/cgroup");
    return cores > 2 ? 2 * cores : 4;
}

crew_status crew_server_new(crew_server **server, const crew_dispatcher *dispatcher,
                            const crew_server_options *options, crew_error *why)
{
    crew_server *s = calloc(1, sizeof *s);
    if (!s)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    s->dispatcher = dispatcher;
    s->options = options ? *options : (crew_server_options){ 0 };
    s->options.threads = or_default(s->options.threads, default_threads());
    if (!s->options.in_flight_bytes)
        s->options.in_flight_bytes = IN_FLIGHT_BYTES;
    s->options.drain_ms = or_default(s->options.drain_ms, 10000);
    s->options.call_timeout_ms = or_default(s->options.call_timeout_ms, 30000);
    s->options.connect_timeout_ms = or_default(s->options.connect_timeout_ms, 5000);
    s->options.unready_ms = or_default(s->options.unready_ms, 10000);
    atomic_init(&s->refs, 1);
    crew_tokens_init(&s->tokens);
    crew_in_flight_init(&s->in_flight);
    s->control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    crew_status status = CREW_OK;
    if (s->control < 0)
        status = crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    if (status == CREW_OK)
        status =
            crew_pool_init(&s->pool, s->options.stepped ? 0 : s->options.threads, 0, &crew_request_work, why);
    if (status == CREW_OK && s->options.metrics) {
        status = crew_metrics_new(&s->metrics);
        s->observes_calls = true;
        if (status != CREW_OK) {
            crew_error_set(why, status, "no memory");
            crew_pool_stop(&s->pool);
            crew_pool_fini(&s->pool);
        }
    }
    if (status != CREW_OK) {
        if (s->control >= 0)
            close(s->control);
        crew_in_flight_fini(&s->in_flight);
        crew_tokens_fini(&s->tokens);
        free(s);
        return status;
    }
    crew_dispatcher_hold(dispatcher);
    *server = s;
    return CREW_OK;
}

static unsigned in_flight_max(const crew_server *server)
{
    enum { DEFAULT = 64 };
    bool computes = crew_methods_compute(server->dispatcher);
    return or_default(server->options.in_flight_max, computes ? 2 * server->options.threads : DEFAULT);
}

crew_status crew_server_check_url(const char *url, crew_error *why)
{
    return crew_endpoint_check(url, why);
}

crew_status crew_server_listen_with(crew_server *server, const char *url, const crew_callbacks *callbacks,
                                    crew_error *why)
{
    static const char scheme[] = "callback://";
    if (atomic_load(&server->started))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "the server runs already");
    if (callbacks &&
        (!url || strncmp(url, scheme, strlen(scheme)) != 0 || !callbacks->receive || !callbacks->reply))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "crew_server_listen_with wants %sname and two functions", scheme);
    if (server->endpoint_count == CREW_ENDPOINTS_MAX)
        return crew_error_set(why, CREW_LIMIT, "more than %d endpoints", CREW_ENDPOINTS_MAX);
    struct crew_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    struct crew_endpoint_options options = {
        .owner = &owner,
        .context = server,
        .server = true,
        .callbacks = callbacks,
        .wait = server->options.wait,
        .give_up_fd = server->control,
        .in_flight_max = in_flight_max(server),
        .in_flight_bytes = server->options.in_flight_bytes,
        .timeout_ms = server->options.call_timeout_ms,
        .connect_timeout_ms = server->options.connect_timeout_ms,
        .linger_ms = LINGER_MS,
        .limits = server->options.limits,
        .trace = server->options.trace,
        .trace_context = server->options.trace_context,
    };
    crew_status status = crew_endpoint_start(endpoint, url, &options, why);
    if (status != CREW_OK) {
        free(endpoint);
        return status;
    }
    const char *label = crew_url_text(endpoint->url);
    for (size_t i = 0; i < server->endpoint_count; i++)
        if (strcmp(crew_label_of(server->endpoints[i]), label) == 0)
            label = crew_label_of(server->endpoints[i]);
    atomic_store(&endpoint->label, label);
    server->endpoints[server->endpoint_count++] = endpoint;
    crew_pool_allow(&server->pool, endpoint->options.in_flight_max);
    return CREW_OK;
}

crew_status crew_server_listen(crew_server *server, const char *url, crew_error *why)
{
    return crew_server_listen_with(server, url, NULL, why);
}

/* Those that only tell how the others are do so until the end. */
static void command_all(crew_server *server, enum crew_endpoint_command command)
{
    for (size_t i = 0; i < server->endpoint_count; i++)
        if (command == CREW_ENDPOINT_CLOSE || !server->endpoints[i]->reports_only)
            crew_endpoint_command(server->endpoints[i], command);
}

static void join_all(crew_server *server)
{
    for (size_t i = 0; i < server->endpoint_count && !server->joined; i++)
        crew_endpoint_join(server->endpoints[i]);
    server->joined = true;
}

crew_status crew_server_start(crew_server *server, crew_error *why)
{
    if (!server->endpoint_count)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "the server listens nowhere");
    if (atomic_exchange(&server->started, true))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "the server runs already");
    command_all(server, CREW_ENDPOINT_RUN);
    return CREW_OK;
}

void crew_server_stop(crew_server *server)
{
    atomic_fetch_add(&server->stops, 1);
    wake(server);
}

/* Waits for the control fd, or for timeout_ms; meanwhile a stepped server works here. */
static void wait_a_while(crew_server *server, int timeout_ms)
{
    struct pollfd fds[] = { { .fd = server->control, .events = POLLIN },
                            { .fd = server->pool.fd, .events = POLLIN } };
    (void)poll(fds, 2, timeout_ms);
    uint64_t ignored;
    if (fds[0].revents)
        (void)!read(server->control, &ignored, sizeof ignored);
    if (fds[1].revents)
        crew_pool_step(&server->pool, &server->scratch);
}

/* Until there are no endpoints left to do it, somebody stops the server again, or the time has come. */
static void wait_for(crew_server *server, unsigned (*left_of_them)(const crew_server *server), int64_t end_ms)
{
    int64_t left;
    while (left_of_them(server) && atomic_load(&server->stops) == 1 && (left = end_ms - crew_now_ms()) > 0)
        wait_a_while(server, (int)left);
}

static unsigned to_pause(const crew_server *server)
{
    unsigned count = 0;
    for (size_t i = 0; i < server->endpoint_count; i++)
        count += !server->endpoints[i]->reports_only && !atomic_load(&server->endpoints[i]->pausing) &&
                 !atomic_load(&server->endpoints[i]->over);
    return count;
}

static unsigned to_close(const crew_server *server)
{
    unsigned count = 0;
    for (size_t i = 0; i < server->endpoint_count; i++)
        count += !server->endpoints[i]->reports_only && !atomic_load(&server->endpoints[i]->over);
    return count;
}

/* Answers what nobody has started: overloaded, not executed. */
static void shed_waiting(crew_server *server)
{
    atomic_store(&server->stopping, true);
    while (crew_pool_step(&server->pool, &server->scratch))
        continue;
}

crew_status crew_server_wait(crew_server *server)
{
    if (!atomic_load(&server->started) || server->joined)
        return CREW_CLOSED;
    while (atomic_load(&server->stops) == 0 && to_close(server)) /* else there is nothing to serve */
        wait_a_while(server, -1);

    crew_log(CREW_LOG_INFO, "draining", NULL);
    int64_t end_ms = crew_now_ms() + server->options.drain_ms;
    atomic_store(&server->tokens.draining, true);
    for (size_t i = 0; i < server->endpoint_count; i++)
        atomic_store(&server->endpoints[i]->close_by_ms, end_ms);
    crew_tell_change(server, CREW_SERVER_DRAINS, NULL, NULL, NULL);
    command_all(server, CREW_ENDPOINT_PAUSE);
    wait_for(server, to_pause, end_ms);
    crew_request_give_back(server, CREW_REQUEUE_FIRST);
    wait_for(server, to_close, end_ms - server->options.drain_ms / 2);
    atomic_store(&server->tokens.pressing,
                 true); /* handlers that look at their tokens have the rest to end in */
    crew_tokens_raise(&server->tokens, true);
    wait_for(server, to_close, end_ms);
    crew_request_give_back(server, CREW_REQUEUE_LAST);

    bool drained = !to_close(server);
    for (size_t i = 0; i < server->endpoint_count; i++)
        atomic_store(&server->endpoints[i]->close_by_ms, crew_now_ms());
    shed_waiting(server);
    command_all(server, CREW_ENDPOINT_CLOSE);
    join_all(server);
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    crew_log(drained ? CREW_LOG_INFO : CREW_LOG_WARN, drained ? "drained" : "stopped with calls in flight",
             "{s:I,s:I,s:I}", "calls", (int64_t)stats.calls, "requeued", (int64_t)stats.requeued,
             "redelivered", (int64_t)stats.redelivered);
    crew_tell_change(server, CREW_SERVER_DRAINED, NULL, NULL,
                     drained ? NULL : "stopped with calls in flight");
    return drained ? CREW_OK : CREW_TIMEOUT;
}

crew_status crew_server_run(crew_server *server)
{
    crew_status status = crew_server_start(server, NULL);
    return status == CREW_OK ? crew_server_wait(server) : status;
}

void crew_server_free(crew_server *server)
{
    if (!server)
        return;
    atomic_store(&server->stopping, true); /* what waits is not run: nobody would get its answer */
    command_all(server, CREW_ENDPOINT_CLOSE);
    join_all(server);
    atomic_store(&server->tokens.pressing, true);
    crew_tokens_raise(&server->tokens, true);
    crew_pool_stop(&server->pool);
    shed_waiting(server);
    crew_pool_fini(&server->pool);
    crew_arena_fini(&server->scratch);
    crew_server_unref(server);
}

bool crew_server_cancel(crew_server *server, void *route)
{
    crew_string origin = { (const char *)&route, sizeof route };
    size_t found = 0;
    for (size_t i = 0; i < server->endpoint_count; i++)
        if (server->endpoints[i]->options.callbacks)
            found += crew_in_flight_cancel(&server->in_flight, server->endpoints[i], origin, NULL);
    return found > 0;
}

int crew_server_fd(const crew_server *server)
{
    return server->pool.fd;
}

size_t crew_server_step(crew_server *server, size_t max)
{
    size_t steps = 0;
    while (steps < max && crew_pool_step(&server->pool, &server->scratch))
        steps++;
    return steps;
}

void crew_server_stats_get(const crew_server *server, crew_server_stats *stats)
{
    uint64_t n[CREW_COUNTS];
    for (int i = 0; i < CREW_COUNTS; i++)
        n[i] = atomic_load_explicit(&server->counts[i], memory_order_relaxed);
    *stats = (crew_server_stats){
        .received = n[CREW_COUNT_RECEIVED],
        .calls = n[CREW_COUNT_CALLS],
        .replied = n[CREW_COUNT_REPLIED],
        .done = n[CREW_COUNT_DONE],
        .requeued = n[CREW_COUNT_REQUEUED],
        .rejected = n[CREW_COUNT_REJECTED],
        .malformed = n[CREW_COUNT_MALFORMED],
        .expired = n[CREW_COUNT_EXPIRED],
        .shed = n[CREW_COUNT_SHED],
        .redelivered = n[CREW_COUNT_REDELIVERED],
        .dropped = n[CREW_COUNT_DROPPED],
        .lost = n[CREW_COUNT_LOST],
        .unanswerable = n[CREW_COUNT_UNANSWERABLE],
    };
    for (size_t i = 0; i < server->endpoint_count; i++) {
        stats->in_flight += atomic_load(&server->endpoints[i]->in_flight);
        stats->listening += !server->endpoints[i]->reports_only && atomic_load(&server->endpoints[i]->ready);
    }
}
