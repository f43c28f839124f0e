/* Requests of the role of a responder. A second one beside another over the same connection is refused, which
 * the protocol has a status for: no server is known to send any. */
#include "transport/fcgi_session.h"

#include "transport/cgi_request.h"
#include "transport/http_reply.h"

#include <stdlib.h>

enum {
    HEAD_SIZE = 8,
    RECORD_MOST = 65528, /* of content, so that records need no padding */
    KEEP_CONNECTION = 1,
    RESPONDER = 1
};

enum type {
    BEGIN_REQUEST = 1,
    ABORT_REQUEST,
    END_REQUEST,
    PARAMS,
    STDIN,
    STDOUT,
    STDERR,
    DATA,
    GET_VALUES,
    GET_VALUES_RESULT,
    UNKNOWN_TYPE
};

enum outcome { COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE };

struct record {
    uint8_t type;
    uint16_t id;
    const char *content;
    size_t size;
};

struct session {
    uint16_t id;         /* of the request; 0: there is none */
    bool keeps;          /* the connection, behind it */
    bool judged;         /* its params are there */
    bool whole;          /* all of it is */
    bool taken;          /* it is with the core */
    bool overflows;      /* its params do */
    uint64_t body_bytes; /* that have come */
    uint64_t serial;     /* of it: an answer may be to one that was aborted */
    crew_buffer variables;
    struct http_message in;
    struct http_verdict verdict;
    struct http_asker asker;
};

static struct http_shared *shared_of(const struct stream *s)
{
    return s->set->shared;
}

static struct session *session_of(struct stream *s)
{
    if (!s->state)
        s->state = calloc(1, sizeof(struct session));
    return s->state;
}

/* The request is done with. */
static void conclude(struct stream *s, struct session *f)
{
    http_asker_fini(&f->asker);
    http_end(&f->in);
    crew_buffer_fini(&f->variables);
    *f = (struct session){ .serial = f->serial + 1 };
    stream_keep(s, 0);
    s->waits = false;
}

static void end(struct stream *s)
{
    if (!s->state)
        return;
    conclude(s, s->state);
    free(s->state);
    s->state = NULL;
}

/* ---- writing ---- */

static void write_record(enum type type, uint16_t id, crew_string content, crew_buffer *out)
{
    const unsigned char head[HEAD_SIZE] = {
        1,
        (unsigned char)type,
        (unsigned char)(id >> 8),
        (unsigned char)id,
        (unsigned char)(content.size >> 8),
        (unsigned char)content.size,
    };
    crew_buffer_append(out, head, sizeof head);
    crew_buffer_append(out, content.data, content.size);
}

static void write_end(uint16_t id, enum outcome outcome, crew_buffer *out)
{
    const char content[8] = { [4] = (char)outcome };
    write_record(END_REQUEST, id, (crew_string){ content, sizeof content }, out);
}

/* Puts the answer to the request, which is done with then; false without memory. */
static bool put_answer(struct stream *s, struct session *f, const crew_buffer *answer)
{
    crew_buffer *out = stream_output(s);
    for (size_t at = 0; at < answer->size; at += RECORD_MOST) {
        size_t left = answer->size - at;
        write_record(STDOUT, f->id,
                     (crew_string){ answer->data + at, left < RECORD_MOST ? left : RECORD_MOST }, out);
    }
    write_record(STDOUT, f->id, (crew_string){ "", 0 }, out);
    write_end(f->id, COMPLETE, out);
    bool keeps = f->keeps;
    conclude(s, f);
    if (answer->failed)
        out->failed = true;
    bool good = stream_queued(s) == CREW_OK;
    if (!keeps || !good)
        stream_refuse(s);
    return good;
}

static void answer_here(struct stream *s, struct session *f)
{
    crew_buffer answer = { 0 };
    if (http_ask(&f->asker, &f->in, &f->verdict))
        http_write_own(shared_of(s), &f->asker, &f->verdict, &answer);
    else
        answer.failed = true;
    (void)put_answer(s, f, &answer);
    crew_buffer_fini(&answer);
}

static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    struct session *f = s->state;
    crew_buffer answer = { 0 };
    if (!f->taken || m->number != f->serial) /* it was aborted */
        return CREW_DISCONNECTED;
    http_write_answer(shared_of(s), &f->asker, m, &answer);
    bool good = put_answer(s, f, &answer);
    crew_buffer_fini(&answer);
    if (!good)
        return CREW_NO_MEMORY;
    m->number = s->queued_bytes;
    crew_list_append(done, m);
    return CREW_OK;
}

/* ---- reading ---- */

static bool read_size(crew_string bytes, size_t *at, size_t *size)
{
    const unsigned char *b = (const unsigned char *)bytes.data + *at;
    size_t left = bytes.size - *at;
    if (!left || (*b & 0x80 && left < 4))
        return false;
    bool is_long = *b & 0x80;
    *size = is_long ? (size_t)(b[0] & 0x7f) << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3] : *b;
    *at += is_long ? 4 : 1;
    return true;
}

/* Pairs of name and value, with NULs behind them; false: they are none. */
static bool spread(crew_string pairs, crew_buffer *out)
{
    for (size_t at = 0; at < pairs.size;) {
        size_t name, value;
        if (!read_size(pairs, &at, &name) || !read_size(pairs, &at, &value) || name > pairs.size - at ||
            value > pairs.size - at - name || memchr(pairs.data + at, '\0', name + value))
            return false;
        crew_buffer_append(out, pairs.data + at, name);
        crew_buffer_append(out, "", 1);
        crew_buffer_append(out, pairs.data + at + name, value);
        crew_buffer_append(out, "", 1);
        at += name + value;
    }
    return true;
}

static void refuse(struct session *f, unsigned status, const char *why)
{
    f->verdict = (struct http_verdict){ .wish = HTTP_REFUSED, .status = status, .words = why };
}

/* The params are there. */
static void judge(struct stream *s, struct session *f)
{
    crew_buffer variables = { 0 };
    f->judged = true;
    bool good = spread(crew_buffer_string(&f->variables), &variables);
    http_begin(&f->in, HTTP_REQUEST, 0, shared_of(s)->rules.body_most);
    if (f->overflows)
        refuse(f, 431, "params that are too large");
    else if (!good)
        refuse(f, 400, "params that are none");
    else if (cgi_read_request(&f->in, crew_buffer_string(&variables)))
        http_judge(&shared_of(s)->rules, &f->in, &f->verdict);
    else
        refuse(f, f->in.why ? f->in.status : 500, f->in.why ? f->in.why : "no memory");
    f->in.discards = f->verdict.wish != HTTP_CALLS;
    crew_buffer_fini(&variables);
    crew_buffer_fini(&f->variables);
}

static void take_params(struct stream *s, struct session *f, const struct record *r)
{
    if (!r->size)
        judge(s, f);
    else if (f->variables.size + r->size > shared_of(s)->rules.head_most)
        f->overflows = true;
    else
        crew_buffer_append(&f->variables, r->content, r->size);
}

static void take_body(struct stream *s, struct session *f, const struct record *r)
{
    if (!r->size || !f->judged) {
        if (!f->judged)
            refuse(f, 400, "a body before its params");
        else if (f->in.length != UINT64_MAX && f->in.length != f->body_bytes &&
                 f->verdict.wish != HTTP_REFUSED)
            refuse(f, 400, "a body of another size than CONTENT_LENGTH says");
        f->judged = f->whole = true;
        return;
    }
    f->body_bytes += r->size;
    if (!f->in.discards && f->in.body.size + r->size > shared_of(s)->rules.body_most) {
        refuse(f, 413, "a body that is too large");
        f->in.discards = true;
        crew_buffer_fini(&f->in.body);
    }
    if (!f->in.discards)
        crew_buffer_append(&f->in.body, r->content, r->size);
}

static void begin_request(struct stream *s, struct session *f, const struct record *r)
{
    const unsigned char *content = (const unsigned char *)r->content;
    bool is_one = r->size == 8 && r->id;
    enum outcome outcome = f->id                                              ? CANT_MPX_CONN
                           : !is_one || content[0] || content[1] != RESPONDER ? UNKNOWN_ROLE
                                                                              : COMPLETE;
    if (outcome != COMPLETE) {
        write_end(r->id, outcome, stream_output(s));
        (void)!stream_queued(s);
        return;
    }
    f->id = r->id;
    f->keeps = content[2] & KEEP_CONNECTION;
}

/* What servers may ask for. */
static void tell_values(struct stream *s)
{
    static const char values[] = "\x0f\x01"
                                 "FCGI_MPXS_CONNS"
                                 "0";
    write_record(GET_VALUES_RESULT, 0, (crew_string){ values, sizeof values - 1 }, stream_output(s));
    (void)!stream_queued(s);
}

static void abort_request(struct stream *s, struct session *f)
{
    bool keeps = f->keeps;
    write_end(f->id, COMPLETE, stream_output(s));
    (void)!stream_queued(s);
    conclude(s, f);
    if (!keeps)
        stream_refuse(s);
}

static void take_record(struct stream *s, struct session *f, const struct record *r)
{
    const char unknown[8] = { (char)r->type };
    bool is_ours = f->id && r->id == f->id;
    if (!r->id && r->type == GET_VALUES) {
        tell_values(s);
    } else if (!r->id) {
        write_record(UNKNOWN_TYPE, 0, (crew_string){ unknown, sizeof unknown }, stream_output(s));
        (void)!stream_queued(s);
    } else if (r->type == BEGIN_REQUEST) {
        begin_request(s, f, r);
    } else if (is_ours && r->type == ABORT_REQUEST) {
        abort_request(s, f);
    } else if (is_ours && r->type == PARAMS && !f->judged) {
        take_params(s, f, r);
    } else if (is_ours && r->type == STDIN && !f->whole) {
        take_body(s, f, r);
    } /* others are of requests that are over */
}

/* The record that is there, with its padding: false: it is not. */
static bool next_record(crew_string bytes, struct record *r, size_t *size)
{
    const unsigned char *b = (const unsigned char *)bytes.data;
    if (bytes.size < HEAD_SIZE)
        return false;
    *r = (struct record){ .type = b[1],
                          .id = (uint16_t)(b[2] << 8 | b[3]),
                          .size = (size_t)(b[4] << 8 | b[5]) };
    r->content = bytes.data + HEAD_SIZE;
    *size = HEAD_SIZE + r->size + b[6];
    return bytes.size >= *size;
}

static enum stream_found find(struct stream *s, struct stream_span *span)
{
    struct session *f = session_of(s);
    struct record r;
    size_t size;
    crew_string bytes = stream_input(s);
    if (!f || (bytes.size && *bytes.data != 1)) { /* another version, or none of this protocol */
        stream_refuse(s);
        return STREAM_MORE;
    }
    if (next_record(bytes, &r, &size)) {
        take_record(s, f, &r);
        if (!s->refused)
            stream_skip(s, size);
    } else {
        s->partial = bytes.size || (f->id && !f->whole);
        if (s->ended && s->partial)
            stream_refuse(s);
        return STREAM_MORE;
    }
    stream_keep(s, f->variables.size + f->in.head.size + f->in.body.size);
    if (!f->whole || f->taken)
        return STREAM_SKIPPED;
    if (f->in.body.failed) {
        refuse(f, 500, "no memory");
    } else if (f->verdict.wish == HTTP_CALLS || f->verdict.wish == HTTP_DISCOVERS) {
        *span = (struct stream_span){ .size = f->in.body.size };
        return STREAM_MESSAGE;
    } else if (f->verdict.wish == HTTP_UPGRADES) {
        refuse(f, 426, "WebSocket is not handed on");
    }
    answer_here(s, f);
    return STREAM_SKIPPED;
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    struct session *f = s->state;
    (void)span;
    if (!http_ask(&f->asker, &f->in, &f->verdict))
        return CREW_NO_MEMORY;
    f->taken = true;
    m->number = f->serial;
    crew_status status = http_give(&f->asker, &f->verdict, &f->in, m);
    http_end(&f->in);
    f->in = (struct http_message){ .begun = false };
    stream_keep(s, 0);
    return status;
}

const struct stream_session stream_fcgi = { .find = find, .take = take, .answer = answer, .end = end };
