/* The client: calls to messages and back, and every call to exactly one outcome.
 *
 * A call is in the table from its start until whoever takes it out under the lock completes it: that is how
 * one of reply, deadline, loss and cancelling wins. All but starting happens on the endpoint's I/O thread. */
#include "endpoint.h"
#include "outstanding.h"

#include <rpcrew/client.h>
#include <rpcrew/impl/protocol.h>
#include <rpcrew/service.h>

#include <stdio.h>
#include <stdlib.h>

enum {
    LINGER_MS = 1000,
    RETRY_FIRST_MS = 20,
    RETRY_MOST_MS = 1000,
    BUDGET_TENTHS_MOST = 1000,
    BUDGET_TENTHS_FIRST = 100
};

struct crew_client {
    crew_client_options options;
    const crew_protocol *protocol;
    char *prefix; /* owned */
    struct crew_endpoint endpoint;

    pthread_mutex_t mutex; /* of all below */
    struct crew_call_table table;
    struct crew_due_heap due;
    unsigned budget_tenths; /* of retries: a call adds one, a retry takes ten */
    crew_error last_open;   /* why it is not connected */
    crew_client_stats stats;
};

/* One answer; in its message's arena, which it shares with the others of the same message. */
struct crew_result {
    struct answer *answer;
    const crew_value *value, *data;
};

struct answer {
    atomic_uint refs;
    crew_message *message;
};

/* ---- results ---- */

const crew_value *crew_result_value(const crew_result *result)
{
    return result ? result->value : NULL;
}

const crew_value *crew_result_error_data(const crew_result *result)
{
    return result ? result->data : NULL;
}

static void release(struct answer *answer)
{
    if (atomic_fetch_sub(&answer->refs, 1) == 1)
        crew_message_free(answer->message);
}

void crew_result_free(crew_result *result)
{
    if (result)
        release(result->answer);
}

/* ---- how a call ends ---- */

/* Takes a call out, so that it is the taker's to complete; under the lock. */
static void take_out(crew_client *client, struct crew_pending *call)
{
    crew_table_remove(&client->table, call);
    crew_due_remove(&client->due, call);
}

static void pending_free(struct crew_pending *call)
{
    crew_message_free(call->kept);
    free(call->method);
    free(call);
}

/* Fills in what every error of a call says: method, endpoint, what, and after how long. */
static void describe(const crew_client *client, const struct crew_pending *call, crew_status status,
                     crew_executed executed, const char *what, crew_error *why)
{
    crew_error_set(why, status, "%s at %s: %s, after %lld ms", call->method,
                   crew_url_text(client->endpoint.url), what, (long long)(crew_now_ms() - call->started_ms));
    why->executed = executed;
}

/* Completes a call that has been taken out. */
static void complete(struct crew_pending *call, crew_result *result, const crew_error *why)
{
    call->on_done(call->context, result, why);
    pending_free(call);
}

static void complete_without_answer(const crew_client *client, struct crew_pending *call, crew_status status,
                                    crew_executed executed, const char *what)
{
    crew_error why;
    describe(client, call, status, executed, what ? what : crew_status_text(status), &why);
    complete(call, NULL, &why);
}

static crew_executed executed_so_far(const struct crew_pending *call)
{
    return call->written ? CREW_EXECUTED_UNKNOWN : CREW_EXECUTED_NO;
}

static void complete_cancelled(const crew_client *client, struct crew_pending *call)
{
    /* Unwritten or not: the request may be with the transport, on its way. */
    complete_without_answer(client, call, CREW_CANCELLED, CREW_EXECUTED_UNKNOWN, NULL);
}

/* Whether a retry may be spent; under the lock. */
static bool spend_retry(crew_client *client)
{
    if (client->budget_tenths < 10)
        return false;
    client->budget_tenths -= 10;
    return true;
}

/* Lets a call wait for another try instead of ending it; under the lock. */
static bool retry_later(crew_client *client, struct crew_pending *call, unsigned flag)
{
    unsigned backoff_ms = call->backoff_ms ? call->backoff_ms * 2 : RETRY_FIRST_MS;
    if (backoff_ms > RETRY_MOST_MS)
        backoff_ms = RETRY_MOST_MS;
    int64_t at = crew_now_ms() + backoff_ms / 2 + (call->id * 2654435761U >> 8) % backoff_ms;
    if (!(call->options.retry & flag) || !call->kept || call->cancelled || at >= call->deadline_ms ||
        !spend_retry(client))
        return false;
    call->backoff_ms = backoff_ms;
    call->written = false;
    call->due_ms = at;
    crew_due_update(&client->due, call);
    return true;
}

/* ---- events of the transport ---- */

static crew_client *client_of(const struct crew_endpoint *endpoint)
{
    return endpoint->options.context;
}

/* A request has come back from the transport: kept if it may be wanted again. Under the lock. */
static void keep_or_give(struct crew_endpoint *endpoint, struct crew_pending *call, crew_message *message)
{
    bool wanted = call && !call->kept && (call->options.idempotent || call->options.retry);
    if (wanted)
        call->kept = message;
    else
        crew_message_give(&endpoint->messages, message);
}

static void on_written(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = crew_table_find(&client->table, message->correlation);
    if (call)
        call->written = true;
    keep_or_give(endpoint, call, message);
    pthread_mutex_unlock(&client->mutex);
}

static void on_confirmed(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = crew_table_find(&client->table, message->correlation);
    if (call && call->one_way)
        take_out(client, call);
    else
        call = NULL;
    pthread_mutex_unlock(&client->mutex);
    crew_message_give(&endpoint->messages, message);
    if (call && call->cancelled)
        complete_cancelled(client, call);
    else if (call)
        complete(call, NULL, &(crew_error){ .status = CREW_OK });
}

/* Nobody took the request. message is the request itself, or only tells its correlation. */
static void on_not_taken(struct crew_endpoint *endpoint, crew_message *message, crew_status status,
                         unsigned flag)
{
    crew_client *client = client_of(endpoint);
    bool is_request = message->body.size > 0;
    message->kind = CREW_MESSAGE_REQUEST;
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = crew_table_find(&client->table, message->correlation);
    keep_or_give(endpoint, is_request ? call : NULL, message);
    if (call && !retry_later(client, call, flag))
        take_out(client, call);
    else
        call = NULL;
    pthread_mutex_unlock(&client->mutex);
    if (call && call->cancelled)
        complete_cancelled(client, call);
    else if (call)
        complete_without_answer(client, call, status, CREW_EXECUTED_NO, NULL);
}

/* ---- replies ---- */

/* Whether the error says itself what became of the call (docs/errors.md). */
static crew_executed executed_of(const crew_wire_reply *reply)
{
    crew_string said;
    const crew_value *ours = crew_value_get(reply->data, "rpcrew");
    if (crew_value_string(crew_value_get(ours, "executed"), &said) == CREW_OK)
        for (int i = CREW_EXECUTED_NO; i <= CREW_EXECUTED_YES; i++)
            if (crew_string_equal(said, crew_str(crew_executed_name((crew_executed)i))))
                return (crew_executed)i;
    switch (reply->code) {
    case CREW_CODE_PARSE_ERROR:
    case CREW_CODE_INVALID_REQUEST:
    case CREW_CODE_METHOD_NOT_FOUND:
    case CREW_CODE_INVALID_PARAMS: return CREW_EXECUTED_NO;
    default: return CREW_EXECUTED_YES;
    }
}

static bool was_shed(const crew_wire_reply *reply)
{
    return reply->is_error && reply->code == CREW_CODE_OVERLOADED && crew_value_get(reply->data, "rpcrew") &&
           executed_of(reply) == CREW_EXECUTED_NO;
}

static crew_status judge(const crew_client *client, const struct crew_pending *call,
                         const crew_wire_reply *reply, crew_error *why)
{
    char what[400];
    *why = (crew_error){ .status = CREW_OK };
    if (!reply->valid) {
        (void)snprintf(what, sizeof what, "the answer broke the protocol: %s", reply->reason);
        describe(client, call, CREW_BAD_REPLY, CREW_EXECUTED_UNKNOWN, what, why);
        return CREW_BAD_REPLY;
    }
    if (!reply->is_error)
        return CREW_OK;
    crew_string reason = { 0 };
    bool more = crew_value_string(crew_value_get(reply->data, "reason"), &reason) == CREW_OK;
    (void)snprintf(what, sizeof what, "%.*s%s%.*s%s (code %lld)", CREW_STR(reply->message), more ? " (" : "",
                   CREW_STR(reason), more ? ")" : "", (long long)reply->code);
    crew_status status = was_shed(reply) ? CREW_OVERLOADED : CREW_REMOTE_ERROR;
    describe(client, call, status, executed_of(reply), what, why);
    why->code = reply->code;
    return status;
}

/* The call that a reply belongs to, taken out; NULL if it is nobody's or will be tried again. Under the lock.
 */
static struct crew_pending *match(crew_client *client, const crew_message *message,
                                  const crew_wire_reply *reply, bool *mismatched)
{
    uint32_t id = message->correlation               ? message->correlation
                  : reply->id_kind == CREW_ID_NUMBER ? reply->id
                                                     : 0;
    struct crew_pending *call = id ? crew_table_find(&client->table, id) : NULL;
    bool of_nobody = reply->id_kind == CREW_ID_NULL && (reply->is_error || !reply->valid);
    if (!id && of_nobody && client->table.count == 1)
        call = crew_due_first(&client->due); /* the sole one outstanding: it must be that */
    *mismatched =
        message->correlation && !of_nobody && !(reply->id_kind == CREW_ID_NUMBER && reply->id == id);
    if (!call || call->one_way) {
        client->stats.stray_replies++;
        return NULL;
    }
    if (was_shed(reply) && retry_later(client, call, CREW_RETRY_OVERLOADED))
        return NULL;
    client->stats.bad_replies += *mismatched || !reply->valid;
    take_out(client, call);
    return call;
}

static void on_one_reply(crew_client *client, struct answer *answer, const crew_wire_reply *reply)
{
    bool mismatched = false;
    crew_error why;
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = match(client, answer->message, reply, &mismatched);
    pthread_mutex_unlock(&client->mutex);
    if (!call)
        return;
    if (call->cancelled) {
        complete_cancelled(client, call);
        return;
    }
    if (mismatched) {
        complete_without_answer(client, call, CREW_BAD_REPLY, CREW_EXECUTED_UNKNOWN,
                                "the answer broke the protocol: its id is another call's");
        return;
    }
    crew_status status = judge(client, call, reply, &why);
    crew_result *result = NULL;
    if (status != CREW_BAD_REPLY)
        result = crew_arena_zalloc(&answer->message->arena, sizeof *result);
    if (result) {
        static const crew_value *const none = NULL;
        *result = (crew_result){ .answer = answer,
                                 .value = reply->is_error ? none : reply->result,
                                 .data = reply->is_error ? reply->data : none };
        atomic_fetch_add(&answer->refs, 1);
    } else if (status == CREW_OK) {
        describe(client, call, CREW_NO_MEMORY, CREW_EXECUTED_YES, crew_status_text(CREW_NO_MEMORY), &why);
    }
    complete(call, result, &why);
}

/* A message that is no reply at all: whose it was is known only by its correlation. */
static void on_rubbish(crew_client *client, crew_message *message, const char *reason)
{
    crew_wire_reply reply = { .id_kind = CREW_ID_NULL, .reason = reason };
    struct answer answer = { .message = message };
    atomic_init(&answer.refs, 2); /* on_one_reply makes no result of it */
    on_one_reply(client, &answer, &reply);
}

static void on_reply(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    crew_string bytes = crew_buffer_string(&message->body);
    crew_wire_replies replies = { 0 };
    crew_error why = { .message = "it is empty" };
    crew_status status = CREW_MALFORMED;
    if (bytes.size > endpoint->options.limits.message_bytes)
        crew_error_set(&why, CREW_LIMIT, "it has more than %zu bytes",
                       endpoint->options.limits.message_bytes);
    else if (bytes.size)
        status = client->protocol->decode_replies(bytes, &endpoint->options.limits, &message->arena, &replies,
                                                  &why);
    struct answer *answer = status == CREW_OK ? crew_arena_alloc(&message->arena, sizeof *answer) : NULL;
    if (!answer) {
        on_rubbish(client, message, status == CREW_OK ? "there is no memory for it" : why.message);
        crew_message_give(&endpoint->messages, message);
        return;
    }
    atomic_init(&answer->refs, 1);
    answer->message = message;
    for (size_t i = 0; i < replies.count; i++)
        on_one_reply(client, answer, &replies.items[i]);
    release(answer);
}

/* ---- the endpoint's owner ---- */

static size_t room(struct crew_endpoint *endpoint)
{
    (void)endpoint;
    return SIZE_MAX;
}

static void received(struct crew_endpoint *endpoint, crew_list *messages)
{
    for (crew_message *m; (m = crew_list_take(messages));) {
        switch (m->kind) {
        case CREW_EVENT_WRITTEN: on_written(endpoint, m); break;
        case CREW_EVENT_CONFIRMED: on_confirmed(endpoint, m); break;
        case CREW_EVENT_UNROUTABLE: on_not_taken(endpoint, m, CREW_NO_SERVICE, CREW_RETRY_NO_SERVICE); break;
        case CREW_EVENT_REFUSED: on_not_taken(endpoint, m, CREW_OVERLOADED, CREW_RETRY_OVERLOADED); break;
        default: on_reply(endpoint, m); break;
        }
    }
}

/* Drops requests whose calls have ended while they waited. */
static void sending(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_client *client = client_of(endpoint);
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    pthread_mutex_lock(&client->mutex);
    for (crew_message *m; (m = crew_list_take(&all));) {
        const struct crew_pending *call = crew_table_find(&client->table, m->correlation);
        if (call && !call->cancelled)
            crew_list_append(messages, m);
        else
            crew_message_give(&endpoint->messages, m);
    }
    pthread_mutex_unlock(&client->mutex);
}

static void complete_all(const crew_client *client, struct crew_pending *ended, crew_status status,
                         const char *what)
{
    while (ended) {
        struct crew_pending *call = ended;
        ended = call->next;
        if (call->cancelled)
            complete_cancelled(client, call);
        else
            complete_without_answer(client, call, status, executed_so_far(call), what);
    }
}

/* The connection is gone. What was written may have been executed; what was not is in unsent, and stays. */
static struct crew_pending *settle_lost(crew_client *client, crew_list *unsent)
{
    struct crew_pending *ended = NULL;
    for (size_t i = 0; i < client->table.room; i++) {
        struct crew_pending *call = client->table.slots[i];
        if (!call || !call->written)
            continue;
        if (call->options.idempotent && call->kept && spend_retry(client)) {
            call->kept->kind = CREW_MESSAGE_REQUEST;
            crew_list_append(unsent, call->kept);
            call->kept = NULL;
            call->written = false;
            client->stats.resent++;
            continue;
        }
        take_out(client, call);
        call->next = ended;
        ended = call;
    }
    return ended;
}

/* There has never been a connection: nothing serves this endpoint. */
static struct crew_pending *settle_unserved(crew_client *client)
{
    struct crew_pending *ended = NULL;
    for (size_t i = 0; i < client->table.room; i++) {
        struct crew_pending *call = client->table.slots[i];
        if (!call || call->heap_index == SIZE_MAX || (call->options.retry & CREW_RETRY_NO_SERVICE))
            continue;
        take_out(client, call);
        call->next = ended;
        ended = call;
    }
    return ended;
}

static void changed(struct crew_endpoint *endpoint, const crew_error *why, crew_list *unsent)
{
    crew_client *client = client_of(endpoint);
    if (why->status == CREW_OK)
        return;
    struct crew_pending *ended;
    pthread_mutex_lock(&client->mutex);
    client->last_open = *why;
    if (endpoint->ever_open)
        ended = settle_lost(client, unsent);
    else
        ended = settle_unserved(client);
    pthread_mutex_unlock(&client->mutex);
    if (endpoint->ever_open)
        complete_all(client, ended, CREW_DISCONNECTED, NULL);
    else
        complete_all(client, ended, CREW_NO_SERVICE, why->message);
}

/* A call is due that has not been answered. Returns it if it has ended, taken out. Under the lock. */
static struct crew_pending *end_or_retry(struct crew_endpoint *endpoint, struct crew_pending *call)
{
    crew_client *client = client_of(endpoint);
    if (!call->cancelled && call->due_ms < call->deadline_ms) {
        crew_list_append(&endpoint->outgoing, call->kept);
        call->kept = NULL;
        client->stats.retried++;
        call->due_ms = call->deadline_ms;
        crew_due_update(&client->due, call);
        return NULL;
    }
    take_out(client, call);
    return call;
}

static void complete_late(const struct crew_endpoint *endpoint, struct crew_pending *call)
{
    const crew_client *client = client_of(endpoint);
    bool nobody = call->backoff_ms || (endpoint->open ? endpoint->ops->lazy_open : !endpoint->ever_open);
    if (call->cancelled)
        complete_cancelled(client, call);
    else if (call->written)
        complete_without_answer(client, call, CREW_TIMEOUT, CREW_EXECUTED_UNKNOWN, NULL);
    else
        complete_without_answer(client, call, nobody ? CREW_NO_SERVICE : CREW_EXPIRED, CREW_EXECUTED_NO,
                                NULL);
}

static int due(struct crew_endpoint *endpoint)
{
    crew_client *client = client_of(endpoint);
    for (;;) {
        int64_t now = crew_now_ms();
        struct crew_pending *ended = NULL;
        pthread_mutex_lock(&client->mutex);
        struct crew_pending *first = crew_due_first(&client->due);
        int64_t left = first ? first->due_ms - now : 0;
        if (first && left <= 0)
            ended = end_or_retry(endpoint, first);
        pthread_mutex_unlock(&client->mutex);
        if (!first)
            return -1;
        if (left > 0)
            return left > 60000 ? 60000 : (int)left;
        if (ended)
            complete_late(endpoint, ended);
    }
}

static bool idle(struct crew_endpoint *endpoint)
{
    (void)endpoint;
    return true;
}

static void closed(struct crew_endpoint *endpoint)
{
    crew_client *client = client_of(endpoint);
    for (;;) {
        pthread_mutex_lock(&client->mutex);
        struct crew_pending *call = crew_due_first(&client->due);
        if (call)
            take_out(client, call);
        pthread_mutex_unlock(&client->mutex);
        if (!call)
            return;
        complete_cancelled(client, call);
    }
}

static const struct crew_endpoint_owner owner = {
    .room = room,
    .received = received,
    .sending = sending,
    .changed = changed,
    .due = due,
    .idle = idle,
    .closed = closed,
};

/* ---- life ---- */

static crew_status choose_protocol(crew_client *client, crew_error *why)
{
    const char *name = client->options.protocol ? client->options.protocol : "jsonrpc";
    client->protocol = crew_protocol_find(name);
    if (client->protocol)
        return CREW_OK;
    crew_buffer known = { 0 };
    for (size_t i = 0; crew_protocol_at(i); i++)
        crew_buffer_printf(&known, "%s%s", i ? ", " : "", crew_protocol_at(i)->name);
    crew_error_set(why, CREW_BAD_ARGUMENT, "no protocol '%s'; there are %.*s", name,
                   CREW_STR(crew_buffer_string(&known)));
    crew_buffer_fini(&known);
    return CREW_BAD_ARGUMENT;
}

static crew_status connect_client(crew_client *client, const char *url, crew_error *why)
{
    struct crew_endpoint_options options = {
        .owner = &owner,
        .context = client,
        .background = true,
        .linger_ms = LINGER_MS,
        .in_flight_max = client->options.in_flight_max ? client->options.in_flight_max : 65536,
        .timeout_ms = client->options.timeout_ms ? client->options.timeout_ms : 30000,
        .connect_timeout_ms = client->options.connect_timeout_ms ? client->options.connect_timeout_ms : 5000,
        .limits = crew_limits_resolve(&client->options.limits),
        .trace = client->options.trace,
        .trace_context = client->options.trace_context,
    };
    return crew_endpoint_start(&client->endpoint, url, &options, why);
}

crew_status crew_client_new(crew_client **client, const char *url, const crew_client_options *options,
                            crew_error *why)
{
    crew_client *c = calloc(1, sizeof *c);
    if (!c)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    c->options = options ? *options : (crew_client_options){ 0 };
    c->prefix = strdup(c->options.prefix ? c->options.prefix : "");
    c->budget_tenths = BUDGET_TENTHS_FIRST;
    (void)pthread_mutex_init(&c->mutex, NULL);
    crew_status status =
        c->prefix ? choose_protocol(c, why) : crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (status == CREW_OK)
        status = connect_client(c, url, why);
    if (status != CREW_OK) {
        (void)pthread_mutex_destroy(&c->mutex);
        free(c->prefix);
        free(c);
        return status;
    }
    *client = c;
    return CREW_OK;
}

void crew_client_free(crew_client *client)
{
    if (!client)
        return;
    crew_endpoint_command(&client->endpoint, CREW_ENDPOINT_CLOSE);
    crew_endpoint_join(&client->endpoint);
    crew_endpoint_fini(&client->endpoint);
    crew_table_fini(&client->table);
    crew_due_fini(&client->due);
    (void)pthread_mutex_destroy(&client->mutex);
    free(client->prefix);
    free(client);
}

void crew_client_stats_get(crew_client *client, crew_client_stats *stats)
{
    pthread_mutex_lock(&client->mutex);
    *stats = client->stats;
    stats->outstanding = client->table.count;
    pthread_mutex_unlock(&client->mutex);
}

/* ---- starting a call ---- */

static crew_status pending_new(const crew_client *client, const char *method,
                               const crew_call_options *options, struct crew_pending **out)
{
    struct crew_pending *call = calloc(1, sizeof *call);
    size_t prefix_size = strlen(client->prefix), size = strlen(method);
    char *name = malloc(prefix_size + size + 1);
    if (!call || !name) {
        free(call);
        free(name);
        return CREW_NO_MEMORY;
    }
    memcpy(name, client->prefix, prefix_size);
    memcpy(name + prefix_size, method, size + 1);
    call->method = name;
    call->heap_index = SIZE_MAX;
    if (options)
        call->options = *options;
    unsigned timeout_ms =
        call->options.timeout_ms ? call->options.timeout_ms : client->endpoint.options.timeout_ms;
    call->started_ms = crew_now_ms();
    call->deadline_ms = call->started_ms + timeout_ms;
    if (call->options.within) {
        int64_t left = crew_call_remaining_ms(call->options.within);
        if (left < timeout_ms)
            call->deadline_ms = call->started_ms + left;
        call->options.within = NULL; /* it may be gone before this call is */
    }
    call->due_ms = call->deadline_ms;
    *out = call;
    return CREW_OK;
}

static crew_status make_request(const crew_client *client, const struct crew_pending *call,
                                const crew_value *params, crew_message **out)
{
    crew_message *message = crew_message_new();
    if (!message)
        return CREW_NO_MEMORY;
    message->kind = CREW_MESSAGE_REQUEST;
    message->correlation = call->id;
    message->one_way = call->one_way;
    message->deadline_ms = call->deadline_ms;
    message->content_type = client->protocol->content_type;
    crew_status status = client->protocol->encode_call(crew_str(call->method), params,
                                                       call->one_way ? 0 : call->id, &message->body);
    if (status != CREW_OK) {
        crew_message_free(message);
        return status;
    }
    *out = message;
    return CREW_OK;
}

/* From here on the I/O thread may end the call at any time. */
static crew_status hand_over(crew_client *client, struct crew_pending *call, crew_message *message)
{
    crew_list one = { 0 };
    crew_list_append(&one, message);
    pthread_mutex_lock(&client->mutex);
    crew_status status = crew_due_add(&client->due, call);
    if (status == CREW_OK) {
        client->stats.calls++;
        client->budget_tenths += client->budget_tenths < BUDGET_TENTHS_MOST;
        /* Under the lock, so that the call is not completed, and its id given to nobody, before this is
         * pushed. */
        status = crew_queue_push(&client->endpoint.queue, &one);
        if (status != CREW_OK)
            crew_due_remove(&client->due, call);
    }
    pthread_mutex_unlock(&client->mutex);
    crew_list_free(&one);
    return status;
}

static crew_status start(crew_client *client, struct crew_pending *call, const crew_value *params,
                         uint32_t *id)
{
    crew_message *message = NULL;
    if (call->deadline_ms <= call->started_ms)
        return CREW_EXPIRED;
    pthread_mutex_lock(&client->mutex);
    client->table.most = client->endpoint.options.in_flight_max;
    crew_status status = crew_table_add(&client->table, call);
    pthread_mutex_unlock(&client->mutex);
    if (status != CREW_OK)
        return status;
    uint32_t given = call->id;
    status = make_request(client, call, params, &message);
    if (status == CREW_OK)
        status = hand_over(client, call, message);
    if (status != CREW_OK) {
        pthread_mutex_lock(&client->mutex);
        crew_table_remove(&client->table, call);
        pthread_mutex_unlock(&client->mutex);
    } else if (id) {
        *id = given;
    }
    return status;
}

static crew_status start_call(crew_client *client, const char *method, const crew_value *params,
                              const crew_call_options *options, bool one_way, crew_completion *on_done,
                              void *context, uint32_t *id, crew_error *why)
{
    struct crew_pending *call;
    crew_status status = pending_new(client, method, options, &call);
    if (status != CREW_OK)
        return crew_error_set(why, status, "no memory");
    call->one_way = one_way;
    call->on_done = on_done;
    call->context = context;
    status = start(client, call, params, id);
    if (status != CREW_OK) {
        const char *what =
            status == CREW_OVERLOADED ? "too many calls are outstanding" : crew_status_text(status);
        crew_error reason;
        describe(client, call, status, CREW_EXECUTED_NO, what, &reason);
        if (why)
            *why = reason;
        pending_free(call);
    }
    return status;
}

crew_status crew_client_start_value(crew_client *client, const char *method, const crew_value *params,
                                    const crew_call_options *options, crew_completion *on_done, void *context,
                                    uint32_t *id, crew_error *why)
{
    return start_call(client, method, params, options, false, on_done, context, id, why);
}

crew_status crew_client_cancel(crew_client *client, uint32_t id)
{
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = crew_table_find(&client->table, id);
    bool won = call && !call->cancelled && call->heap_index != SIZE_MAX;
    if (won) {
        call->cancelled = true;
        call->due_ms = 0;
        crew_due_update(&client->due, call);
    }
    pthread_mutex_unlock(&client->mutex);
    if (!won)
        return CREW_NOT_FOUND;
    crew_queue_wake(&client->endpoint.queue);
    return CREW_OK;
}

/* ---- waiting for a call ---- */

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    bool ended;
    crew_result *result;
    crew_error why;
};

static void wake_waiter(void *context, crew_result *result, const crew_error *why)
{
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->mutex);
    waiter->ended = true;
    waiter->result = result;
    waiter->why = *why;
    pthread_cond_signal(&waiter->done); /* under the lock: the waiter is on the stack of whoever waits */
    pthread_mutex_unlock(&waiter->mutex);
}

static crew_status call_and_wait(crew_client *client, const char *method, const crew_value *params,
                                 const crew_call_options *options, bool one_way, crew_result **result,
                                 crew_error *why)
{
    struct waiter waiter = { .mutex = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
    if (result)
        *result = NULL;
    if (crew_endpoint_is_current(client))
        return crew_error_set(why, CREW_WOULD_DEADLOCK, "%s: %s", method,
                              crew_status_text(CREW_WOULD_DEADLOCK));
    crew_status status =
        start_call(client, method, params, options, one_way, wake_waiter, &waiter, NULL, why);
    if (status != CREW_OK)
        return status;
    pthread_mutex_lock(&waiter.mutex);
    while (!waiter.ended)
        pthread_cond_wait(&waiter.done, &waiter.mutex);
    pthread_mutex_unlock(&waiter.mutex);
    (void)pthread_cond_destroy(&waiter.done);
    (void)pthread_mutex_destroy(&waiter.mutex);
    if (result)
        *result = waiter.result;
    else
        crew_result_free(waiter.result);
    if (why && waiter.why.status != CREW_OK)
        *why = waiter.why;
    return waiter.why.status;
}

crew_status crew_client_call_value(crew_client *client, const char *method, const crew_value *params,
                                   const crew_call_options *options, crew_result **result, crew_error *why)
{
    return call_and_wait(client, method, params, options, false, result, why);
}

crew_status crew_client_notify_value(crew_client *client, const char *method, const crew_value *params,
                                     const crew_call_options *options, crew_error *why)
{
    return call_and_wait(client, method, params, options, true, NULL, why);
}

/* ---- by format ---- */

/* Packs params into the arena; "" and NULL are none. */
static crew_status pack_params(crew_arena *arena, const char *method, const char *format, va_list arguments,
                               const crew_value **params, crew_error *why)
{
    *params = NULL;
    if (!format || !*format)
        return CREW_OK;
    crew_status status = crew_vpack(arena, params, format, arguments);
    if (status != CREW_OK)
        crew_error_set(why, status, "%s: params '%s': %s", method, format, crew_status_text(status));
    return status;
}

crew_status crew_client_call(crew_client *client, const char *method, crew_result **result, crew_error *why,
                             const char *format, ...)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    if (result)
        *result = NULL;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    va_end(arguments);
    if (status == CREW_OK)
        status = call_and_wait(client, method, params, NULL, false, result, why);
    crew_arena_fini(&arena);
    return status;
}

crew_status crew_client_notify(crew_client *client, const char *method, crew_error *why, const char *format,
                               ...)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    va_end(arguments);
    if (status == CREW_OK)
        status = call_and_wait(client, method, params, NULL, true, NULL, why);
    crew_arena_fini(&arena);
    return status;
}

crew_status crew_client_start(crew_client *client, const char *method, crew_completion *on_done,
                              void *context, crew_error *why, const char *format, ...)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    va_end(arguments);
    if (status == CREW_OK)
        status = start_call(client, method, params, NULL, false, on_done, context, NULL, why);
    crew_arena_fini(&arena);
    return status;
}
