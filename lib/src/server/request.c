#include "server/request.h"

#include "core/back.h"
#include "server/intake.h"
#include "server/tell.h"
#include "server/with.h"

#include <assert.h>

/* One message in flight; lives in its arena. */
struct request {
    struct crew_job job;
    crew_message *message;
};

/* ---- the pool's side ---- */

static void push_settlement(crew_message *message, crew_message_kind kind)
{
    struct crew_endpoint *endpoint = message->endpoint;
    crew_list one = { 0 };
    message->kind = kind;
    if (kind == CREW_SETTLE_REQUEUE && message->own_deadline)
        message->deadline_ms = 0; /* the next worker sets its own */
    crew_list_append(&one, message);
    crew_endpoint_push(endpoint, &one);
    crew_server_unref(crew_server_of(endpoint));
}

static void submit_one(crew_message *message)
{
    crew_server *server = crew_server_of(message->endpoint);
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
    if (is_to_run && !atomic_load(&crew_server_of(endpoint)->stopping)) {
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
    crew_server *server = crew_server_of(message->endpoint);
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
    crew_server *server = crew_server_of(message->endpoint);
    crew_message_kind kind = CREW_SETTLE_DONE;
    crew_server_count(server, CREW_COUNT_SHED, atomic_load(&job->group.shed_count));
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
    crew_tell_message(message, protocol, CREW_ENDED_FAILED, crew_status_text(CREW_NO_MEMORY));
    settle(message, status == CREW_OK && !message->one_way ? CREW_SETTLE_REPLY : CREW_SETTLE_DONE);
}

/* Whether the caller has given up on it; then it is dropped. */
static bool drop_if_expired(crew_message *message)
{
    if (message->own_deadline || message->deadline_ms > crew_now_ms())
        return false;
    crew_server_count(crew_server_of(message->endpoint), CREW_COUNT_EXPIRED, 1);
    message->status = CREW_EXPIRED;
    crew_tell_message(message, NULL, CREW_ENDED_EXPIRED, "deadline");
    settle(message, CREW_SETTLE_DONE);
    return true;
}

static void run_call(struct crew_job *job, size_t index, crew_arena *scratch)
{
    const struct request *request = job->owner;
    if (job->wire.count > 1 || !drop_if_expired(request->message))
        crew_job_run(job, index, scratch);
}

static void ended(const crew_call *call)
{
    const struct crew_job *job = (const struct crew_job *)(const void *)call->group;
    const struct request *request = job->owner;
    crew_tell_call(call, request->message);
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

/* Somebody waits for answers that cannot be given. */
static void note_unanswerable(const struct crew_endpoint *endpoint, const struct crew_job *job)
{
    bool wants = false;
    for (size_t i = 0; i < job->wire.count; i++)
        wants = wants || (!job->wire.items[i].one_way && !job->wire.items[i].code);
    if (!wants)
        return;
    crew_string method = job->wire.items[0].method;
    crew_server_count(crew_server_of(endpoint), CREW_COUNT_UNANSWERABLE, 1);
    crew_log(CREW_LOG_WARN, "a call wants an answer, and says nowhere to send it", "{s:s,s:S}", "endpoint",
             crew_url_text(endpoint->url), "method",
             (crew_string){ method.data, method.size < 100 ? method.size : 100 });
}

/* Decodes a message, and hands its calls to the pool. */
static void start(crew_message *message, crew_arena *scratch)
{
    struct crew_endpoint *endpoint = message->endpoint;
    crew_server *server = crew_server_of(endpoint);
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
    job->wrong = message->words;
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
    job->group.timed = server->observes_calls;
    job->group.ended = ended;
    if (crew_job_decode(job) != CREW_OK) {
        give_up(message, protocol);
        return;
    }
    crew_server_count(server, CREW_COUNT_CALLS, job->wire.count);
    if (message->one_way && !message->unanswered)
        note_unanswerable(endpoint, job);
    crew_server_count(server, CREW_COUNT_MALFORMED, job->wire.malformed);
    crew_intake_charge_decoded(endpoint, message, job);
    crew_in_flight_begin(&server->in_flight, message, job);
    if (!crew_pool_take_on(&server->pool, job, message->peer, runs_a_handler(job), scratch))
        settle(message, CREW_SETTLE_REQUEUE);
}

const struct crew_pool_work crew_request_work = { .start = start, .run = run_call };

void crew_request_give_back(crew_server *server, crew_requeue when)
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

/* ---- the endpoints' side ---- */

/* Copies of what is still here, which a broker gives out again when it was lost, or had waited for longer
 * than it does: running them beside one another would help nobody. */
static void take_out_copies(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_server *server = crew_server_of(endpoint);
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

/* ---- calls to peers ---- */

static void push(void *endpoint, crew_list *messages)
{
    crew_endpoint_push(endpoint, messages);
}

static void hold(void *endpoint)
{
    atomic_fetch_add(&crew_server_of(endpoint)->refs, 1);
}

static void release(void *endpoint)
{
    crew_server_unref(crew_server_of(endpoint));
}

static const struct crew_home home = { .push = push, .hold = hold, .release = release };

/* Whether a message is replies, and none of it calls. */
static bool is_replies(const struct crew_endpoint *endpoint, const crew_message *m)
{
    crew_arena arena = { 0 };
    crew_wire_calls calls = { 0 };
    crew_string bytes = crew_buffer_string(&m->body);
    const crew_protocol *protocol = crew_protocol_of(m->content_type, bytes);
    bool good = protocol &&
                protocol->decode_calls(bytes, &endpoint->options.limits, &arena, &calls) == CREW_OK &&
                calls.count;
    for (size_t i = 0; good && i < calls.count; i++)
        good = calls.items[i].is_reply;
    crew_arena_fini(&arena);
    return good;
}

/* Takes out what answers calls to peers. */
static void take_out_replies(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        crew_peer *peer = m->peer;
        if (peer && !peer->home && peer->takes_calls) {
            peer->endpoint = endpoint;
            peer->home = &home;
        }
        if (!peer || !atomic_load(&peer->called) || !is_replies(endpoint, m)) {
            crew_list_append(messages, m);
            continue;
        }
        crew_intake_pass_over(endpoint, peer);
        crew_intake_passed(endpoint, m->body.size);
        if (!crew_back_deliver(m)) /* too late: an error with its id would end another call, the peer's own */
            crew_message_give(endpoint->messages, m);
    }
}

void crew_request_received(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_server *server = crew_server_of(endpoint);
    take_out_replies(endpoint, messages);
    crew_with_take(endpoint, messages);
    if (!messages->count)
        return;
    int64_t deadline_ms = crew_now_ms() + endpoint->options.timeout_ms;
    int64_t now_ns = server->observes_calls || server->observes_answers ? crew_now_ns() : 0;
    for (crew_message *m = messages->head; m; m = m->next) {
        crew_intake_charge(endpoint, m);
        crew_intake_passed(endpoint, m->body.size);
        crew_tell_peer(endpoint, m->peer);
        m->received_ns = now_ns;
        m->own_deadline = !m->deadline_ms;
        crew_server_count(server, CREW_COUNT_REDELIVERED, m->redelivered);
        if (m->own_deadline)
            m->deadline_ms = deadline_ms;
    }
    crew_server_count(server, CREW_COUNT_RECEIVED, messages->count);
    atomic_fetch_add(&server->refs, (unsigned)messages->count);
    take_out_copies(endpoint, messages);
    crew_in_flight_add(&server->in_flight, messages);
    bool draining = atomic_load(&server->tokens.draining);
    while (draining && endpoint->requeue == CREW_REQUEUE_FIRST && messages->count)
        settle(crew_list_take(messages), CREW_SETTLE_REQUEUE);
    for (crew_message *m = draining && !endpoint->ops->pause ? messages->head : NULL; m; m = m->next)
        if (!m->refusal)
            m->refusal = CREW_REASON_STOPPING; /* else a busy endpoint would never be idle */
    crew_pool_submit(&server->pool, messages);
}

void crew_request_sending(struct crew_endpoint *endpoint, crew_list *messages)
{
    static const enum crew_count kinds[] = { [CREW_SETTLE_REPLY] = CREW_COUNT_REPLIED,
                                             [CREW_SETTLE_DONE] = CREW_COUNT_DONE,
                                             [CREW_SETTLE_REQUEUE] = CREW_COUNT_REQUEUED,
                                             [CREW_SETTLE_REJECT] = CREW_COUNT_REJECTED };
    crew_server *server = crew_server_of(endpoint);
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        if (m->kind == CREW_MESSAGE_REQUEST) { /* a call to a peer */
            if (endpoint->open)
                crew_list_append(messages, m);
            else
                crew_message_free(m);
            continue;
        }
        crew_intake_discharge(endpoint, m);
        m->charged = m->reply.size; /* from now on */
        crew_intake_passed(endpoint, m->charged);
        if (m->kind == CREW_SETTLE_REQUEUE) { /* whoever gets it next has it from another */
            crew_peer_release(m->peer);
            m->peer = NULL;
        }
        bool current = endpoint->open && m->epoch == endpoint->epoch;
        crew_server_count(server, current ? kinds[m->kind] : CREW_COUNT_DROPPED, 1);
        if (current) {
            crew_list_append(messages, m);
            continue;
        }
        if (m->kind == CREW_SETTLE_REPLY)
            crew_tell_answer(endpoint, m, CREW_DISCONNECTED);
        crew_message_give(endpoint->messages, m);
    }
}

void crew_request_answered(struct crew_endpoint *endpoint, const crew_message *message, crew_status status)
{
    crew_tell_answer(endpoint, message, status);
    if (status == CREW_OK)
        return;
    crew_server_count(crew_server_of(endpoint), CREW_COUNT_LOST, 1);
    crew_intake_passed(endpoint, message->charged);
    crew_log(CREW_LOG_DEBUG, "an answer was not written", "{s:s,s:s,s:I}", "endpoint",
             crew_url_text(endpoint->url), "reason", crew_status_text(status), "bytes",
             (int64_t)message->charged);
}

static void nobody_waits(struct crew_job *job)
{
    (void)job;
}

bool crew_request_too_large(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_string bytes = crew_buffer_string(&message->body);
    crew_arena scratch = { 0 };
    struct crew_job job = { .group = { .protocol = crew_protocol_of(message->content_type, bytes),
                                       .answerable = true,
                                       .shed = CREW_REASON_TOO_LARGE },
                            .dispatcher = crew_server_of(endpoint)->dispatcher,
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
