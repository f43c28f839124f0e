/* Each request has an exchange, in a queue: what is answered before its turn is kept until then (RFC 9112,
 * section 9.3.2). A refusal that leaves the rest of its request unread ends the connection. */
#include "transport/http_session.h"

#include "core/json.h"
#include "core/utf8.h"
#include "transport/ws_session.h"

#include <rpcrew/page.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    EXCHANGES_MOST = 64,       /* of a connection, before it is read on */
    DISCARDED_MOST = 64 << 10, /* of a refused body that is read, so that the connection can go on */
    SMALL_BODY = 4 << 10,      /* is copied, so that its buffer stays with the endpoint */
    FIELDS_MOST = 100,         /* for crew_call_headers */
    TIMEOUT_MOST_MS = 1 << 30
};

static const char json[] = "application/json";

/* The page asks nobody but us for anything, and is in nobody's frame. */
static const char page_fields[] =
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "Cache-Control: no-cache\r\nReferrer-Policy: no-referrer\r\n";

struct exchange {
    struct exchange *next;
    enum http_wish wish;
    bool keeps_alive, old /* HTTP/1.0 */, head_only;
    char *origin; /* to be named in the answer; or NULL */
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

void http_shared_fini(struct http_shared *shared)
{
    crew_buffer_fini(&shared->head);
    crew_buffer_fini(&shared->body);
}

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
    h->begun = false;
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
    free(e->origin);
    free(e);
}

static void end(struct stream *s)
{
    struct session *h = s->state;
    if (!h)
        return;
    while (h->first)
        pop(h);
    http_end(&h->in);
    free(h);
    s->state = NULL;
}

/* NULL without memory. */
static struct exchange *add_exchange(struct session *h)
{
    struct exchange *e = calloc(1, sizeof *e);
    const char *origin = h->verdict.origin;
    if (e && origin && !(e->origin = strdup(origin))) {
        free(e);
        e = NULL;
    }
    if (!e)
        return NULL;
    e->wish = h->verdict.wish;
    e->keeps_alive = h->in.keeps_alive;
    e->old = h->in.has_head && !h->in.parser.http_minor;
    e->head_only = h->in.method && strcmp(h->in.method, "HEAD") == 0;
    *h->last = e;
    h->last = &e->next;
    h->count++;
    return e;
}

/* ---- answers ---- */

static void write_date(struct http_shared *shared, crew_buffer *out)
{
    time_t now = time(NULL);
    struct tm parts;
    if (now != shared->dated_s && gmtime_r(&now, &parts)) {
        shared->dated_s = now;
        (void)strftime(shared->date, sizeof shared->date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
    }
    crew_buffer_text(out, shared->date);
}

static void write_number(size_t number, crew_buffer *out)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    crew_buffer_append(out, digits + at, sizeof digits - at);
}

struct reply {
    unsigned status;
    const char *type; /* NULL: it has no body */
    const char *more; /* fields; NULL: none */
    crew_string body;
};

static void write_reply(struct stream *s, const struct exchange *e, const struct reply *reply,
                        crew_buffer *out)
{
    if (reply->status == 200) {
        crew_buffer_text(out, "HTTP/1.1 200 OK\r\n");
    } else {
        crew_buffer_text(out, "HTTP/1.1 ");
        write_number(reply->status, out);
        crew_buffer_text(out, " ");
        crew_buffer_text(out, http_status_text(reply->status));
        crew_buffer_text(out, "\r\n");
    }
    write_date(shared_of(s), out);
    if (reply->type) {
        crew_buffer_text(out, "Content-Type: ");
        crew_buffer_text(out, reply->type);
        crew_buffer_text(out, "\r\nX-Content-Type-Options: nosniff\r\n");
    }
    if (reply->status != 204) {
        crew_buffer_text(out, "Content-Length: ");
        write_number(reply->body.size, out);
        crew_buffer_text(out, "\r\n");
    }
    if (reply->more)
        crew_buffer_text(out, reply->more);
    if (e->origin) {
        crew_buffer_text(out, "Access-Control-Allow-Origin: ");
        crew_buffer_text(out, e->origin);
        crew_buffer_text(out, "\r\nVary: Origin\r\n");
    }
    if (!e->keeps_alive)
        crew_buffer_text(out, "Connection: close\r\n");
    else if (e->old)
        crew_buffer_text(out, "Connection: keep-alive\r\n");
    crew_buffer_text(out, "\r\n");
    if (!e->head_only)
        crew_buffer_append(out, reply->body.data, reply->body.size);
}

/* An answer is lost: nothing more is said, lest the next one be taken for it. */
static crew_status lose(struct stream *s, struct session *h)
{
    h->broken = true;
    stream_refuse(s);
    return CREW_NO_MEMORY;
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
    if (!h->first && h->owes_continue) {
        h->owes_continue = false;
        crew_buffer_text(stream_output(s), "HTTP/1.1 100 Continue\r\n\r\n");
        if (stream_queued(s) != CREW_OK)
            return lose(s, h);
    }
    s->waits = h->count >= EXCHANGES_MOST;
    return CREW_OK;
}

/* Answers an exchange: now, or when its turn is. message: whose answer it is; NULL: our own. */
static crew_status settle(struct stream *s, struct exchange *e, const struct reply *reply,
                          crew_message *message, crew_list *done)
{
    struct session *h = s->state;
    bool first = e == h->first;
    write_reply(s, e, reply, first ? stream_output(s) : &e->bytes);
    if (first ? stream_queued(s) != CREW_OK : e->bytes.failed)
        return lose(s, h);
    if (!first) {
        e->answered = true;
        e->message = message;
        stream_keep_answers(s, s->kept_answers + e->bytes.size);
        return CREW_OK;
    }
    if (message) {
        message->number = s->queued_bytes;
        crew_list_append(done, message);
    }
    pop(h);
    return put_ready(s, h, done);
}

static const char why_not_run[] = "the worker could not take it: it was not executed";

static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    struct session *h = s->state;
    struct exchange *e = m->mine;
    crew_buffer body = { 0 };
    struct reply reply = { .status = 200, .type = json };
    if (h->broken)
        return CREW_DISCONNECTED;
    if (m->kind == CREW_SETTLE_REPLY) {
        reply.type = m->content_type;
        reply.body = crew_buffer_string(&m->reply);
        if (e->wish == HTTP_DISCOVERS && crew_json_extract(reply.body, "result", &body) == CREW_OK)
            reply.body = crew_buffer_string(&body);
    } else if (m->kind == CREW_SETTLE_DONE && m->status == CREW_OK) {
        reply.status = shared_of(s)->rules.notify_status;
        reply.type = NULL;
    } else {
        reply.status = m->status == CREW_NO_MEMORY ? 500 : 503;
        http_error_body(reply.status, why_not_run, &body);
        reply.body = crew_buffer_string(&body);
    }
    crew_status status = body.failed ? lose(s, h) : settle(s, e, &reply, m, done);
    crew_buffer_fini(&body);
    return status;
}

/* ---- requests ---- */

/* Answers by ourselves what has been read. */
static enum stream_found answer_here(struct stream *s, struct session *h)
{
    const struct http_verdict *v = &h->verdict;
    crew_buffer body = { 0 };
    struct reply reply = { .status = v->status, .type = json };
    struct exchange *e = add_exchange(h);
    bool closes = e && !e->keeps_alive;
    if (v->wish == HTTP_SEES) {
        reply = (struct reply){ .status = 200, .type = "text/html; charset=utf-8", .more = page_fields };
        reply.body = crew_page();
    } else if (v->wish == HTTP_ASKS) {
        reply = (struct reply){ .status = 204, .more = "Allow: GET, HEAD, OPTIONS, POST\r\n" };
        if (v->origin)
            reply.more = "Allow: GET, HEAD, OPTIONS, POST\r\n"
                         "Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
                         "Access-Control-Allow-Headers: Authorization, Content-Type, Rpcrew-Timeout-Ms\r\n"
                         "Access-Control-Max-Age: 600\r\n";
    } else {
        http_error_body(v->status, v->words, &body);
        reply.body = crew_buffer_string(&body);
        if (v->status == 405)
            reply.more = "Allow: GET, HEAD, OPTIONS, POST\r\n";
        else if (v->status == 426)
            reply.more = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
    }
    conclude(s, h);
    if (!e || body.failed || settle(s, e, &reply, NULL, NULL) != CREW_OK)
        (void)lose(s, h);
    if (closes)
        stream_refuse(s);
    crew_buffer_fini(&body);
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
        return put_ready(s, h, NULL) == CREW_OK;
    }
    in->discards = true;
    bool is_small = !in->chunked && (in->length == UINT64_MAX || in->length <= DISCARDED_MOST);
    return is_small && !(asks && in->length);
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

/* ---- calls ---- */

/* The fields of the head as an object: for handlers. What is no UTF-8 is left out. */
static crew_status read_fields(const struct http_message *in, crew_message *m)
{
    crew_value *fields;
    size_t count = 0;
    crew_status status = crew_object_new(&m->arena, &fields);
    for (struct http_field f = { 0 }; status == CREW_OK && count < FIELDS_MOST && http_next_field(in, &f);) {
        const crew_value *value;
        if (!crew_utf8_valid(f.value))
            continue;
        count++;
        crew_string copy = crew_arena_string(&m->arena, f.name);
        status = copy.data ? crew_pack(&m->arena, &value, "S", f.value) : CREW_NO_MEMORY;
        if (status == CREW_OK)
            status = crew_object_add(&m->arena, fields, copy, value);
    }
    m->headers = fields;
    return status;
}

static int64_t deadline_of(const struct http_message *in)
{
    const char *text = http_field(in, "rpcrew-timeout-ms");
    char *stop;
    long long ms = text ? strtoll(text, &stop, 10) : -1;
    if (!text || ms < 0 || *stop || stop == text)
        return 0;
    return crew_now_ms() + (ms < TIMEOUT_MOST_MS ? ms : TIMEOUT_MOST_MS);
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    static const char discover[] = "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.discover\",\"id\":1}";
    struct session *h = s->state;
    struct exchange *e = add_exchange(h);
    (void)span;
    crew_status status = e ? read_fields(&h->in, m) : CREW_NO_MEMORY;
    if (status != CREW_OK)
        return status;
    m->mine = e;
    m->deadline_ms = deadline_of(&h->in);
    m->content_type = h->verdict.content_type;
    if (e->wish == HTTP_DISCOVERS) {
        m->content_type = json;
        crew_buffer_text(&m->body, discover);
    } else if (h->in.body.size <= SMALL_BODY) {
        crew_buffer_append(&m->body, h->in.body.data, h->in.body.size);
    } else {
        crew_buffer own = m->body;
        m->body = h->in.body;
        h->in.body = own;
    }
    conclude(s, h);
    if (!e->keeps_alive)
        stream_refuse(s);
    s->waits = h->count >= EXCHANGES_MOST;
    return CREW_OK;
}

const struct stream_session stream_http = { .find = find, .take = take, .answer = answer, .end = end };
