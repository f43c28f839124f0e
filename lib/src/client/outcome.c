/* How calls end: each in exactly one outcome (docs/delivery.md).
 *
 * A call is in the client's table from its start until somebody takes it out under the lock; whoever does
 * completes it. That is how one of reply, deadline, loss and cancelling wins. All of this runs on the I/O
 * thread of the link that the call is on. */
#include "client/answer.h"
#include "client/tell.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { RETRY_FIRST_MS = 20, RETRY_MOST_MS = 1000, INQUIRY_MS = 2000 };
enum { ROUND_MESSAGES = 1000, ROUND_BYTES = 4 << 20 };

static crew_client *client_of(const struct crew_endpoint *endpoint)
{
    return endpoint->options.context;
}

static struct crew_link *link_of(struct crew_endpoint *endpoint)
{
    return (struct crew_link *)(void *)endpoint;
}

/* ---- completing ---- */

/* A call that is under way; one that is just being started is still its starter's. Under the lock. */
static struct crew_pending *find(const crew_client *client, uint32_t id)
{
    struct crew_pending *call = crew_table_find(&client->table, id);
    return call && call->state != CREW_CALL_STARTING ? call : NULL;
}

/* Takes a call out, so that it is the taker's to complete; under the lock. */
static struct crew_pending *take_out(crew_client *client, struct crew_pending *call)
{
    crew_table_remove(&client->table, call);
    crew_due_remove(&call->link->due, call);
    crew_client_gauge(client, CREW_CLIENT_OUTSTANDING, -1);
    return call;
}

/* A call is no longer with whom it was written to; NULL is fine. */
static void leave_peer(crew_peer *peer)
{
    if (peer)
        atomic_fetch_sub(&peer->in_flight, 1);
    crew_peer_release(peer);
}

void crew_pending_free(struct crew_pending *call)
{
    leave_peer(call->peer);
    crew_message_free(call->kept);
    free(call->method);
    free(call);
}

static void complete(const crew_client *client, struct crew_pending *call, crew_result *result,
                     const crew_error *why, size_t bytes)
{
    crew_client_tell_call(client, call, why, bytes);
    call->on_done(call->context, result, why);
    crew_pending_free(call);
}

/* Whether the service may have run it, by what is known without an answer. */
static crew_executed executed_so_far(const struct crew_pending *call)
{
    bool sent = call->state == CREW_CALL_WRITTEN || call->sent_before;
    return sent ? CREW_EXECUTED_UNKNOWN : CREW_EXECUTED_NO;
}

/* Completes a call, taken out, that gets no answer. what: NULL for the status's own words. */
static void complete_without(const crew_client *client, struct crew_pending *call, crew_status status,
                             crew_executed executed, const char *what)
{
    crew_error why;
    if (call->cancelled) {
        status = CREW_CANCELLED;
        executed = CREW_EXECUTED_UNKNOWN; /* the request may be with the transport, on its way */
        what = NULL;
    }
    crew_client_describe(client, call, status, executed, what ? what : crew_status_text(status), &why);
    complete(client, call, NULL, &why, 0);
}

/* ---- trying again ---- */

/* Whether one more resend is within the budget; under the lock. */
static bool spend(crew_client *client)
{
    if (client->budget_tenths < 10)
        return false;
    client->budget_tenths -= 10;
    return true;
}

/* Lets a call that was not executed wait for another try, if it asked for that; under the lock. */
static bool retry_later(crew_client *client, struct crew_pending *call, unsigned flag)
{
    unsigned backoff_ms = call->backoff_ms ? call->backoff_ms * 2 : RETRY_FIRST_MS;
    if (backoff_ms > RETRY_MOST_MS)
        backoff_ms = RETRY_MOST_MS;
    int64_t at = crew_now_ms() + backoff_ms / 2 + (call->id * 2654435761U >> 8) % backoff_ms;
    if (!(call->options.retry & flag) || !call->kept || call->cancelled || at >= call->deadline_ms)
        return false;
    /* Retries of what a busy worker has shed must not be what keeps it busy. */
    if (flag == CREW_RETRY_OVERLOADED && !spend(client))
        return false;
    call->backoff_ms = backoff_ms;
    call->state = CREW_CALL_RETRYING;
    call->due_ms = at;
    crew_due_update(&call->link->due, call);
    return true;
}

/* The kept request, to be sent once more; under the lock. */
static crew_message *take_kept(struct crew_pending *call)
{
    crew_message *message = call->kept;
    message->kind = CREW_MESSAGE_REQUEST;
    call->kept = NULL;
    call->state = CREW_CALL_UNWRITTEN;
    call->again++;
    leave_peer(call->peer);
    call->peer = NULL;
    return message;
}

/* A request has come back from the transport: kept if it may be wanted again. Under the lock. */
static void keep_or_give(struct crew_endpoint *endpoint, struct crew_pending *call, crew_message *message)
{
    if (call && !call->kept && (call->options.idempotent || call->options.retry))
        call->kept = message;
    else
        crew_message_give(endpoint->messages, message);
}

/* ---- events of the transport ---- */

static void settle_gone(struct crew_endpoint *endpoint);

static void on_written(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = find(client, message->correlation);
    if (call)
        call->state = CREW_CALL_WRITTEN;
    crew_peer *peer = message->peer;
    bool has_gone = call && peer && atomic_load(&peer->gone);
    message->peer = NULL;
    if (call && !call->peer)
        call->peer = peer;
    else
        leave_peer(peer);
    keep_or_give(endpoint, call, message);
    pthread_mutex_unlock(&client->mutex);
    if (has_gone) /* which was told before this */
        settle_gone(endpoint);
}

static void on_confirmed(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = find(client, message->correlation);
    call = call && call->options.one_way ? take_out(client, call) : NULL;
    pthread_mutex_unlock(&client->mutex);
    crew_message_give(endpoint->messages, message);
    if (call && call->cancelled)
        complete_without(client, call, CREW_CANCELLED, CREW_EXECUTED_UNKNOWN, NULL);
    else if (call)
        complete(client, call, NULL, &(crew_error){ .status = CREW_OK }, 0);
}

/* Nobody took the request. message is the request itself, or only tells its correlation. */
static void on_not_taken(struct crew_endpoint *endpoint, crew_message *message, crew_status status,
                         unsigned flag)
{
    crew_client *client = client_of(endpoint);
    bool is_request = message->body.size > 0, unsure = message->unsure;
    const char *words = message->words;
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = find(client, message->correlation);
    keep_or_give(endpoint, is_request ? call : NULL, message);
    if (call && unsure)
        call->sent_before = true;
    bool retries = call && (!unsure || call->options.idempotent) && retry_later(client, call, flag);
    call = call && !retries ? take_out(client, call) : NULL;
    pthread_mutex_unlock(&client->mutex);
    char what[400];
    (void)snprintf(what, sizeof what, "%s (%s)",
                   unsure ? "refused, and it may have been executed" : crew_status_text(status),
                   words ? words : "");
    if (call)
        complete_without(client, call, status, call->sent_before ? CREW_EXECUTED_UNKNOWN : CREW_EXECUTED_NO,
                         words ? what : NULL);
}

/* ---- replies ---- */

/* The call that a reply belongs to, taken out; NULL if it is nobody's or will be tried again. Under the lock.
 */
static struct crew_pending *match(struct crew_link *link, const crew_message *message, crew_wire_reply *reply)
{
    crew_client *client = client_of(&link->endpoint);
    uint32_t id = message->correlation;
    if (!id && reply->id_kind == CREW_ID_NUMBER)
        id = reply->id;
    struct crew_pending *call = id ? find(client, id) : NULL;
    /* Asked of another worker: only that one's answer counts. */
    if (call && (call->link != link || (call->peer && call->peer != message->peer)))
        call = NULL;
    bool of_nobody = reply->id_kind == CREW_ID_NULL && (reply->is_error || !reply->valid);
    if (!id && of_nobody && link->due.count == 1)
        call = crew_due_first(&link->due); /* the sole one outstanding there: most likely that */
    if (call && !id && (call->state != CREW_CALL_WRITTEN || (call->peer && call->peer != message->peer)))
        call = NULL;
    if (!call || (call->options.one_way && reply->valid)) { /* else it says what became of that */
        crew_client_count(client, CREW_CLIENT_STRAY_REPLIES);
        return NULL;
    }
    bool own = reply->id_kind == CREW_ID_NUMBER && reply->id == call->id;
    if (!own && !of_nobody) {
        reply->valid = false;
        reply->reason = "its id is another call's";
    }
    if (reply->valid && reply_was_shed(reply) && retry_later(client, call, CREW_RETRY_OVERLOADED))
        return NULL;
    if (!reply->valid)
        crew_client_count(client, CREW_CLIENT_BAD_REPLIES);
    return take_out(client, call);
}

static void on_one_reply(struct crew_link *link, struct answer *answer, crew_wire_reply *reply)
{
    crew_client *client = client_of(&link->endpoint);
    crew_error why;
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = match(link, answer->message, reply);
    pthread_mutex_unlock(&client->mutex);
    if (!call)
        return;
    if (call->cancelled) {
        complete_without(client, call, CREW_CANCELLED, CREW_EXECUTED_UNKNOWN, NULL);
        return;
    }
    reply_judge(client, call, reply, !answer->message->correlation, &why);
    crew_result *result = NULL;
    if (why.status == CREW_OK || why.status == CREW_REMOTE_ERROR)
        result = answer_result(answer, reply);
    if (!result && why.status == CREW_OK) {
        crew_client_describe(client, call, CREW_NO_MEMORY, CREW_EXECUTED_YES,
                             crew_status_text(CREW_NO_MEMORY), &why);
    }
    complete(client, call, result, &why, answer->message->body.size);
}

/* A message that is no reply at all: whose it was is known only by its correlation. */
static void on_rubbish(struct crew_endpoint *endpoint, crew_message *message, const char *reason)
{
    crew_wire_reply reply = { .id_kind = CREW_ID_NULL, .reason = reason };
    struct answer answer = { .message = message }; /* no result is made of it */
    on_one_reply(link_of(endpoint), &answer, &reply);
    crew_message_give(endpoint->messages, message);
}

/* Whether what came is no answer but calls, where the peer may call; then it is served. */
static bool serve(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    const crew_limits *limits = &endpoint->options.limits;
    if (!endpoint->ops->both_call || message->body.size > limits->message_bytes ||
        !crew_serving_wants(client->protocol, limits, crew_buffer_string(&message->body)))
        return false;
    crew_serving_take(&client->serving, client->protocol, message);
    return true;
}

static void on_reply(struct crew_endpoint *endpoint, crew_message *message)
{
    const crew_limits *limits = &endpoint->options.limits;
    crew_string bytes = crew_buffer_string(&message->body);
    crew_wire_replies replies = { 0 };
    crew_error why = { .message = "it is empty" };
    crew_status status = CREW_MALFORMED;
    if (message->words)
        crew_error_set(&why, status, "%s", message->words);
    else if (bytes.size > limits->message_bytes)
        status = crew_error_set(&why, CREW_LIMIT, "it has more than %zu bytes", limits->message_bytes);
    else if (bytes.size)
        status =
            client_of(endpoint)->protocol->decode_replies(bytes, limits, &message->arena, &replies, &why);
    bool good = status == CREW_OK && replies_are_valid(&replies);
    if (!good && status != CREW_NO_MEMORY && serve(endpoint, message))
        return;
    struct answer *answer = NULL;
    if (status == CREW_OK && replies.count) {
        answer = answer_new(message);
        status = answer ? CREW_OK : CREW_NO_MEMORY;
    }
    if (!answer) {
        on_rubbish(endpoint, message, status == CREW_NO_MEMORY ? "there is no memory for it" : why.message);
        return;
    }
    for (size_t i = 0; i < replies.count; i++)
        on_one_reply(link_of(endpoint), answer, &replies.items[i]);
    answer_release(answer);
}

static void on_stray(struct crew_endpoint *endpoint, crew_message *message)
{
    crew_client *client = client_of(endpoint);
    pthread_mutex_lock(&client->mutex);
    crew_client_count(client, CREW_CLIENT_STRAY_REPLIES);
    pthread_mutex_unlock(&client->mutex);
    crew_message_give(endpoint->messages, message);
}

static void received(struct crew_endpoint *endpoint, crew_list *messages)
{
    for (crew_message *m; (m = crew_list_take(messages));) {
        switch (m->kind) {
        case CREW_EVENT_WRITTEN: on_written(endpoint, m); break;
        case CREW_EVENT_CONFIRMED: on_confirmed(endpoint, m); break;
        case CREW_EVENT_UNROUTABLE: on_not_taken(endpoint, m, CREW_NO_SERVICE, CREW_RETRY_NO_SERVICE); break;
        case CREW_EVENT_REFUSED: on_not_taken(endpoint, m, CREW_OVERLOADED, CREW_RETRY_OVERLOADED); break;
        case CREW_EVENT_TOO_LARGE: on_not_taken(endpoint, m, CREW_LIMIT, 0); break;
        case CREW_EVENT_STRAY: on_stray(endpoint, m); break;
        default: on_reply(endpoint, m); break;
        }
    }
}

/* ---- links ---- */

struct crew_link *crew_client_choose(const crew_client *client, const struct crew_link *but)
{
    struct crew_link *best = NULL;
    bool best_ready = false;
    for (size_t i = 0; i < client->link_count; i++) {
        struct crew_link *link = &client->links[i];
        if (link == but)
            continue;
        bool ready = atomic_load(&link->endpoint.ready);
        if (!best || ready > best_ready || (ready == best_ready && link->due.count < best->due.count)) {
            best = link;
            best_ready = ready;
        }
    }
    return best;
}

/* Puts a call on another link; false without memory: it stays where it was. Under the lock. */
static bool move_call(struct crew_pending *call, struct crew_link *to)
{
    struct crew_link *from = call->link;
    crew_due_remove(&from->due, call);
    bool moved = crew_due_add(&to->due, call) == CREW_OK;
    if (moved)
        call->link = to;
    bool kept = moved || crew_due_add(&from->due, call) == CREW_OK;
    assert(kept); /* its place there is still free */
    (void)kept;
    return moved;
}

/* Hands what waits on a link without a connection to one that has one; under the lock. */
static void move_to_ready_link(struct crew_link *link, crew_list *messages)
{
    crew_client *client = client_of(&link->endpoint);
    struct crew_link *other = crew_client_choose(client, link);
    crew_list all = { 0 }, moved = { 0 };
    if (!other || !atomic_load(&other->endpoint.ready))
        return;
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        struct crew_pending *call = find(client, m->correlation); /* none: an answer, which stays */
        crew_list_append(call && move_call(call, other) ? &moved : messages, m);
    }
    crew_endpoint_push(&other->endpoint, &moved);
}

/* One for which there is no memory is not sent, and its call left to its deadline: without what goes before
 * it it would be another. */
static void write_withs(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        if (m->kind != CREW_MESSAGE_REQUEST || crew_client_write_with(endpoint, m))
            crew_list_append(messages, m);
        else
            crew_message_give(endpoint->messages, m);
    }
}

/* Drops requests whose calls have ended while they waited. */
static void sending(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_client *client = client_of(endpoint);
    struct crew_serving_answers answers = { 0 };
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    pthread_mutex_lock(&client->mutex);
    for (crew_message *m; (m = crew_list_take(&all));) {
        const struct crew_pending *call = find(client, m->correlation);
        if (m->kind == CREW_SETTLE_REPLY ? crew_serving_keeps(endpoint, m, &answers)
                                         : call && !call->cancelled)
            crew_list_append(messages, m);
        else
            crew_message_give(endpoint->messages, m);
    }
    if (client->link_count > 1 && messages->count && !atomic_load(&endpoint->ready))
        move_to_ready_link(link_of(endpoint), messages);
    pthread_mutex_unlock(&client->mutex);
    if (endpoint->ops->has_with && atomic_load(&endpoint->ready))
        write_withs(endpoint, messages);
}

/* The other links may have something waiting for this one. */
static void became_ready(struct crew_endpoint *endpoint)
{
    const crew_client *client = client_of(endpoint);
    for (size_t i = 0; i < client->link_count; i++)
        if (&client->links[i].endpoint != endpoint && atomic_load(&client->links[i].endpoint.started))
            crew_queue_wake(&client->links[i].endpoint.queue);
}

/* Whether another of the client's workers is there, or has not been looked for. Under the lock. */
static bool some_other_may_be_there(const struct crew_link *link)
{
    const crew_client *client = link->endpoint.options.context;
    bool may = false;
    for (size_t i = 0; i < client->link_count; i++)
        may = may || (&client->links[i] != link && !client->links[i].absent);
    return may;
}

/* Whether who serves there may come by itself: then failures to open say nothing of it. */
static bool is_waited_for(const struct crew_endpoint *endpoint)
{
    return endpoint->ops->lazy_open || endpoint->ops->brokered;
}

/* Whether the last try of each of the client's links failed. Under the lock. */
static bool all_are_down(const crew_client *client)
{
    bool down = true;
    for (size_t i = 0; i < client->link_count; i++)
        down = down && client->links[i].down;
    return down;
}

/* Ends calls that were never sent, and do not ask to wait until somebody is there. Under the lock. */
static struct crew_pending *settle_unsent(const struct crew_link *link)
{
    crew_client *client = client_of(&link->endpoint);
    struct crew_pending *ended = NULL;
    for (size_t i = 0; i < client->table.room; i++) {
        struct crew_pending *call = client->table.slots[i];
        bool waits = call && call->link == link && !call->sent_before &&
                     (call->state == CREW_CALL_UNWRITTEN || call->state == CREW_CALL_RETRYING);
        if (!waits || (call->options.retry & CREW_RETRY_NO_SERVICE))
            continue;
        take_out(client, call)->next = ended;
        ended = call;
    }
    return ended;
}

/* The connection is gone. What was written may have been executed; what was not is in unsent, and stays. If
 * there has never been one, nothing serves this endpoint. Under the lock; returns the calls that have ended.
 */
static struct crew_pending *settle(struct crew_link *link, bool of_gone_peers, crew_list *unsent)
{
    crew_client *client = client_of(&link->endpoint);
    bool lost = link->endpoint.ever_open;
    struct crew_pending *ended = NULL;
    if (!lost && some_other_may_be_there(link))
        return NULL;
    for (size_t i = 0; i < client->table.room; i++) {
        struct crew_pending *call = client->table.slots[i];
        if (!call || call->link != link || call->state == CREW_CALL_STARTING)
            continue;
        if (of_gone_peers && (!call->peer || !atomic_load(&call->peer->gone)))
            continue;
        if (lost ? call->state != CREW_CALL_WRITTEN : (call->options.retry & CREW_RETRY_NO_SERVICE) != 0)
            continue;
        if (lost && call->options.idempotent && call->kept && !call->cancelled && spend(client)) {
            call->sent_before = true;
            crew_list_append(unsent, take_kept(call));
            crew_client_count(client, CREW_CLIENT_RESENT);
            continue;
        }
        take_out(client, call)->next = ended;
        ended = call;
    }
    return ended;
}

static void complete_lost(const struct crew_endpoint *endpoint, struct crew_pending *ended, const char *why)
{
    bool lost = endpoint->ever_open;
    char what[400];
    (void)snprintf(what, sizeof what, "%s: %.300s", crew_status_text(CREW_DISCONNECTED), why);
    while (ended) {
        struct crew_pending *call = ended;
        ended = call->next;
        bool was_sent = lost && call->state == CREW_CALL_WRITTEN;
        complete_without(client_of(endpoint), call, was_sent ? CREW_DISCONNECTED : CREW_NO_SERVICE,
                         executed_so_far(call), was_sent ? what : why);
    }
}

/* On the endpoint's thread. */
static void count_up(struct crew_link *link, bool is_up)
{
    if (is_up != link->up)
        crew_client_gauge(client_of(&link->endpoint), CREW_CLIENT_UP, is_up ? 1 : -1);
    link->up = is_up;
}

static void changed(struct crew_endpoint *endpoint, const crew_error *why, crew_list *unsent)
{
    crew_client *client = client_of(endpoint);
    bool is_open = why->status == CREW_OK;
    pthread_mutex_lock(&client->mutex);
    if (why->status == CREW_NO_SERVICE && strcmp(crew_url_scheme(endpoint->url), "back") == 0)
        endpoint->ever_open = false; /* a peer that has gone does not come again */
    struct crew_link *link = link_of(endpoint);
    struct crew_pending *ended = NULL;
    link->absent = !is_open && !endpoint->ever_open;
    link->down = !is_open && !link->up;
    if (!is_open && (link->up || is_waited_for(endpoint)))
        ended = settle(link, false, unsent);
    else if (all_are_down(client))
        ended = settle_unsent(link);
    pthread_mutex_unlock(&client->mutex);
    crew_change change = is_open    ? CREW_ENDPOINT_OPENED
                         : link->up ? CREW_ENDPOINT_LOST
                                    : CREW_ENDPOINT_FAILED;
    crew_client_tell_change(link, change, is_open ? NULL : why->message);
    count_up(link, is_open);
    complete_lost(endpoint, ended, why->message);
}

/* One worker of several behind a connection has gone. */
static void settle_gone(struct crew_endpoint *endpoint)
{
    crew_client *client = client_of(endpoint);
    crew_list again = { 0 };
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *ended = settle(link_of(endpoint), true, &again);
    pthread_mutex_unlock(&client->mutex);
    crew_list_move(&again, &endpoint->outgoing); /* in front of what waits */
    endpoint->outgoing = again;
    complete_lost(endpoint, ended, "the worker that had it has gone");
}

static void gone(struct crew_endpoint *endpoint, crew_peer *peer)
{
    (void)peer;
    settle_gone(endpoint);
}

/* ---- time ---- */

int64_t crew_client_due(const struct crew_pending *call)
{
    int64_t half = (call->deadline_ms - call->started_ms) / 2;
    bool asks = call->link->endpoint.ops->silence && !call->options.one_way;
    return call->deadline_ms - (!asks ? 0 : half < INQUIRY_MS ? half : INQUIRY_MS);
}

static const char *silence(const struct crew_endpoint *endpoint)
{
    return endpoint->open && endpoint->ops->silence ? endpoint->ops->silence(endpoint->connection->state)
                                                    : NULL;
}

/* The time of a retry has come. Where there is another worker, it is that one's turn. Under the lock. */
static void try_again(struct crew_endpoint *endpoint, struct crew_pending *call)
{
    crew_client *client = client_of(endpoint);
    struct crew_link *other = crew_client_choose(client, call->link);
    crew_list one = { 0 };
    crew_list_append(&one, take_kept(call));
    crew_client_count(client, CREW_CLIENT_RETRIED);
    if (!other || !atomic_load(&other->endpoint.ready) || !move_call(call, other)) {
        crew_list_move(&endpoint->outgoing, &one);
        return;
    }
    crew_endpoint_push(&other->endpoint, &one);
}

/* A call is due. Returns it, taken out, if it has ended; else it is tried again, or asked after. Under the
 * lock. */
static struct crew_pending *end_or_go_on(struct crew_endpoint *endpoint, struct crew_pending *call)
{
    crew_client *client = client_of(endpoint);
    if (call->cancelled || call->due_ms >= call->deadline_ms)
        return take_out(client, call);
    call->due_ms = call->deadline_ms;
    crew_due_update(&call->link->due, call);
    if (call->state == CREW_CALL_RETRYING)
        try_again(endpoint, call);
    else if (call->state == CREW_CALL_WRITTEN)
        (void)silence(endpoint);
    return NULL;
}

static void complete_late(struct crew_endpoint *endpoint, struct crew_pending *call)
{
    bool down = link_of(endpoint)->down && !is_waited_for(endpoint);
    bool nobody = call->backoff_ms || down ||
                  (endpoint->open ? endpoint->ops->lazy_open && !endpoint->was_ready : !endpoint->ever_open);
    crew_status status = CREW_TIMEOUT;
    if (call->state != CREW_CALL_WRITTEN)
        status = nobody ? CREW_NO_SERVICE : CREW_EXPIRED;
    const char *reason = status == CREW_TIMEOUT ? silence(endpoint) : NULL;
    if (!reason && status != CREW_TIMEOUT && !endpoint->open && *endpoint->last_failure.message)
        reason = endpoint->last_failure.message; /* why it is not, by the last try */
    char what[400];
    if (reason)
        (void)snprintf(what, sizeof what, "%s (%.300s)", crew_status_text(status), reason);
    complete_without(client_of(endpoint), call, status, executed_so_far(call), reason ? what : NULL);
}

static int due(struct crew_endpoint *endpoint)
{
    crew_client *client = client_of(endpoint);
    if (link_of(endpoint)->observers_told != atomic_load(&client->observer_count))
        crew_client_tell_newcomers(link_of(endpoint));
    for (;;) {
        int64_t now = crew_now_ms();
        struct crew_pending *ended = NULL;
        pthread_mutex_lock(&client->mutex);
        struct crew_pending *first = crew_due_first(&link_of(endpoint)->due);
        int64_t left = first ? first->due_ms - now : 0;
        if (first && left <= 0)
            ended = end_or_go_on(endpoint, first);
        pthread_mutex_unlock(&client->mutex);
        if (!first)
            return -1;
        if (left > 0)
            return left > 60000 ? 60000 : (int)left;
        if (ended)
            complete_late(endpoint, ended);
    }
}

/* ---- the end ---- */

/* What is outstanding when the client is freed is cancelled. Completions cannot start new calls any more. */
static void closed(struct crew_endpoint *endpoint)
{
    crew_client *client = client_of(endpoint);
    crew_client_tell_change(link_of(endpoint), CREW_ENDPOINT_CLOSED, NULL);
    count_up(link_of(endpoint), false);
    for (;;) {
        pthread_mutex_lock(&client->mutex);
        struct crew_pending *call = crew_due_first(&link_of(endpoint)->due);
        if (call)
            take_out(client, call);
        pthread_mutex_unlock(&client->mutex);
        if (!call)
            return;
        complete_without(client, call, CREW_CANCELLED, CREW_EXECUTED_UNKNOWN, NULL);
    }
}

/* Enough for a burst, and no more than lets deadlines be kept. */
static crew_room room(struct crew_endpoint *endpoint)
{
    (void)endpoint;
    return (crew_room){ .messages = ROUND_MESSAGES, .bytes = ROUND_BYTES };
}

static bool idle(struct crew_endpoint *endpoint)
{
    (void)endpoint;
    return true;
}

const struct crew_endpoint_owner crew_client_owner = {
    .room = room,
    .received = received,
    .sending = sending,
    .gone = gone,
    .ready = became_ready,
    .changed = changed,
    .due = due,
    .idle = idle,
    .closed = closed,
};
