#include "transport/http_chunks.h"

#include <string.h>

enum { DIGITS_MOST = 15, LINE_MOST = 1024, TRAILERS_MOST = 16 << 10 };

/* What comes next. BEGUN is where a body begins, which is at a size. */
enum {
    AT_SIZE,
    AT_PADDING, /* behind the size */
    AT_EXTENSION,
    AT_LINE_END,
    AT_DATA,
    AT_DATA_CR,
    AT_DATA_END,
    AT_TRAILER,
    AT_TRAILER_TEXT,
    AT_TRAILER_END,
    AT_LAST_END
};

static enum http_chunks_event bad(struct http_chunks *c, const char *why)
{
    c->why = why;
    return HTTP_CHUNKS_BAD;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 9110, section 5.6.2. */
static bool is_token(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* A line's end is CR LF. True: this byte is its second. */
static bool ends(char byte)
{
    return byte == '\n';
}

static enum http_chunks_event take_size(struct http_chunks *c, char byte)
{
    int digit = digit_of(byte);
    if (digit >= 0) {
        if (c->left >> (4 * DIGITS_MOST - 4))
            return bad(c, "a chunk's size that is too large");
        c->left = c->left << 4 | (unsigned)digit;
        c->has_size = true;
        return HTTP_CHUNKS_MORE;
    }
    if (!c->has_size)
        return bad(c, "a chunk without a size");
    c->at = byte == '\r' ? AT_LINE_END : byte == ';' ? AT_EXTENSION : AT_PADDING;
    return byte == '\r' || byte == ';' || byte == ' ' || byte == '\t'
               ? HTTP_CHUNKS_MORE
               : bad(c, "a chunk's size that is no number");
}

static enum http_chunks_event take_padding(struct http_chunks *c, char byte)
{
    if (byte == ' ' || byte == '\t')
        return HTTP_CHUNKS_MORE;
    c->at = byte == '\r' ? AT_LINE_END : AT_EXTENSION;
    return byte == '\r' || byte == ';' ? HTTP_CHUNKS_MORE : bad(c, "a chunk's size that is no number");
}

/* Of no meaning to us; but a control in it may be a line's end to others. */
static enum http_chunks_event take_text(struct http_chunks *c, char byte, int then)
{
    if (byte == '\r')
        c->at = then;
    else if (((unsigned char)byte < ' ' && byte != '\t') || byte == 127)
        return bad(c, "a control where a chunk's line goes on");
    return HTTP_CHUNKS_MORE;
}

/* A trailer's name, or the empty line behind the last. */
static enum http_chunks_event take_trailer(struct http_chunks *c, char byte)
{
    bool first = c->is_first;
    c->is_first = false;
    if (first && byte == '\r')
        c->at = AT_LAST_END;
    else if (!first && byte == ':')
        c->at = AT_TRAILER_TEXT;
    else if (!is_token(byte))
        return bad(c, "a trailer that is no field");
    return HTTP_CHUNKS_MORE;
}

static enum http_chunks_event take_line_end(struct http_chunks *c, char byte)
{
    bool last = !c->left;
    if (!ends(byte))
        return bad(c, "a chunk's line that does not end in CR LF");
    c->has_size = false;
    c->line_bytes = 0;
    c->is_first = last;
    c->at = last ? AT_TRAILER : AT_DATA;
    return HTTP_CHUNKS_MORE;
}

static enum http_chunks_event expect(struct http_chunks *c, bool is_there, int then)
{
    c->at = then;
    return is_there ? HTTP_CHUNKS_MORE : bad(c, "a chunk that is not as long as it says");
}

static enum http_chunks_event take_byte(struct http_chunks *c, char byte)
{
    switch (c->at) {
    case AT_SIZE: return take_size(c, byte);
    case AT_PADDING: return take_padding(c, byte);
    case AT_EXTENSION: return take_text(c, byte, AT_LINE_END);
    case AT_LINE_END: return take_line_end(c, byte);
    case AT_DATA_CR: return expect(c, byte == '\r', AT_DATA_END);
    case AT_DATA_END: return expect(c, ends(byte), AT_SIZE);
    case AT_TRAILER: return take_trailer(c, byte);
    case AT_TRAILER_TEXT: return take_text(c, byte, AT_TRAILER_END);
    case AT_TRAILER_END:
        c->is_first = true;
        c->at = AT_TRAILER;
        return ends(byte) ? HTTP_CHUNKS_MORE : bad(c, "a trailer's line that does not end in CR LF");
    default: return ends(byte) ? HTTP_CHUNKS_END : bad(c, "trailers that do not end in CR LF");
    }
}

enum http_chunks_event http_chunks_read(struct http_chunks *c, crew_string bytes, size_t *taken,
                                        crew_string *data)
{
    enum http_chunks_event event = HTTP_CHUNKS_MORE;
    *taken = 0;
    while (event == HTTP_CHUNKS_MORE && *taken < bytes.size) {
        if (c->at == AT_DATA) {
            size_t size = bytes.size - *taken;
            if (size > c->left)
                size = (size_t)c->left;
            *data = (crew_string){ bytes.data + *taken, size };
            *taken += size;
            c->left -= size;
            if (!c->left)
                c->at = AT_DATA_CR;
            return HTTP_CHUNKS_DATA;
        }
        event = take_byte(c, bytes.data[(*taken)++]);
        bool in_trailers = c->at >= AT_TRAILER;
        if (event == HTTP_CHUNKS_MORE && ++c->line_bytes > (in_trailers ? TRAILERS_MOST : LINE_MOST)) {
            c->why = in_trailers ? "trailers that are too large" : "a chunk's line that is too long";
            return HTTP_CHUNKS_LARGE;
        }
    }
    return event;
}
