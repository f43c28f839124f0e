#include "transport/http_reply.h"

#include "core/json.h"
#include "core/utf8.h"

#include <rpcrew/page.h>

#include <stdlib.h>
#include <time.h>

enum {
    SMALL_BODY = 4 << 10, /* is copied, so that its buffer stays with the endpoint */
    FIELDS_MOST = 100,    /* for crew_call_headers */
    TIMEOUT_MOST_MS = 1 << 30
};

static const char json[] = "application/json";

/* The page asks nobody but us for anything, and is in nobody's frame. */
static const char page_fields[] =
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "Cache-Control: no-cache\r\nReferrer-Policy: no-referrer\r\n";

void http_shared_fini(struct http_shared *shared)
{
    crew_buffer_fini(&shared->head);
    crew_buffer_fini(&shared->body);
}

bool http_ask(struct http_asker *asker, const struct http_message *message,
              const struct http_verdict *verdict)
{
    *asker = (struct http_asker){ .wish = verdict->wish, .keeps_alive = message->keeps_alive };
    asker->old = message->has_head && message->parser.http_major == 1 && !message->parser.http_minor;
    asker->head_only = message->method && strcmp(message->method, "HEAD") == 0;
    if (verdict->origin)
        asker->origin = strdup(verdict->origin);
    return asker->origin || !verdict->origin;
}

void http_asker_fini(struct http_asker *asker)
{
    free(asker->origin);
}

/* ---- requests ---- */

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
        crew_string copy = crew_arena_string(&m->arena, f.name), before;
        const crew_value *same =
            crew_value_get(fields, f.name.data); /* of the same name: a list (RFC 9110) */
        crew_string text = f.value;
        crew_buffer both = { 0 };
        if (same && crew_value_string(same, &before) == CREW_OK) {
            crew_buffer_printf(&both, "%.*s, %.*s", CREW_STR(before), CREW_STR(f.value));
            text = crew_buffer_move(&both, &m->arena);
        }
        status = copy.data && text.data ? crew_pack(&m->arena, &value, "S", text) : CREW_NO_MEMORY;
        if (status == CREW_OK)
            status = same ? crew_object_add(&m->arena, fields, copy, value)
                          : crew_object_append(&m->arena, fields, copy, value);
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

crew_status http_give(const struct http_asker *asker, const struct http_verdict *verdict,
                      struct http_message *request, crew_message *m)
{
    static const char discover[] = "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.discover\",\"id\":1}";
    m->deadline_ms = deadline_of(request);
    m->content_type = verdict->content_type;
    if (asker->wish == HTTP_DISCOVERS) {
        m->content_type = json;
        crew_buffer_text(&m->body, discover);
    } else if (request->body.size <= SMALL_BODY) {
        crew_buffer_append(&m->body, request->body.data, request->body.size);
    } else {
        crew_buffer own = m->body;
        m->body = request->body;
        request->body = own;
    }
    return read_fields(request, m);
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

static void write_reply(struct http_shared *shared, const struct http_asker *asker, const struct reply *reply,
                        crew_buffer *out)
{
    crew_buffer_text(out, shared->behind ? "Status: " : "HTTP/1.1 ");
    write_number(reply->status, out);
    crew_buffer_text(out, " ");
    crew_buffer_text(out, http_status_text(reply->status));
    crew_buffer_text(out, "\r\n");
    if (!shared->behind)
        write_date(shared, out);
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
    if (asker->origin) {
        crew_buffer_text(out, "Access-Control-Allow-Origin: ");
        crew_buffer_text(out, asker->origin);
        crew_buffer_text(out, "\r\n");
    }
    if (shared->rules.lists || asker->origin) /* others get another answer */
        crew_buffer_text(out, "Vary: Origin\r\n");
    if (!asker->keeps_alive && !shared->behind)
        crew_buffer_text(out, "Connection: close\r\n");
    else if (asker->old && !shared->behind)
        crew_buffer_text(out, "Connection: keep-alive\r\n");
    crew_buffer_text(out, "\r\n");
    if (!asker->head_only)
        crew_buffer_append(out, reply->body.data, reply->body.size);
}

static const char why_not_run[] = "the worker could not take it: it was not executed";

void http_write_answer(struct http_shared *shared, const struct http_asker *asker, const crew_message *m,
                       crew_buffer *out)
{
    crew_buffer body = { 0 };
    struct reply reply = { .status = 200, .type = json };
    if (m->kind == CREW_SETTLE_REPLY) {
        reply.type = m->content_type;
        reply.body = crew_buffer_string(&m->reply);
        if (asker->wish == HTTP_DISCOVERS && crew_json_extract(reply.body, "result", &body) == CREW_OK)
            reply.body = crew_buffer_string(&body);
    } else if (m->kind == CREW_SETTLE_DONE && m->status == CREW_OK) {
        reply.status = shared->rules.notify_status;
        reply.type = NULL;
    } else {
        reply.status = m->status == CREW_NO_MEMORY ? 500 : 503;
        http_error_body(reply.status, why_not_run, &body);
        reply.body = crew_buffer_string(&body);
    }
    write_reply(shared, asker, &reply, out);
    out->failed = out->failed || body.failed;
    crew_buffer_fini(&body);
}

#define METHODS "Allow: GET, HEAD, OPTIONS, POST\r\n"
#define POSTS   "Allow: OPTIONS, POST\r\n"

void http_write_own(struct http_shared *shared, const struct http_asker *asker, const struct http_verdict *v,
                    crew_buffer *out)
{
    crew_buffer body = { 0 };
    struct reply reply = { .status = v->status, .type = json };
    if (v->wish == HTTP_SEES) {
        reply = (struct reply){ .status = 200, .type = "text/html; charset=utf-8", .more = page_fields };
        reply.body = crew_page();
    } else if (v->wish == HTTP_REPORTS) {
        reply.status = crew_transport_report(shared->config, v->words, &reply.type, &body);
        reply.more = "Cache-Control: no-store\r\n";
        if (!reply.status) {
            reply = (struct reply){ .status = 404, .type = json };
            http_error_body(
                404, "not told here: that wants reports=yes in the worker's URL, and a server that counts",
                &body);
        }
        reply.body = crew_buffer_string(&body);
    } else if (v->wish == HTTP_ASKS) {
        reply = (struct reply){ .status = 204, .more = METHODS };
        if (v->origin)
            reply.more =
                METHODS "Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
                        "Access-Control-Allow-Headers: Authorization, Content-Type, Rpcrew-Timeout-Ms\r\n"
                        "Access-Control-Max-Age: 600\r\n";
    } else {
        http_error_body(v->status, v->words, &body);
        reply.body = crew_buffer_string(&body);
        if (v->status == 405)
            reply.more = shared->rules.shows ? METHODS : POSTS;
        else if (v->status == 426)
            reply.more = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
    }
    write_reply(shared, asker, &reply, out);
    out->failed = out->failed || body.failed;
    crew_buffer_fini(&body);
}
