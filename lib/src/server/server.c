/* The server: from the endpoints' messages to the pool's jobs, and back as settlements.
 *
 *   recv -> [waiting] -> start: decode, dispatch, encode -> [endpoint's queue] -> send
 *
 * Every message received holds a reference to the server until it is settled, so that calls deferred beyond
 * the server's end can be completed, without effect, at any time. */
#include "io/endpoint.h"
#include "server/in_flight.h"
#include "server/pool.h"

#include <rpcrew/server.h>

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ENDPOINTS_MAX = 64, LINGER_MS = 1000 };

/* What a text takes at most while it is decoded (docs/values.md), and decoded ones together. */
enum { DECODED_TIMES = 18, IN_FLIGHT_BYTES = 256 << 20 };

/* Calls of one peer that may be taken beyond the room that there is. */
enum { RESERVE_EACH = 8 };

/* Memory is tidied after so many bytes, and then so long without any, or so long with. */
enum { TIDY_BYTES = 16 << 20, TIDY_MS = 1000, TIDY_MOST_MS = 10000 };

enum count {
    RECEIVED,
    CALLS,
    REPLIED,
    DONE,
    REQUEUED,
    REJECTED,
    MALFORMED,
    EXPIRED,
    SHED,
    REDELIVERED,
    DROPPED,
    LOST,
    UNANSWERABLE,
    COUNTS
};

struct crew_server {
    const crew_dispatcher *dispatcher;
    crew_server_options options;
    struct crew_pool pool;
    struct crew_endpoint *endpoints[ENDPOINTS_MAX];
    size_t endpoint_count;
    crew_arena scratch; /* of whoever steps */
    int control;        /* an eventfd: stops and closed endpoints */
    atomic_uint refs;   /* the owner's, and one a message not yet settled */
    atomic_uint stops;  /* how often crew_server_stop was called */
    atomic_uint open;   /* endpoints whose threads run; counted from the start on */
    atomic_uint paused; /* that take nothing new any more */
    atomic_bool started, stopping;
    struct crew_tokens tokens; /* whose draining is the server's */
    struct crew_in_flight in_flight;
    bool joined;
    atomic_uint_fast64_t counts[COUNTS];
};

/* One message in flight; lives in its arena. */
struct request {
    struct crew_job job;
    crew_message *message;
};

static crew_server *server_of(const struct crew_endpoint *endpoint)
{
    return endpoint->options.context;
}

static void count(crew_server *server, enum count what, size_t by)
{
    atomic_fetch_add_explicit(&server->counts[what], by, memory_order_relaxed);
}

static void unref(crew_server *server)
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
    crew_dispatcher_release(server->dispatcher);
    free(server);
}

/* ---- the pool's side ---- */

static void push_settlement(crew_message *message, crew_message_kind kind)
{
    struct crew_endpoint *endpoint = message->endpoint;
    crew_list one = { 0 };
    message->kind = kind;
    if (kind == CREW_SETTLE_REQUEUE && message->own_deadline)
        message->deadline_ms = 0; /* the next worker sets its own */
    crew_list_append(&one, message);
    crew_status status = crew_queue_push(&endpoint->queue, &one);
    assert(status == CREW_OK); /* the queue has no limit of its own: in_flight_max is its limit */
    (void)status;
    unref(server_of(endpoint));
}

static void submit_one(crew_message *message)
{
    crew_server *server = server_of(message->endpoint);
    crew_list one = { 0 };
    crew_list_append(&one, message);
    crew_in_flight_add(&server->in_flight, &one);
    crew_pool_submit(&server->pool, &one);
}

/* What came again while it ran gets its answer. If it ended early, since it was told that nobody waits, or
 * was not run for that, the copy is run. */
static void pass_on(crew_message *message, crew_message_kind kind, bool was_told, crew_message *heir)
{
    const struct crew_endpoint *endpoint = heir->endpoint;
    bool is_to_run = kind != CREW_SETTLE_REQUEUE && (was_told || message->status == CREW_EXPIRED);
    if (is_to_run && !atomic_load(&server_of(endpoint)->stopping)) {
        submit_one(heir);
        return;
    }
    if (is_to_run) { /* by another worker */
        push_settlement(heir, endpoint->requeue ? CREW_SETTLE_REQUEUE : CREW_SETTLE_DONE);
        return;
    }
    crew_buffer reply = heir->reply;
    heir->reply = message->reply;
    message->reply = reply;
    heir->content_type = message->content_type;
    heir->status = message->status;
    push_settlement(heir, kind);
}

static void settle(crew_message *message, crew_message_kind kind)
{
    crew_server *server = server_of(message->endpoint);
    bool was_told = message->job && atomic_load(&message->job->group.told);
    crew_message *heir = crew_in_flight_remove(&server->in_flight, message);
    if (heir)
        pass_on(message, kind, was_told, heir);
    push_settlement(message, kind);
}

static void job_done(struct crew_job *job)
{
    struct request *request = job->owner;
    crew_message *message = request->message;
    crew_server *server = server_of(message->endpoint);
    crew_message_kind kind = CREW_SETTLE_DONE;
    count(server, SHED, atomic_load(&job->group.shed_count));
    if (message->reply.failed) {
        crew_log(CREW_LOG_ERROR, "a reply was lost", "{s:s}", "reason", crew_status_text(CREW_NO_MEMORY));
        crew_buffer_clear(&message->reply);
        message->status = CREW_NO_MEMORY;
    }
    if (message->reply.size) {
        kind = CREW_SETTLE_REPLY;
        message->content_type = job->group.protocol->content_type;
    } else if (!job->group.answerable && (job->wire.malformed || message->refusal)) {
        kind = CREW_SETTLE_REJECT;
    }
    settle(message, kind);
}

/* There is no memory for a request: its caller is told so, if there is enough for that. */
static void give_up(crew_message *message, const crew_protocol *protocol)
{
    const struct crew_endpoint *endpoint = message->endpoint;
    crew_wire_call nobody = { .code = CREW_CODE_INTERNAL_ERROR, .errors = endpoint->options.errors };
    crew_status status = CREW_OK;
    crew_log(CREW_LOG_ERROR, "no memory for a request", NULL);
    if (!message->one_way)
        status =
            protocol->encode_error(&nobody, CREW_CODE_INTERNAL_ERROR,
                                   crew_str(crew_code_text(CREW_CODE_INTERNAL_ERROR)), NULL, &message->reply);
    message->content_type = protocol->content_type;
    message->status = status;
    settle(message, status == CREW_OK && !message->one_way ? CREW_SETTLE_REPLY : CREW_SETTLE_DONE);
}

/* Whether the caller has given up on it; then it is dropped. */
static bool drop_if_expired(crew_message *message)
{
    if (message->own_deadline || message->deadline_ms > crew_now_ms())
        return false;
    count(server_of(message->endpoint), EXPIRED, 1);
    message->status = CREW_EXPIRED;
    settle(message, CREW_SETTLE_DONE);
    return true;
}

static void run_call(struct crew_job *job, size_t index, crew_arena *scratch)
{
    const struct request *request = job->owner;
    if (job->wire.count > 1 || !drop_if_expired(request->message))
        crew_job_run(job, index, scratch);
}

/* Whether some call runs a handler of the service's: what is refused does not, nor do the protocol's own
 * methods. */
static bool runs_a_handler(const struct crew_job *job)
{
    for (size_t i = 0; i < job->wire.count && !job->group.shed; i++) {
        const crew_wire_call *call = &job->wire.items[i];
        bool ours = call->method.size > 4 && memcmp(call->method.data, "rpc.", 4) == 0;
        if (!call->code && !ours)
            return true;
    }
    return false;
}

/* What a decoded message takes is known now: its calls, and its bytes. */
static void charge_decoded(struct crew_endpoint *endpoint, crew_message *message, const struct crew_job *job)
{
    size_t more = message->peer->shared ? 0 : job->wire.count - 1; /* of many callers each has a message */
    size_t bytes = message->body.size + crew_arena_size(&message->arena),
           most = endpoint->options.in_flight_bytes;
    atomic_fetch_add(&endpoint->calls, more);
    atomic_fetch_add(&message->peer->in_flight, more);
    size_t before = atomic_fetch_add(&endpoint->bytes, bytes - message->charged); /* may wrap, and back */
    size_t now = before + bytes - message->charged;
    message->calls += (uint32_t)more;
    message->charged = bytes;
    if (before >= most && now < most) /* there is room again for what waits in the socket */
        crew_queue_wake(&endpoint->queue);
}

/* Somebody waits for answers that cannot be given. */
static void note_unanswerable(const struct crew_endpoint *endpoint, const struct crew_job *job)
{
    bool wants = false;
    for (size_t i = 0; i < job->wire.count; i++)
        wants = wants || (!job->wire.items[i].one_way && !job->wire.items[i].code);
    if (!wants)
        return;
    crew_string method = job->wire.items[0].method;
    count(server_of(endpoint), UNANSWERABLE, 1);
    crew_log(CREW_LOG_WARN, "a call wants an answer, and says nowhere to send it", "{s:s,s:S}", "endpoint",
             crew_url_text(endpoint->url), "method",
             (crew_string){ method.data, method.size < 100 ? method.size : 100 });
}

/* Decodes a message, and hands its calls to the pool. */
static void start(crew_message *message, crew_arena *scratch)
{
    struct crew_endpoint *endpoint = message->endpoint;
    crew_server *server = server_of(endpoint);
    crew_string bytes = crew_buffer_string(&message->body);
    bool late = message->deadline_ms <= crew_now_ms();
    if (late && drop_if_expired(message))
        return;
    const crew_protocol *protocol = crew_protocol_of(message->content_type, bytes);
    if (!protocol)
        protocol = crew_protocol_at(0); /* which says what is wrong with the bytes */
    struct request *request = crew_arena_zalloc(&message->arena, sizeof *request);
    if (!request) {
        give_up(message, protocol);
        return;
    }
    struct crew_job *job = &request->job;
    request->message = message;
    job->dispatcher = server->dispatcher;
    job->limits = &endpoint->options.limits;
    job->group.protocol = protocol;
    job->errors = endpoint->options.errors;
    job->bytes = bytes;
    job->arena = &message->arena;
    job->reply = &message->reply;
    job->group.deadline_ms = message->deadline_ms;
    job->group.answerable = !message->one_way;
    job->group.headers = message->headers;
    job->done = job_done;
    job->owner = request;
    /* A request without a deadline of its caller's is answered even when late: somebody may be waiting. */
    job->group.shed = message->refusal ? message->refusal : late ? "deadline" : NULL;
    job->group.stopping = &server->stopping;
    job->group.peer = message->peer;
    job->group.tokens = &server->tokens;
    if (crew_job_decode(job) != CREW_OK) {
        give_up(message, protocol);
        return;
    }
    count(server, CALLS, job->wire.count);
    if (message->one_way)
        note_unanswerable(endpoint, job);
    count(server, MALFORMED, job->wire.malformed);
    charge_decoded(endpoint, message, job);
    crew_in_flight_begin(&server->in_flight, message, job);
    if (!crew_pool_take_on(&server->pool, job, message->peer, runs_a_handler(job), scratch))
        settle(message, CREW_SETTLE_REQUEUE);
}

static const struct crew_pool_work work = { .start = start, .run = run_call };

/* ---- the endpoints' side ---- */

/* What malloc keeps of large or many messages goes back to the system once it is quiet; and what was in use
 * then, for peers that had not read it or not gone, when there has been something more. */
static int due(struct crew_endpoint *endpoint)
{
    if (!endpoint->tidy_at_ms)
        return -1;
    int64_t left = endpoint->tidy_at_ms - crew_now_ms();
    if (left > 0)
        return (int)left;
    endpoint->tidy_at_ms = endpoint->tidy_by_ms = 0;
    endpoint->tidy_again = endpoint->passed_bytes > TIDY_BYTES;
    endpoint->passed_bytes = 0;
    (void)malloc_trim(0);
    return -1;
}

static void note_passed(struct crew_endpoint *endpoint, size_t bytes)
{
    endpoint->passed_bytes += bytes;
    if (endpoint->passed_bytes <= TIDY_BYTES && !endpoint->tidy_again)
        return;
    int64_t now = crew_now_ms();
    if (!endpoint->tidy_by_ms)
        endpoint->tidy_by_ms = now + TIDY_MOST_MS;
    endpoint->tidy_at_ms = now + TIDY_MS < endpoint->tidy_by_ms ? now + TIDY_MS : endpoint->tidy_by_ms;
}

static size_t left_of(const atomic_size_t *used, size_t most)
{
    size_t taken = atomic_load_explicit(used, memory_order_relaxed);
    return taken < most ? most - taken : 0;
}

static crew_room room(struct crew_endpoint *endpoint)
{
    const crew_server *server = server_of(endpoint);
    bool taking = atomic_load(&server->started) &&
                  !(atomic_load(&server->tokens.draining) && endpoint->requeue == CREW_REQUEUE_FIRST);
    if (!taking)
        return (crew_room){ 0 };
    size_t most = endpoint->options.in_flight_max;
    size_t bytes = left_of(&endpoint->bytes, endpoint->options.in_flight_bytes);
    crew_room room = { .messages = left_of(&endpoint->calls, most),
                       .bytes = (bytes + DECODED_TIMES - 1) / DECODED_TIMES,
                       .reserve = left_of(&endpoint->in_flight, 2 * most) };
    room.reserve -= room.messages < room.reserve ? room.messages : room.reserve;
    room.each =
        room.reserve > (most + 1) / 2 ? RESERVE_EACH : 1; /* half of it is for those who have nothing yet */
    return room;
}

/* Takes it into account, until it is settled: a call, and what its text may take to be decoded. */
static void charge(struct crew_endpoint *endpoint, crew_message *m)
{
    if (!m->peer) {
        m->peer = crew_peer_hold(endpoint->peer);
        atomic_fetch_add(&m->peer->in_flight, 1);
    } /* else its transport has counted it, by crew_room_take */
    m->calls = 1;
    m->charged = m->body.size * DECODED_TIMES;
    atomic_fetch_add(&endpoint->in_flight, 1);
    atomic_fetch_add(&endpoint->calls, 1);
    atomic_fetch_add(&endpoint->bytes, m->charged);
}

static void discharge(struct crew_endpoint *endpoint, const crew_message *m)
{
    atomic_fetch_sub(&endpoint->in_flight, 1);
    atomic_fetch_sub(&endpoint->calls, m->calls);
    atomic_fetch_sub(&endpoint->bytes, m->charged);
    atomic_fetch_sub(&m->peer->in_flight, m->calls);
}

/* Copies of what is still here, which a broker gives out again when it was lost, or had waited for longer
 * than it does: running them beside one another would help nobody. */
static void take_out_copies(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_server *server = server_of(endpoint);
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m, *before; (m = crew_list_take(&all));) {
        if (!m->redelivered || !m->key.size || !crew_in_flight_inherit(&server->in_flight, m, &before)) {
            crew_list_append(messages, m);
            continue;
        }
        if (before)
            push_settlement(before, CREW_SETTLE_DONE);
        crew_log(CREW_LOG_WARN, "a request that is still here was given out again; it is not run twice",
                 "{s:s}", "endpoint", crew_url_text(endpoint->url));
    }
}

static void received(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_server *server = server_of(endpoint);
    int64_t deadline_ms = crew_now_ms() + endpoint->options.timeout_ms;
    for (crew_message *m = messages->head; m; m = m->next) {
        charge(endpoint, m);
        note_passed(endpoint, m->body.size);
        m->own_deadline = !m->deadline_ms;
        count(server, REDELIVERED, m->redelivered);
        if (m->own_deadline)
            m->deadline_ms = deadline_ms;
    }
    count(server, RECEIVED, messages->count);
    atomic_fetch_add(&server->refs, (unsigned)messages->count);
    take_out_copies(endpoint, messages);
    crew_in_flight_add(&server->in_flight, messages);
    bool draining = atomic_load(&server->tokens.draining);
    while (draining && endpoint->requeue == CREW_REQUEUE_FIRST && messages->count)
        settle(crew_list_take(messages), CREW_SETTLE_REQUEUE);
    for (crew_message *m = draining && !endpoint->ops->pause ? messages->head : NULL; m; m = m->next)
        if (!m->refusal)
            m->refusal = "stopping"; /* else a busy endpoint would never be idle */
    crew_pool_submit(&server->pool, messages);
}

/* Drops the settlements of a connection that is gone: a broker gives their messages to somebody else. */
static void sending(struct crew_endpoint *endpoint, crew_list *messages)
{
    static const enum count kinds[] = { [CREW_SETTLE_REPLY] = REPLIED,
                                        [CREW_SETTLE_DONE] = DONE,
                                        [CREW_SETTLE_REQUEUE] = REQUEUED,
                                        [CREW_SETTLE_REJECT] = REJECTED };
    crew_server *server = server_of(endpoint);
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        discharge(endpoint, m);
        m->charged = m->reply.size; /* from now on */
        note_passed(endpoint, m->charged);
        if (m->kind == CREW_SETTLE_REQUEUE) { /* whoever gets it next has it from another */
            crew_peer_release(m->peer);
            m->peer = NULL;
        }
        bool current = endpoint->open && m->epoch == endpoint->epoch;
        count(server, current ? kinds[m->kind] : DROPPED, 1);
        if (current)
            crew_list_append(messages, m);
        else
            crew_message_give(endpoint->messages, m);
    }
}

static void answered(struct crew_endpoint *endpoint, const crew_message *message, crew_status status)
{
    if (status == CREW_OK)
        return;
    count(server_of(endpoint), LOST, 1);
    note_passed(endpoint, message->charged);
    crew_log(CREW_LOG_DEBUG, "an answer was not written", "{s:s,s:s,s:I}", "endpoint",
             crew_url_text(endpoint->url), "reason", crew_status_text(status), "bytes",
             (int64_t)message->charged);
}

static void nobody_waits(struct crew_job *job)
{
    (void)job;
}

/* The answer's calls have run: each is told that its result cannot be had. */
static bool too_large(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_string bytes = crew_buffer_string(&message->body);
    crew_arena scratch = { 0 };
    struct crew_job job = { .group = { .protocol = crew_protocol_of(message->content_type, bytes),
                                       .answerable = true,
                                       .shed = CREW_REASON_TOO_LARGE },
                            .dispatcher = server_of(endpoint)->dispatcher,
                            .limits = &endpoint->options.limits,
                            .errors = endpoint->options.errors,
                            .bytes = bytes,
                            .arena = &message->arena,
                            .reply = &message->reply,
                            .done = nobody_waits };
    crew_buffer_clear(&message->reply);
    if (!job.group.protocol || crew_job_decode(&job) != CREW_OK)
        return false;
    for (size_t i = 0, count = job.wire.count; i < count; i++)
        crew_job_run(&job, i, &scratch);
    crew_arena_fini(&scratch);
    return message->reply.size && !message->reply.failed;
}

static void gone(struct crew_endpoint *endpoint)
{
    crew_tokens_raise(&server_of(endpoint)->tokens, false);
}

/* Those whose connection was lost have gone. */
static void changed(struct crew_endpoint *endpoint, const crew_error *why, crew_list *unsent)
{
    crew_server *server = server_of(endpoint);
    if (why->status != CREW_OK) {
        crew_in_flight_disinherit(&server->in_flight, endpoint);
        crew_tokens_raise(&server->tokens, false);
    }
    assert(!unsent->count);
    (void)unsent;
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
    crew_server *server = server_of(endpoint);
    atomic_fetch_add(&server->paused, 1);
    wake(server);
}

static bool idle(struct crew_endpoint *endpoint)
{
    return atomic_load(&endpoint->in_flight) == 0;
}

static void closed(struct crew_endpoint *endpoint)
{
    crew_server *server = server_of(endpoint);
    atomic_fetch_sub(&server->open, 1);
    if (atomic_load(&server->started)) /* else it would look like a stop */
        wake(server);
}

static const struct crew_endpoint_owner owner = {
    .room = room,
    .received = received,
    .sending = sending,
    .answered = answered,
    .too_large = too_large,
    .gone = gone,
    .changed = changed,
    .due = due,
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
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 2 ? 2 * (unsigned)cores : 4;
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
    s->options.in_flight_max = or_default(s->options.in_flight_max, 64);
    if (!s->options.in_flight_bytes)
        s->options.in_flight_bytes = IN_FLIGHT_BYTES;
    s->options.drain_ms = or_default(s->options.drain_ms, 10000);
    s->options.call_timeout_ms = or_default(s->options.call_timeout_ms, 30000);
    s->options.connect_timeout_ms = or_default(s->options.connect_timeout_ms, 5000);
    atomic_init(&s->refs, 1);
    crew_tokens_init(&s->tokens);
    crew_in_flight_init(&s->in_flight);
    s->control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    crew_status status = CREW_OK;
    if (s->control < 0)
        status = crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    if (status == CREW_OK)
        status = crew_pool_init(&s->pool, s->options.stepped ? 0 : s->options.threads, 0, &work, why);
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

crew_status crew_server_listen_with(crew_server *server, const char *url, const crew_callbacks *callbacks,
                                    crew_error *why)
{
    static const char scheme[] = "callback://";
    if (atomic_load(&server->started))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "the server runs already");
    if (callbacks && (strncmp(url, scheme, strlen(scheme)) != 0 || !callbacks->receive || !callbacks->reply))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "crew_server_listen_with wants %sname and two functions", scheme);
    if (server->endpoint_count == ENDPOINTS_MAX)
        return crew_error_set(why, CREW_LIMIT, "more than %d endpoints", ENDPOINTS_MAX);
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
        .in_flight_max = server->options.in_flight_max,
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
    server->endpoints[server->endpoint_count++] = endpoint;
    crew_pool_allow(&server->pool, endpoint->options.in_flight_max);
    return CREW_OK;
}

crew_status crew_server_listen(crew_server *server, const char *url, crew_error *why)
{
    return crew_server_listen_with(server, url, NULL, why);
}

static void command_all(crew_server *server, enum crew_endpoint_command command)
{
    for (size_t i = 0; i < server->endpoint_count; i++)
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
    atomic_store(&server->open, (unsigned)server->endpoint_count);
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
    return (unsigned)server->endpoint_count - atomic_load(&server->paused);
}

static unsigned to_close(const crew_server *server)
{
    return atomic_load(&server->open);
}

/* Gives back what nobody has started, where the transport can by then. */
static void give_back(crew_server *server, crew_requeue when)
{
    crew_list waiting = { 0 };
    struct crew_job *jobs;
    crew_pool_take_back(&server->pool, when, &waiting, &jobs);
    for (crew_message *m; (m = crew_list_take(&waiting));)
        settle(m, CREW_SETTLE_REQUEUE);
    while (jobs) {
        const struct request *request = jobs->owner;
        jobs = jobs->next; /* it goes with its message */
        settle(request->message, CREW_SETTLE_REQUEUE);
    }
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
    while (atomic_load(&server->stops) == 0)
        wait_a_while(server, -1);

    crew_log(CREW_LOG_INFO, "draining", NULL);
    int64_t end_ms = crew_now_ms() + server->options.drain_ms;
    atomic_store(&server->tokens.draining, true);
    for (size_t i = 0; i < server->endpoint_count; i++)
        atomic_store(&server->endpoints[i]->close_by_ms, end_ms);
    command_all(server, CREW_ENDPOINT_PAUSE);
    wait_for(server, to_pause, end_ms);
    give_back(server, CREW_REQUEUE_FIRST);
    wait_for(server, to_close, end_ms - server->options.drain_ms / 2);
    atomic_store(&server->tokens.pressing,
                 true); /* handlers that look at their tokens have the rest to end in */
    crew_tokens_raise(&server->tokens, true);
    wait_for(server, to_close, end_ms);
    give_back(server, CREW_REQUEUE_LAST);

    bool drained = !atomic_load(&server->open);
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
    unref(server);
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
    uint64_t n[COUNTS];
    for (int i = 0; i < COUNTS; i++)
        n[i] = atomic_load_explicit(&server->counts[i], memory_order_relaxed);
    *stats = (crew_server_stats){
        .received = n[RECEIVED],
        .calls = n[CALLS],
        .replied = n[REPLIED],
        .done = n[DONE],
        .requeued = n[REQUEUED],
        .rejected = n[REJECTED],
        .malformed = n[MALFORMED],
        .expired = n[EXPIRED],
        .shed = n[SHED],
        .redelivered = n[REDELIVERED],
        .dropped = n[DROPPED],
        .lost = n[LOST],
        .unanswerable = n[UNANSWERABLE],
    };
    for (size_t i = 0; i < server->endpoint_count; i++) {
        stats->in_flight += atomic_load(&server->endpoints[i]->in_flight);
        stats->listening += atomic_load(&server->endpoints[i]->ready);
    }
}
