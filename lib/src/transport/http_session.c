/* Each request has an exchange, in a queue: what is answered before its turn is kept until then (RFC 9112,
 * section 9.3.2). A refusal that leaves the rest of its request unread ends the connection. */
#include "transport/http_session.h"

#include "transport/ws_session.h"

#include <stdlib.h>

enum {
    EXCHANGES_MOST = 64,       /* of a connection, before it is read on */
    DISCARDED_MOST = 64 << 10, /* of a refused body that is read, so that the connection can go on */
};

struct exchange {
    struct exchange *next;
    struct http_asker asker;
    bool answered;
    crew_message *message; /* whose answer is in bytes; NULL: it was answered here */
    crew_buffer bytes;     /* the answer, before its turn */
};

struct session {
    struct http_message in;
    struct http_verdict verdict; /* on it, once its head is there */
    struct exchange *first, **last;
    size_t count;
    bool begun;         /* in is */
    bool owes_continue; /* 100, when its turn is */
    bool broken;        /* an answer was lost: what came behind it would be taken for it */
};

static struct http_shared *shared_of(const struct stream *s)
{
    return s->set->shared;
}

/* ---- life ---- */

static struct session *session_of(struct stream *s)
{
    struct session *h = s->state;
    if (!h) {
        h = s->state = calloc(1, sizeof *h);
        if (h)
            h->last = &h->first;
    }
    return h;
}

static void begin(const struct stream *s, struct session *h)
{
    struct http_shared *shared = shared_of(s);
    http_begin(&h->in, HTTP_REQUEST, shared->rules.head_most, shared->rules.body_most);
    h->verdict = (struct http_verdict){ .wish = HTTP_REFUSED };
    h->in.head = shared->head;
    h->in.body = shared->body;
    shared->head = shared->body = (crew_buffer){ 0 };
    h->begun = true;
}

static void keep_spare(crew_buffer *spare, crew_buffer *used)
{
    crew_buffer_clear(used);
    if (!spare->capacity) {
        *spare = *used;
        *used = (crew_buffer){ 0 };
    }
}

/* The request that was read is done with. */
static void conclude(struct stream *s, struct session *h)
{
    struct http_shared *shared = shared_of(s);
    keep_spare(&shared->head, &h->in.head);
    keep_spare(&shared->body, &h->in.body);
    http_end(&h->in);
    h->begun = h->owes_continue = false;
    stream_keep(s, 0);
}

static void pop(struct session *h)
{
    struct exchange *e = h->first;
    h->first = e->next;
    if (!h->first)
        h->last = &h->first;
    h->count--;
    crew_buffer_fini(&e->bytes);
    http_asker_fini(&e->asker);
    free(e);
}

/* Nobody reads answers any more. */
static void drop(struct stream *s)
{
    struct session *h = s->state;
    if (!h)
        return;
    stream_keep_answers(s, 0);
    for (; h->first; pop(h)) {
        crew_message *m = h->first->message;
        if (!m)
            continue;
        crew_transport_answered(s->set->config, m, CREW_DISCONNECTED);
        crew_message_give(s->set->config->messages, m);
    }
}

static void end(struct stream *s)
{
    struct session *h = s->state;
    if (!h)
        return;
    drop(s); /* which leaves nothing */
    http_end(&h->in);
    free(h);
    s->state = NULL;
}

/* NULL without memory. */
static struct exchange *add_exchange(struct session *h)
{
    struct exchange *e = calloc(1, sizeof *e);
    if (!e || !http_ask(&e->asker, &h->in, &h->verdict)) {
        free(e);
        return NULL;
    }
    *h->last = e;
    h->last = &e->next;
    h->count++;
    return e;
}

/* ---- answers ---- */

/* An answer is lost: nothing more is said, lest the next one be taken for it. */
static crew_status lose(struct stream *s, struct session *h)
{
    h->broken = true;
    stream_refuse(s);
    return CREW_NO_MEMORY;
}

/* Tells a client that waits for it to go on, if it is its turn. */
static crew_status put_continue(struct stream *s, struct session *h)
{
    if (h->first || !h->owes_continue)
        return CREW_OK;
    h->owes_continue = false;
    crew_buffer_text(stream_output(s), "HTTP/1.1 100 Continue\r\n\r\n");
    return stream_queued(s) == CREW_OK ? CREW_OK : lose(s, h);
}

/* Puts what has its turn now. */
static crew_status put_ready(struct stream *s, struct session *h, crew_list *done)
{
    while (h->first && h->first->answered) {
        struct exchange *e = h->first;
        crew_buffer_append(stream_output(s), e->bytes.data, e->bytes.size);
        if (stream_queued(s) != CREW_OK)
            return lose(s, h);
        if (e->message) {
            e->message->number = s->queued_bytes;
            crew_list_append(done, e->message);
        }
        stream_keep_answers(s, s->kept_answers - e->bytes.size);
        pop(h);
    }
    s->waits = h->count >= EXCHANGES_MOST;
    return put_continue(s, h);
}

/* Where an exchange's answer is written to. */
static crew_buffer *answer_place(struct stream *s, struct exchange *e)
{
    const struct session *h = s->state;
    return e == h->first ? stream_output(s) : &e->bytes;
}

/* It has been written there: it goes now, or when its turn is. message: whose answer it is; NULL: our own. */
static crew_status settle(struct stream *s, struct exchange *e, crew_message *message, crew_list *done)
{
    struct session *h = s->state;
    bool first = e == h->first;
    if (first ? stream_queued(s) != CREW_OK : e->bytes.failed)
        return lose(s, h);
    if (!first) {
        e->answered = true;
        e->message = message;
        if (message)
            crew_buffer_fini(&message->reply); /* it has been written */
        stream_keep_answers(s, s->kept_answers + e->bytes.size);
        s->waits = h->count >= EXCHANGES_MOST;
        return CREW_OK;
    }
    if (message) {
        message->number = s->queued_bytes;
        crew_list_append(done, message);
    }
    pop(h);
    (void)!put_ready(s, h, done); /* the others' affair */
    return CREW_OK;
}

static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    const struct session *h = s->state;
    struct exchange *e = m->mine;
    if (h->broken)
        return CREW_DISCONNECTED;
    http_write_answer(shared_of(s), &e->asker, m, answer_place(s, e));
    return settle(s, e, m, done);
}

/* ---- requests ---- */

/* Answers by ourselves what has been read. */
static enum stream_found answer_here(struct stream *s, struct session *h)
{
    struct exchange *e = add_exchange(h);
    bool closes = e && !e->asker.keeps_alive;
    if (e)
        http_write_own(shared_of(s), &e->asker, &h->verdict, answer_place(s, e));
    conclude(s, h);
    crew_list none = { 0 }; /* what is behind this one is not answered yet */
    if (!e || settle(s, e, NULL, &none) != CREW_OK)
        (void)lose(s, h);
    if (closes)
        stream_refuse(s);
    return STREAM_SKIPPED;
}

/* What cannot be read any further. */
static enum stream_found refuse(struct stream *s, struct session *h, unsigned status, const char *words)
{
    h->verdict.wish = HTTP_REFUSED;
    h->verdict.status = status;
    h->verdict.words = words;
    h->in.keeps_alive = false;
    return answer_here(s, h);
}

/* The head is there: whether its body is waited for. */
static bool goes_on(struct stream *s, struct session *h)
{
    struct http_message *in = &h->in;
    http_judge(&shared_of(s)->rules, in, &h->verdict);
    bool asks = http_list_has(http_field(in, "expect"), "100-continue") && in->parser.http_minor;
    if (h->verdict.wish == HTTP_CALLS) {
        h->owes_continue = asks;
        return put_continue(s, h) == CREW_OK;
    }
    in->discards = true;
    bool is_small = !in->chunked && (in->length == UINT64_MAX || in->length <= DISCARDED_MOST);
    bool comes = is_small && !(asks && in->length);
    if (!comes && h->verdict.wish != HTTP_REFUSED) {
        h->verdict.status = 400;
        h->verdict.words = "a body that nobody wants";
    }
    return comes;
}

static enum stream_found found_whole(struct stream *s, struct session *h, struct stream_span *span)
{
    switch (h->verdict.wish) {
    case HTTP_CALLS:
    case HTTP_DISCOVERS: *span = (struct stream_span){ .size = h->in.body.size }; return STREAM_MESSAGE;
    case HTTP_UPGRADES:
        if (h->first)
            return refuse(s, h, 400, "an upgrade behind requests that have not been answered");
        return ws_accept(s, &h->in, end);
    default: return answer_here(s, h);
    }
}

static enum stream_found find(struct stream *s, struct stream_span *span)
{
    struct session *h = session_of(s);
    if (!h || h->broken) {
        stream_refuse(s);
        return STREAM_MORE;
    }
    for (;;) {
        size_t taken;
        crew_string bytes = stream_input(s);
        s->partial = h->begun && h->in.begun;
        if (!bytes.size && !(s->ended && s->partial))
            return STREAM_MORE;
        if (!h->begun)
            begin(s, h);
        enum http_event event = http_read(&h->in, bytes, s->ended, &taken);
        stream_skip(s, taken);
        stream_keep(s, h->in.head.size + h->in.body.size);
        if (event == HTTP_BAD)
            return refuse(s, h, s->ended && s->refused ? 408 : h->in.status, h->in.why);
        if (event == HTTP_WHOLE)
            return found_whole(s, h, span);
        if (event == HTTP_HEAD_READ && !goes_on(s, h))
            return h->broken ? STREAM_SKIPPED : refuse(s, h, h->verdict.status, h->verdict.words);
    }
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    struct session *h = s->state;
    struct exchange *e = add_exchange(h);
    (void)span;
    crew_status status = e ? http_give(&e->asker, &h->verdict, &h->in, m) : CREW_NO_MEMORY;
    if (status != CREW_OK)
        return status;
    m->mine = e;
    conclude(s, h);
    if (!e->asker.keeps_alive)
        stream_refuse(s);
    s->waits = h->count >= EXCHANGES_MOST;
    return CREW_OK;
}

/* A head that has not been read may ask how the worker is. */
static bool looks_ahead(const struct stream *s)
{
    const struct session *h = s->state;
    return !h || (!h->broken && !(h->begun && h->in.has_head));
}

const struct stream_session stream_http = {
    .looks_ahead = looks_ahead, .find = find, .take = take, .answer = answer, .drop = drop, .end = end
};
