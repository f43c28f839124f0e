/* Values to JSON text, written directly: a tree of another library's nodes, built only to be dumped, would
 * cost more than the text. */
#include "core/base64.h"
#include "core/decimal.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/value.h"

#include <rpcrew/impl/message.h>

#include <math.h>

enum { NUMBER_BYTES_MOST = 32 };

static inline void put(crew_buffer *out, const char *bytes, size_t size)
{
    char *place = crew_buffer_room(out, size);
    if (!place)
        return;
    memcpy(place, bytes, size);
    out->size += size;
}

/* ---- numbers ---- */

/* Writes digits that end before end; returns where they begin. */
static char *print_digits(uint64_t number, char *end)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    while (number >= 100) {
        end -= 2;
        memcpy(end, pairs + number % 100 * 2, 2);
        number /= 100;
    }
    if (number >= 10) {
        end -= 2;
        memcpy(end, pairs + number * 2, 2);
    } else {
        *--end = (char)('0' + number);
    }
    return end;
}

static void write_natural(uint64_t number, bool negative, crew_buffer *out)
{
    char text[NUMBER_BYTES_MOST], *end = text + sizeof text, *at = print_digits(number, end);
    if (negative)
        *--at = '-';
    put(out, at, (size_t)(end - at));
}

void crew_json_write_int(int64_t number, crew_buffer *out)
{
    write_natural(number < 0 ? 0 - (uint64_t)number : (uint64_t)number, number < 0, out);
}

/* As JavaScript and Python do it: without an exponent where that is not longer than it is helpful. */
static char *print_decimal(struct crew_decimal decimal, char *to)
{
    enum { LEAST_POINT = -4, MOST_POINT = 17 };
    char text[NUMBER_BYTES_MOST], *end = text + sizeof text, *digits = print_digits(decimal.digits, end);
    int exponent = (int)decimal.exponent;
    for (; end - digits > 1 && end[-1] == '0'; end--)
        exponent++;
    int count = (int)(end - digits), point = count + exponent; /* digits before the point */
    bool plain = point > LEAST_POINT && point <= MOST_POINT;
    int before = !plain ? 1 : point < 0 ? 0 : point < count ? point : count;
    if (!before)
        *to++ = '0';
    memcpy(to, digits, (size_t)before);
    to += before;
    for (int i = count; plain && i < point; i++)
        *to++ = '0';
    if (before < count) {
        *to++ = '.';
        for (int i = point; plain && i < 0; i++)
            *to++ = '0';
        memcpy(to, digits + before, (size_t)(count - before));
        to += count - before;
    }
    if (plain)
        return to;
    *to++ = 'e';
    *to++ = point > 0 ? '+' : '-';
    char *power = print_digits((uint64_t)(point > 0 ? point - 1 : 1 - point), text + sizeof text);
    size_t size = (size_t)(text + sizeof text - power);
    memcpy(to, power, size);
    return to + size;
}

static crew_status write_double(double number, crew_buffer *out)
{
    if (!isfinite(number))
        return CREW_UNSUPPORTED;
    if (number == 0 && signbit(number)) {
        put(out, "-0.0", 4); /* "-0" would be read as the integer */
        return CREW_OK;
    }
    if (crew_double_is_int(number)) {
        crew_json_write_int((int64_t)number, out);
        return CREW_OK;
    }
    char *place = crew_buffer_room(out, NUMBER_BYTES_MOST), *to = place;
    if (!place)
        return CREW_OK; /* the buffer remembers */
    if (number < 0)
        *to++ = '-';
    out->size += (size_t)(print_decimal(crew_decimal_of_double(fabs(number)), to) - place);
    return CREW_OK;
}

/* ---- strings ---- */

static void write_escape(unsigned char c, crew_buffer *out)
{
    static const char shorts[] = "btn\0fr", digits[] = "0123456789abcdef";
    if (c == '"' || c == '\\')
        put(out, (char[]){ '\\', (char)c }, 2);
    else if (c >= '\b' && c <= '\r' && shorts[c - '\b'])
        put(out, (char[]){ '\\', shorts[c - '\b'] }, 2);
    else
        put(out, (char[]){ '\\', 'u', '0', '0', digits[c >> 4], digits[c & 15] }, 6);
}

crew_status crew_json_write_string(crew_string text, crew_buffer *out)
{
    const char *at = text.size ? text.data : "", *end = at + text.size;
    put(out, "\"", 1);
    while (at < end) {
        uint64_t high = 0;
        const char *stop = crew_json_run_end(at, end, &high);
        crew_string run = { at, (size_t)(stop - at) };
        char *place = crew_buffer_room(out, run.size);
        if (!place)
            return CREW_OK; /* the buffer remembers */
        if (!crew_utf8_copy(place, run))
            return CREW_MALFORMED;
        out->size += run.size;
        at = stop;
        if (at < end)
            write_escape((unsigned char)*at++, out);
    }
    put(out, "\"", 1);
    return CREW_OK;
}

static void write_base64(crew_string bytes, crew_buffer *out)
{
    put(out, "\"", 1);
    crew_base64_encode(bytes, out);
    put(out, "\"", 1);
}

/* ---- values ---- */

struct writer {
    crew_buffer *out;
    bool pretty;
    int depth;
};

static void break_line(struct writer *w)
{
    if (w->pretty)
        crew_buffer_printf(w->out, "\n%*s", 2 * w->depth, "");
}

static crew_status write_key(struct writer *w, const crew_value *key)
{
    crew_status status = CREW_OK;
    if (key->type == CREW_TYPE_STRING) {
        status = crew_json_write_string(crew_text_of(key), w->out);
    } else if (key->type == CREW_TYPE_INT) {
        put(w->out, "\"", 1);
        crew_json_write_int(key->integer, w->out);
        put(w->out, "\"", 1);
    } else if (key->type == CREW_TYPE_UINT) {
        put(w->out, "\"", 1);
        write_natural(key->natural, false, w->out);
        put(w->out, "\"", 1);
    } else {
        status = CREW_UNSUPPORTED;
    }
    put(w->out, ": ", w->pretty ? 2 : 1);
    return status;
}

static crew_status write_value(struct writer *w, const crew_value *value);

static crew_status write_container(struct writer *w, const crew_value *value)
{
    bool array = value->type == CREW_TYPE_ARRAY;
    if (w->depth >= CREW_DEPTH_MAX)
        return CREW_LIMIT;
    put(w->out, array ? "[" : "{", 1);
    w->depth++;
    for (uint32_t i = 0; i < value->size; i++) {
        if (i)
            put(w->out, ",", 1);
        break_line(w);
        crew_status status = array ? CREW_OK : write_key(w, &value->members[i].key);
        if (status == CREW_OK)
            status = write_value(w, array ? &value->items[i] : &value->members[i].value);
        if (status != CREW_OK)
            return status;
    }
    w->depth--;
    if (value->size)
        break_line(w);
    put(w->out, array ? "]" : "}", 1);
    return CREW_OK;
}

static crew_status write_value(struct writer *w, const crew_value *value)
{
    crew_buffer *out = w->out;
    switch (crew_value_type(value)) {
    case CREW_TYPE_BOOL: put(out, value->boolean ? "true" : "false", value->boolean ? 4 : 5); return CREW_OK;
    case CREW_TYPE_INT: crew_json_write_int(value->integer, out); return CREW_OK;
    case CREW_TYPE_UINT: write_natural(value->natural, false, out); return CREW_OK;
    case CREW_TYPE_DOUBLE: return write_double(value->number, out);
    case CREW_TYPE_STRING: return crew_json_write_string(crew_text_of(value), out);
    case CREW_TYPE_BYTES: write_base64(crew_text_of(value), out); return CREW_OK;
    case CREW_TYPE_EXT:
        crew_buffer_printf(out, "{\"ext\":%d,\"data\":", value->ext_type);
        write_base64(crew_text_of(value), out);
        crew_buffer_text(out, "}");
        return CREW_OK;
    case CREW_TYPE_ARRAY:
    case CREW_TYPE_OBJECT: return write_container(w, value);
    default: put(out, "null", 4); return CREW_OK;
    }
}

crew_status crew_json_write(const crew_value *value, crew_json_style style, crew_buffer *out)
{
    size_t before = out->size;
    struct writer w = { .out = out, .pretty = style == CREW_JSON_PRETTY };
    crew_status status = write_value(&w, value);
    if (status == CREW_OK && out->failed)
        status = CREW_NO_MEMORY;
    if (status != CREW_OK)
        out->size = before;
    return status;
}

crew_status crew_json_encode(const crew_value *value, crew_json_style style, crew_bytes *text)
{
    crew_buffer out = { 0 };
    return crew_buffer_give(&out, crew_json_write(value, style, &out), text);
}

crew_status crew_json_extract(crew_string object, const char *member, crew_buffer *out)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL;
    crew_status status = crew_json_decode(object, NULL, &arena, &value, NULL);
    if (status == CREW_OK) {
        const crew_value *found = crew_value_get(value, member);
        status = found ? crew_json_write(found, CREW_JSON_COMPACT, out) : CREW_NOT_FOUND;
    }
    crew_arena_fini(&arena);
    return status;
}
