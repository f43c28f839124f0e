/* Each kind keeps how far it has looked, so that a message that comes in many pieces is looked at once.
 *
 * On a connection whose first bytes are JSON, values are told by their brackets. If the first one is in a
 * line of its own, the connection is read by lines from then on: a value that is not closed then costs
 * itself, where by brackets it would wait for ever, and take what comes behind it. */
#include "transport/stream_framing.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { HEAD_MOST = 8192 };

static const char json[] = "application/json", msgpack[] = "application/msgpack";

static enum stream_found rubbish(struct stream_framing *f, crew_string bytes, const char *why,
                                 struct stream_span *span)
{
    f->why = why;
    *span = (struct stream_span){ .size = bytes.size, .end = bytes.size };
    return STREAM_RUBBISH;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What is between two messages. */
static size_t skip_spaces(crew_string bytes)
{
    size_t at = 0;
    while (at < bytes.size && is_space(bytes.data[at]))
        at++;
    return at;
}

/* The message is from body to end; the next one begins anew. */
static enum stream_found found(struct stream_framing *f, size_t body, size_t size, size_t end,
                               struct stream_span *span)
{
    *span = (struct stream_span){ .body = body, .size = size, .end = end };
    *f = (struct stream_framing){ .kind = f->kind, .foreign = f->foreign, .under_way = true };
    return STREAM_MESSAGE;
}

static enum stream_found more(crew_string bytes, size_t body, struct stream_span *span)
{
    *span = (struct stream_span){ .body = body, .size = bytes.size - body, .end = bytes.size };
    return STREAM_MORE;
}

/* ---- lines ---- */

static enum stream_found next_line(struct stream_framing *f, crew_string bytes, bool ended,
                                   struct stream_span *span)
{
    size_t body = f->begun ? 0 : skip_spaces(bytes);
    if (body == bytes.size)
        return more(bytes, body, span);
    size_t from = f->begun ? f->scanned : body;
    const char *newline = memchr(bytes.data + from, '\n', bytes.size - from);
    if (!newline && !ended) {
        f->scanned = bytes.size - body;
        f->begun = true;
        return more(bytes, body, span);
    }
    size_t end = newline ? (size_t)(newline - bytes.data) : bytes.size, size = end - body;
    while (size && is_space(bytes.data[body + size - 1]))
        size--;
    return found(f, body, size, newline ? end + 1 : end, span);
}

/* ---- values ---- */

/* One byte of a value; whether it was the last. A line's end in a string ends what can be no JSON any more.
 */
static bool step(struct stream_framing *f, char c)
{
    if (f->in_string) {
        bool closes = c == '"' && !f->escaped;
        f->escaped = c == '\\' && !f->escaped;
        f->in_string = !closes && c != '\n';
        return c == '\n' || (closes && !f->depth);
    }
    switch (c) {
    case '"': f->in_string = true; return false;
    case '{':
    case '[': f->depth++; return false;
    case '}':
    case ']': f->depth -= f->depth > 0; return f->depth == 0;
    case '\n': f->many_lines = true; return f->depth == 0; /* of what is no object or array */
    default: return false;
    }
}

static enum stream_found next_value(struct stream_framing *f, crew_string bytes, bool ended,
                                    struct stream_span *span)
{
    size_t body = f->begun ? 0 : skip_spaces(bytes);
    if (f->may_be_lines && bytes.size) {
        size_t at = 0;
        while (at < bytes.size && bytes.data[at] == '\r')
            at++;
        if (at == bytes.size && !ended)
            return more(bytes, bytes.size, span);
        if (at < bytes.size && bytes.data[at] == '\n') {
            *f = (struct stream_framing){ .kind = STREAM_LINES, .under_way = true };
            return next_line(f, bytes, ended, span);
        }
        f->may_be_lines = false;
    }
    size_t at = f->begun ? f->scanned : body;
    while (at < bytes.size && !step(f, bytes.data[at]))
        at++;
    bool whole = at < bytes.size;
    if (!whole && !(ended && at > body)) {
        f->begun = at > body;
        f->scanned = at - body;
        return more(bytes, body, span);
    }
    bool may_be_lines = f->guessed && !f->many_lines;
    enum stream_found what = found(f, body, at + whole - body, at + whole, span);
    f->may_be_lines = may_be_lines;
    return what;
}

/* ---- Content-Length ---- */

static bool is_name(crew_string name, const char *wanted)
{
    return name.size == strlen(wanted) && strncasecmp(name.data, wanted, name.size) == 0;
}

static crew_string trim(crew_string text)
{
    while (text.size && is_space(text.data[0])) {
        text.data++;
        text.size--;
    }
    while (text.size && is_space(text.data[text.size - 1]))
        text.size--;
    return text;
}

static bool read_length(crew_string text, size_t *length)
{
    size_t number = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (!isdigit((unsigned char)text.data[i]) || number > SIZE_MAX / 16)
            return false;
        number = number * 10 + (size_t)(text.data[i] - '0');
    }
    *length = number;
    return text.size > 0;
}

/* What is wrong with the head; NULL: nothing. */
static const char *read_head(struct stream_framing *f, crew_string head)
{
    size_t length = 0;
    bool known = false;
    f->foreign = false;
    while (head.size) {
        const char *newline = memchr(head.data, '\n', head.size);
        crew_string line = { head.data, (size_t)(newline - head.data) };
        head = (crew_string){ newline + 1, head.size - line.size - 1 };
        const char *colon = memchr(line.data, ':', line.size);
        if (!colon && trim(line).size)
            return "a header without ':'";
        if (!colon)
            continue;
        crew_string name = { line.data, (size_t)(colon - line.data) };
        crew_string value = trim((crew_string){ colon + 1, line.size - name.size - 1 });
        if (is_name(name, "content-length")) {
            size_t again;
            if (!read_length(value, &again) || (known && again != length))
                return "a Content-Length that is no number, or two that differ";
            length = again;
            known = true;
        } else if (is_name(name, "content-type")) {
            f->foreign =
                value.size >= strlen(msgpack) && strncasecmp(value.data, msgpack, strlen(msgpack)) == 0;
        }
    }
    f->wanted = f->head + length;
    return known ? NULL : "headers without Content-Length";
}

/* Behind the empty line that ends the head; 0: there is none yet. */
static size_t head_end(crew_string bytes, size_t from)
{
    for (size_t at = from; at < bytes.size; at++) {
        const char *newline = memchr(bytes.data + at, '\n', bytes.size - at);
        if (!newline)
            return 0;
        at = (size_t)(newline - bytes.data);
        if (at + 1 < bytes.size && bytes.data[at + 1] == '\n')
            return at + 2;
        if (at + 2 < bytes.size && bytes.data[at + 1] == '\r' && bytes.data[at + 2] == '\n')
            return at + 3;
    }
    return 0;
}

static enum stream_found next_length(struct stream_framing *f, crew_string bytes, bool ended, size_t most,
                                     struct stream_span *span)
{
    size_t body = f->begun ? 0 : skip_spaces(bytes);
    crew_string rest = { bytes.data + body, bytes.size - body };
    if (!rest.size)
        return more(bytes, body, span);
    f->begun = true;
    if (!f->head) {
        f->head = head_end(rest, f->scanned > 3 ? f->scanned - 3 : 0);
        f->scanned = rest.size;
        if (f->head ? f->head > HEAD_MOST : rest.size > HEAD_MOST)
            return rubbish(f, bytes, "headers of more than 8192 bytes", span);
        if (!f->head)
            return ended ? rubbish(f, bytes, "headers that end in the middle", span)
                         : more(bytes, body, span);
        const char *why = read_head(f, (crew_string){ rest.data, f->head });
        if (why)
            return rubbish(f, bytes, why, span);
    }
    if (f->wanted - f->head > most)
        return rubbish(f, bytes, "a message that is too large", span);
    if (rest.size < f->wanted)
        return ended ? rubbish(f, bytes, "a message that ends in the middle", span) : more(bytes, body, span);
    return found(f, body + f->head, f->wanted - f->head, body + f->wanted, span);
}

/* ---- MessagePack (github.com/msgpack/msgpack/blob/master/spec.md) ---- */

/* How an object begins: how many bytes of length follow its first, what it is besides. */
struct shape {
    uint8_t length; /* bytes */
    uint8_t fixed;  /* bytes behind those */
    uint8_t items;  /* objects that an item of the length stands for; 0: it counts bytes */
};

static const struct shape shapes[] = {
    /* from 0xc0 */
    { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 },               /* nil, never used, false, true */
    { 1, 0, 0 }, { 2, 0, 0 }, { 4, 0, 0 },                            /* bin */
    { 1, 1, 0 }, { 2, 1, 0 }, { 4, 1, 0 },                            /* ext */
    { 0, 4, 0 }, { 0, 8, 0 },                                         /* float */
    { 0, 1, 0 }, { 0, 2, 0 }, { 0, 4, 0 }, { 0, 8, 0 },               /* uint */
    { 0, 1, 0 }, { 0, 2, 0 }, { 0, 4, 0 }, { 0, 8, 0 },               /* int */
    { 0, 2, 0 }, { 0, 3, 0 }, { 0, 5, 0 }, { 0, 9, 0 }, { 0, 17, 0 }, /* fixext */
    { 1, 0, 0 }, { 2, 0, 0 }, { 4, 0, 0 },                            /* str */
    { 2, 0, 1 }, { 4, 0, 1 },                                         /* array */
    { 2, 0, 2 }, { 4, 0, 2 },                                         /* map */
};

/* An object's bytes without those inside it, and how many are inside; false: its head is not all there. */
static bool measure(crew_string bytes, uint64_t *size, uint64_t *items)
{
    const unsigned char *at = (const unsigned char *)bytes.data;
    unsigned char first = *at;
    *size = 1;
    *items = 0;
    if (first < 0x80 || first >= 0xe0) /* a small number */
        return true;
    if (first < 0x90) {
        *items = 2 * (uint64_t)(first & 0x0f);
    } else if (first < 0xa0) {
        *items = first & 0x0f;
    } else if (first < 0xc0) {
        *size += first & 0x1f;
    } else {
        const struct shape *shape = &shapes[first - 0xc0];
        uint64_t length = 0;
        if (bytes.size < 1U + shape->length)
            return false;
        for (unsigned i = 1; i <= shape->length; i++)
            length = length << 8 | at[i];
        *size += shape->length + shape->fixed + (shape->items ? 0 : length);
        *items = shape->items * length;
    }
    return true;
}

static enum stream_found next_object(struct stream_framing *f, crew_string bytes, bool ended, size_t most,
                                     struct stream_span *span)
{
    if (!f->begun && bytes.size) {
        f->begun = true;
        f->left = 1;
    }
    while (f->left && f->scanned < bytes.size) {
        crew_string rest = { bytes.data + f->scanned, bytes.size - f->scanned };
        uint64_t size, items;
        if ((unsigned char)*rest.data == 0xc1)
            return rubbish(f, bytes, "a byte that MessagePack does not use", span);
        if (!measure(rest, &size, &items))
            break;
        f->scanned += size;
        f->left += items - 1;
        if (f->scanned > most || f->left > most)
            return rubbish(f, bytes, "a message that is too large", span);
    }
    if (f->begun && !f->left && f->scanned <= bytes.size)
        return found(f, 0, f->scanned, f->scanned, span);
    return ended && bytes.size ? rubbish(f, bytes, "a message that ends in the middle", span)
                               : more(bytes, 0, span);
}

/* ---- all ---- */

static const char mark[] = "\xEF\xBB\xBF"; /* a byte order mark */

/* Text that is no JSON is refused at once, also where it is said to be: lest somebody's browser, told to send
 * here, has its body read as calls. */
static bool begins_as_json(crew_string bytes)
{
    size_t at = skip_spaces(bytes);
    return at == bytes.size || bytes.data[at] == '{' || bytes.data[at] == '[' || bytes.data[at] == mark[0];
}

/* What the connection's first bytes say; UNKNOWN: there are too few, or *why they say nothing. Text that is
 * no JSON is refused at once, lest somebody's browser, told to send here, has its body read as calls. */
static enum stream_kind tell(crew_string bytes, size_t *skip, const char **why)
{
    static const char length[] = "content-";
    *skip = skip_spaces(bytes);
    crew_string rest = { bytes.data + *skip, bytes.size - *skip };
    if (!rest.size)
        return STREAM_UNKNOWN;
    unsigned char first = (unsigned char)*rest.data;
    if (first == '{' || first == '[')
        return STREAM_CONCATENATED;
    if ((first & 0xf0) == 0x90 || first == 0xdc || first == 0xdd)
        return STREAM_OBJECTS;
    size_t size = rest.size < 3 ? rest.size : 3;
    if (memcmp(rest.data, mark, size) == 0) {
        *skip += size == 3 ? 3 : 0;
        return size < 3 ? STREAM_UNKNOWN : STREAM_CONCATENATED;
    }
    size = rest.size < strlen(length) ? rest.size : strlen(length);
    if (strncasecmp(rest.data, length, size) == 0)
        return size < strlen(length) ? STREAM_UNKNOWN : STREAM_LENGTHS;
    *why = "neither JSON nor MessagePack, nor a header of Content-Length";
    return STREAM_UNKNOWN;
}

enum stream_found stream_framing_next(struct stream_framing *f, crew_string bytes, bool ended, size_t most,
                                      struct stream_span *span)
{
    size_t skipped = 0;
    const char *why = NULL;
    if (f->kind == STREAM_UNKNOWN) {
        f->kind = tell(bytes, &skipped, &why);
        if (why)
            return rubbish(f, bytes, why, span);
        if (f->kind == STREAM_UNKNOWN)
            return ended && skipped < bytes.size ? rubbish(f, bytes, "too few bytes for a message", span)
                                                 : more(bytes, skipped, span);
        f->guessed = true;
    }
    crew_string rest = { bytes.data + skipped, bytes.size - skipped };
    bool is_json = f->kind == STREAM_LINES || f->kind == STREAM_CONCATENATED;
    if (is_json && !f->under_way && !begins_as_json(rest))
        return rubbish(f, bytes, "neither an object nor an array of JSON", span);
    enum stream_found what;
    switch (f->kind) {
    case STREAM_LINES: what = next_line(f, rest, ended, span); break;
    case STREAM_CONCATENATED: what = next_value(f, rest, ended, span); break;
    case STREAM_LENGTHS: what = next_length(f, rest, ended, most, span); break;
    default: what = next_object(f, rest, ended, most, span); break;
    }
    span->body += skipped;
    span->end += skipped;
    if (what != STREAM_RUBBISH && span->size > most)
        return rubbish(f, bytes, "a message that is too large", span);
    return what;
}

const char *stream_framing_type(const struct stream_framing *framing)
{
    if (framing->kind == STREAM_UNKNOWN)
        return NULL;
    return framing->kind == STREAM_OBJECTS || framing->foreign ? msgpack : json;
}

void stream_framing_write(enum stream_kind kind, const char *content_type, crew_string body, crew_buffer *out)
{
    bool text = !content_type || strcmp(content_type, json) == 0;
    if (kind == STREAM_LENGTHS) {
        crew_buffer_printf(out, "Content-Length: %zu\r\n", body.size);
        if (!text)
            crew_buffer_printf(out, "Content-Type: %s\r\n", content_type);
        crew_buffer_text(out, "\r\n");
    }
    crew_buffer_append(out, body.data, body.size);
    if (kind == STREAM_LINES || kind == STREAM_CONCATENATED || (kind == STREAM_UNKNOWN && text))
        crew_buffer_text(out, "\n");
}

enum stream_kind stream_framing_kind(const crew_url *url)
{
    static const struct {
        const char *name;
        enum stream_kind kind;
    } kinds[] = { { "lines", STREAM_LINES },
                  { "concatenated", STREAM_CONCATENATED },
                  { "content-length", STREAM_LENGTHS },
                  { "msgpack", STREAM_OBJECTS } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (crew_url_option_is(url, "framing", kinds[i].name))
            return kinds[i].kind;
    return STREAM_UNKNOWN;
}

bool stream_framing_carries(const crew_url *url, const char *content_type)
{
    switch (stream_framing_kind(url)) {
    case STREAM_LINES:
    case STREAM_CONCATENATED: return strcmp(content_type, json) == 0;
    case STREAM_OBJECTS: return strcmp(content_type, msgpack) == 0;
    default: return true;
    }
}
