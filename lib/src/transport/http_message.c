/* http_parser reads the head: it looks at each byte, and refuses two lengths that differ, a length beside
 * chunks, and what is no number. What it lets pass is refused here: whatever others might read in another way
 * (RFC 9112, section 11.2). Of bodies Debian's is not strict enough for that, so they are read here too. */
#include "transport/http_message.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static enum http_event bad(struct http_message *m, unsigned status, const char *why)
{
    m->status = status;
    m->why = why;
    return HTTP_BAD;
}

static struct http_message *of(const http_parser *parser)
{
    return parser->data;
}

/* ---- what http_parser calls; anything but 0 ends its reading ---- */

static int fail(struct http_message *m, unsigned status, const char *why)
{
    (void)bad(m, status, why);
    return -1;
}

static int on_begin(http_parser *parser)
{
    of(parser)->begun = true;
    return 0;
}

static int on_target(http_parser *parser, const char *text, size_t size)
{
    if (memchr(text, '\0', size))
        return fail(of(parser), 400, "a NUL in the head");
    crew_buffer_append(&of(parser)->head, text, size);
    return 0;
}

/* Of the target, or of a value. */
static void end_text(struct http_message *m)
{
    while (m->in_value && m->head.size &&
           (m->head.data[m->head.size - 1] == ' ' || m->head.data[m->head.size - 1] == '\t'))
        m->head.size--;
    crew_buffer_append(&m->head, "", 1);
    if (!m->fields)
        m->fields = m->head.size;
}

static int on_name(http_parser *parser, const char *text, size_t size)
{
    struct http_message *m = of(parser);
    if (!m->fields || m->in_value)
        end_text(m);
    m->in_value = false;
    char *name = crew_buffer_extend(&m->head, size);
    for (size_t i = 0; name && i < size; i++) {
        if (text[i] == ' ' || text[i] == '\0')
            return fail(m, 400, "a space or a NUL in a field's name");
        name[i] = (char)tolower((unsigned char)text[i]);
    }
    return 0;
}

static int on_value(http_parser *parser, const char *text, size_t size)
{
    struct http_message *m = of(parser);
    if (!m->in_value)
        crew_buffer_append(&m->head, "", 1);
    m->in_value = true;
    crew_buffer_append(&m->head, text, size);
    return memchr(text, '\0', size) ? fail(m, 400, "a NUL in the head") : 0;
}

/* Whether a field is there twice that may not be, since others might take the other one. */
static bool comes_twice(const struct http_message *m)
{
    static const char *const sole[] = { "host",   "transfer-encoding", "content-type", "authorization",
                                        "origin", "sec-websocket-key" };
    enum { SOLE = sizeof sole / sizeof *sole };
    bool seen[SOLE] = { false };
    for (struct http_field f = { 0 }; http_next_field(m, &f);)
        for (size_t i = 0; i < SOLE; i++) {
            if (!crew_string_equal(f.name, crew_str(sole[i])))
                continue;
            if (seen[i])
                return true;
            seen[i] = true;
        }
    return false;
}

/* What the head says of where the message ends, and what others might read in another way. */
static int check_head(struct http_message *m)
{
    const char *coding = http_field(m, "transfer-encoding");
    m->chunked = coding != NULL;
    if (coding && strcasecmp(coding, "chunked") != 0)
        return fail(m, 501, "a Transfer-Encoding other than chunked");
    if (comes_twice(m))
        return fail(m, 400, "a field that comes twice and may not");
    if (m->parser.type == HTTP_REQUEST && m->parser.method == HTTP_CONNECT) /* whose body is not read */
        return fail(m, 405, "CONNECT is for proxies");
    if (m->parser.http_major != 1)
        return fail(m, 505, "a version of HTTP other than 1.0 and 1.1");
    if (coding && !m->parser.http_minor)
        return fail(m, 400, "a Transfer-Encoding in HTTP/1.0");
    if (m->parser.type == HTTP_REQUEST && m->parser.http_minor && !http_field(m, "host"))
        return fail(m, 400, "no Host");
    return 0;
}

static int on_head(http_parser *parser)
{
    struct http_message *m = of(parser);
    end_text(m);
    if (m->head.failed)
        return fail(m, 500, "no memory");
    m->has_head = true;
    if (parser->type == HTTP_REQUEST)
        m->method = http_method_str((enum http_method)parser->method);
    else
        m->status = parser->status_code;
    m->length = parser->content_length;
    m->keeps_alive = http_should_keep_alive(parser) != 0;
    m->upgrades = parser->upgrade != 0;
    if (check_head(m) != 0)
        return -1;
    bool is_request = parser->type == HTTP_REQUEST;
    bool has_none = !is_request && (m->status < 200 || m->status == 204 || m->status == 304);
    m->chunked = m->chunked && !has_none;
    m->left = has_none || (is_request && m->length == UINT64_MAX) ? 0 : m->length;
    http_parser_pause(parser, 1); /* it has done its part */
    return 0;
}

static const http_parser_settings settings = { .on_message_begin = on_begin,
                                               .on_url = on_target,
                                               .on_status = on_target,
                                               .on_header_field = on_name,
                                               .on_header_value = on_value,
                                               .on_headers_complete = on_head };

/* ---- reading ---- */

void http_begin(struct http_message *m, enum http_parser_type type, size_t head_most, size_t body_most)
{
    *m = (struct http_message){ .head_most = head_most, .body_most = body_most };
    http_parser_init(&m->parser, type);
}

void http_end(struct http_message *m)
{
    crew_buffer_fini(&m->head);
    crew_buffer_fini(&m->body);
}

/* Whether some of the head is what others may read in another way. */
static const char *ambiguity(struct http_message *m, crew_string bytes)
{
    bool is_request = m->parser.type == HTTP_REQUEST;
    for (size_t i = 0; i < bytes.size; i++) {
        char c = bytes.data[i], before = m->last;
        bool blank = c == ' ' || c == '\t';
        m->last = c;
        if (before == '\n' && blank)
            return "a field of more than one line";
        if (is_request && !m->has_line && blank && (before == ' ' || c == '\t'))
            return "more than a space in the first line";
        if (is_request && c == '\n' && before != '\r')
            return "a line that ends in LF alone";
        m->in_line = m->in_line || (c != '\r' && c != '\n'); /* before the first there may be empty ones */
        m->has_line = m->has_line || (c == '\n' && m->in_line);
    }
    return NULL;
}

static enum http_event read_head(struct http_message *m, crew_string bytes, size_t *taken)
{
    size_t left = m->head_most - m->head_bytes;
    if (bytes.size > left)
        bytes.size = left;
    m->parser.data = m; /* wherever it is now */
    *taken = http_parser_execute(&m->parser, &settings, bytes.data, bytes.size);
    m->head_bytes += *taken;
    enum http_errno error = HTTP_PARSER_ERRNO(&m->parser);
    if (error != HPE_OK && error != HPE_PAUSED)
        return m->why ? HTTP_BAD : bad(m, 400, http_errno_description(error));
    const char *why = ambiguity(m, (crew_string){ bytes.data, *taken });
    if (why)
        return bad(m, 400, why);
    if (m->has_head)
        return HTTP_HEAD_READ;
    return m->head_bytes >= m->head_most ? bad(m, 431, "a head that is too large") : HTTP_MORE;
}

static enum http_event take_body(struct http_message *m, crew_string bytes)
{
    if (bytes.size > m->body_most - m->body_bytes)
        return bad(m, 413, "a body that is too large");
    m->body_bytes += bytes.size;
    if (!m->discards)
        crew_buffer_append(&m->body, bytes.data, bytes.size);
    return m->body.failed ? bad(m, 500, "no memory") : HTTP_MORE;
}

static enum http_event read_chunks(struct http_message *m, crew_string bytes, size_t *taken)
{
    enum http_event event = HTTP_MORE;
    while (event == HTTP_MORE && *taken < bytes.size) {
        size_t more;
        crew_string data, rest = { bytes.data + *taken, bytes.size - *taken };
        enum http_chunks_event found = http_chunks_read(&m->chunks, rest, &more, &data);
        *taken += more;
        if (found == HTTP_CHUNKS_DATA)
            event = take_body(m, data);
        else if (found == HTTP_CHUNKS_END)
            event = HTTP_WHOLE;
        else if (found != HTTP_CHUNKS_MORE)
            event = bad(m, found == HTTP_CHUNKS_LARGE ? 431 : 400, m->chunks.why);
    }
    return event;
}

static enum http_event read_body(struct http_message *m, crew_string bytes, bool ended, size_t *taken)
{
    if (!m->body_begun && bytes.size) { /* http_parser leaves the head's last byte, and does not look at it */
        if (bytes.data[0] != '\n' || (m->parser.type == HTTP_REQUEST && m->last != '\r'))
            return bad(m, 400, "a head that does not end in CR LF");
        m->body_begun = true;
        *taken = 1;
    }
    if (!m->body_begun)
        return HTTP_MORE;
    if (m->chunked)
        return read_chunks(m, bytes, taken);
    bool is_bounded = m->left != UINT64_MAX;
    size_t size = bytes.size - *taken;
    if (is_bounded && size > m->left)
        size = (size_t)m->left;
    enum http_event event = take_body(m, (crew_string){ bytes.data + *taken, size });
    *taken += size;
    m->left -= is_bounded ? size : 0;
    return event == HTTP_MORE && (is_bounded ? !m->left : ended) ? HTTP_WHOLE : event;
}

enum http_event http_read(struct http_message *m, crew_string bytes, bool ended, size_t *taken)
{
    enum http_event event = HTTP_MORE;
    *taken = 0;
    if (m->has_head)
        event = read_body(m, bytes, ended, taken);
    else if (bytes.size)
        event = read_head(m, bytes, taken);
    if (event == HTTP_MORE && ended && m->begun)
        event = bad(m, 400, "a message that ends in the middle");
    return event;
}

/* ---- what it says ---- */

crew_string http_target(const struct http_message *m)
{
    return crew_str(m->head.data);
}

bool http_next_field(const struct http_message *m, struct http_field *f)
{
    size_t at = f->next ? f->next : m->fields;
    if (at >= m->head.size)
        return false;
    const char *name = m->head.data + at;
    f->name = (crew_string){ name, strlen(name) };
    const char *value = name + f->name.size + 1;
    f->value = (crew_string){ value, strlen(value) };
    f->next = at + f->name.size + f->value.size + 2;
    return true;
}

const char *http_field(const struct http_message *m, const char *name)
{
    for (struct http_field f = { 0 }; http_next_field(m, &f);)
        if (crew_string_equal(f.name, crew_str(name)))
            return f.value.data;
    return NULL;
}

bool http_list_has(const char *list, const char *token)
{
    size_t size = strlen(token);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t length = strcspn(list, ",");
        size_t used = length;
        while (used && (list[used - 1] == ' ' || list[used - 1] == '\t'))
            used--;
        if (used == size && strncasecmp(list, token, size) == 0)
            return true;
        list += length;
    }
    return false;
}
