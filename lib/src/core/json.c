/* JSON text to values, parsed by jansson; values to JSON text, written directly.
 *
 * Writing needs no library: a tree of another library's nodes, built only to be dumped, costs more than the
 * text, and jansson prints 0.1 as 0.10000000000000001. */
#include "core/json.h"

#include "core/base64.h"
#include "core/json_scan.h"
#include "core/utf8.h"
#include "core/value.h"

#include <rpcrew/impl/message.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- reading ---- */

static crew_status convert(json_t *json, crew_arena *arena, crew_value *out);

static crew_status convert_text(const char *data, size_t size, crew_arena *arena, crew_value *out)
{
    crew_string copy = crew_arena_string(arena, (crew_string){ data, size });
    if (!copy.data)
        return CREW_NO_MEMORY;
    *out = crew_make_text(CREW_TYPE_STRING, copy);
    return CREW_OK;
}

static crew_status convert_array(json_t *json, crew_arena *arena, crew_value *out)
{
    size_t count = json_array_size(json);
    crew_value *items = crew_arena_alloc(arena, count * sizeof *items);
    if (!items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        crew_status status = convert(json_array_get(json, i), arena, &items[i]);
        if (status != CREW_OK)
            return status;
    }
    *out = (crew_value){ .type = CREW_TYPE_ARRAY, .size = (uint32_t)count, .items = items };
    return CREW_OK;
}

static crew_status convert_object(json_t *json, crew_arena *arena, crew_value *out)
{
    size_t count = json_object_size(json);
    struct crew_member *members = crew_arena_alloc(arena, count * sizeof *members);
    if (!members)
        return CREW_NO_MEMORY;
    size_t i = 0;
    for (void *at = json_object_iter(json); at; at = json_object_iter_next(json, at), i++) {
        const char *key = json_object_iter_key(at);
        crew_status status = convert_text(key, json_object_iter_key_len(at), arena, &members[i].key);
        if (status == CREW_OK)
            status = convert(json_object_iter_value(at), arena, &members[i].value);
        if (status != CREW_OK)
            return status;
    }
    *out = (crew_value){ .type = CREW_TYPE_OBJECT, .size = (uint32_t)count, .members = members };
    return CREW_OK;
}

static crew_status convert(json_t *json, crew_arena *arena, crew_value *out)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT: return convert_object(json, arena, out);
    case JSON_ARRAY: return convert_array(json, arena, out);
    case JSON_STRING: return convert_text(json_string_value(json), json_string_length(json), arena, out);
    case JSON_INTEGER: *out = crew_make_int(json_integer_value(json)); return CREW_OK;
    case JSON_REAL: *out = crew_make_double(json_real_value(json)); return CREW_OK;
    case JSON_TRUE:
    case JSON_FALSE: *out = crew_make_bool(json_is_true(json)); return CREW_OK;
    default: *out = (crew_value){ .type = CREW_TYPE_NULL }; return CREW_OK;
    }
}

static crew_status parse(crew_string text, json_t **json, crew_error *why)
{
    json_error_t error;
    *json = json_loadb(text.data ? text.data : "", text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (*json)
        return CREW_OK;
    crew_status status =
        json_error_code(&error) == json_error_out_of_memory ? CREW_NO_MEMORY : CREW_MALFORMED;
    return crew_error_set(why, status, "%s at offset %d", error.text, error.position);
}

crew_status crew_json_read(crew_string text, const crew_limits *limits, crew_arena *arena,
                           struct crew_json_notes *notes, const crew_value **value, crew_error *why)
{
    if (text.size > limits->message_bytes)
        return crew_error_set(why, CREW_LIMIT, "%zu bytes; at most %zu are allowed", text.size,
                              limits->message_bytes);
    crew_status status = crew_json_scan(&text, limits, arena, notes, why);
    if (status != CREW_OK)
        return status;
    json_t *json = NULL;
    status = parse(text, &json, why);
    if (status != CREW_OK)
        return status;
    crew_value *made = crew_arena_alloc(arena, sizeof *made);
    status = made ? convert(json, arena, made) : CREW_NO_MEMORY;
    json_decref(json);
    if (status == CREW_OK)
        *value = made;
    return status;
}

crew_status crew_json_decode(crew_string text, const crew_limits *limits, crew_arena *arena,
                             const crew_value **value, crew_error *why)
{
    crew_limits resolved = crew_limits_resolve(limits);
    resolved.batch = UINT32_MAX; /* an array of values is no batch */
    struct crew_json_notes notes = { 0 };
    const crew_value *made = NULL;
    crew_status status = crew_json_read(text, &resolved, arena, &notes, &made, why);
    if (status != CREW_OK)
        return status;
    for (size_t i = 0; i < notes.count; i++)
        if (notes.items[i].too_big)
            return crew_error_set(why, CREW_OUT_OF_RANGE, "an integer beyond int64%s%s",
                                  *notes.items[i].too_big ? " at " : "", notes.items[i].too_big);
    *value = made;
    return CREW_OK;
}

/* ---- writing ---- */

void crew_json_write_int(int64_t number, crew_buffer *out)
{
    char digits[24], *at = digits + sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0)
        *--at = '-';
    crew_buffer_append(out, at, (size_t)(digits + sizeof digits - at));
}

static crew_status write_double(double number, crew_buffer *out)
{
    if (!isfinite(number))
        return CREW_UNSUPPORTED;
    if (number == 0 && signbit(number)) {
        crew_buffer_text(out, "-0.0"); /* "-0" would be read as the integer */
        return CREW_OK;
    }
    if (crew_double_is_int(number)) {
        crew_json_write_int((int64_t)number, out);
        return CREW_OK;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    /* The process may have set a locale with another decimal point, of any length; JSON knows one. */
    char *mark = text + strspn(text, "-0123456789");
    if (*mark && *mark != 'e') {
        const char *fraction = mark + strcspn(mark, "0123456789");
        *mark = '.';
        memmove(mark + 1, fraction, strlen(fraction) + 1);
    }
    crew_buffer_text(out, text);
    return CREW_OK;
}

static void write_escape(unsigned char c, crew_buffer *out)
{
    static const char shorts[] = "btn\0fr";
    if (c == '"' || c == '\\')
        crew_buffer_append(out, (char[]){ '\\', (char)c }, 2);
    else if (c >= '\b' && c <= '\r' && shorts[c - '\b'])
        crew_buffer_append(out, (char[]){ '\\', shorts[c - '\b'] }, 2);
    else
        crew_buffer_printf(out, "\\u%04x", c);
}

crew_status crew_json_write_string(crew_string text, crew_buffer *out)
{
    crew_buffer_append(out, "\"", 1);
    size_t from = 0, i = 0;
    while (i < text.size) {
        unsigned char c = (unsigned char)text.data[i];
        if (c >= 0x80) {
            size_t length = crew_utf8_length(text.data + i, text.size - i);
            if (length == 0)
                return CREW_MALFORMED;
            i += length;
        } else if (c >= 0x20 && c != '"' && c != '\\') {
            i++;
        } else {
            crew_buffer_append(out, text.data + from, i - from);
            write_escape(c, out);
            from = ++i;
        }
    }
    if (i > from) /* an empty text may be at NULL */
        crew_buffer_append(out, text.data + from, i - from);
    crew_buffer_append(out, "\"", 1);
    return CREW_OK;
}

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

static void write_base64(crew_string bytes, crew_buffer *out)
{
    crew_buffer_append(out, "\"", 1);
    crew_base64_encode(bytes, out);
    crew_buffer_append(out, "\"", 1);
}

static crew_status write_key(struct writer *w, const crew_value *key)
{
    crew_status status = CREW_OK;
    if (key->type == CREW_TYPE_STRING) {
        status = crew_json_write_string(crew_text_of(key), w->out);
    } else if (key->type == CREW_TYPE_INT) {
        crew_buffer_printf(w->out, "\"%lld\"", (long long)key->integer);
    } else if (key->type == CREW_TYPE_UINT) {
        crew_buffer_printf(w->out, "\"%llu\"", (unsigned long long)key->natural);
    } else {
        status = CREW_UNSUPPORTED;
    }
    crew_buffer_text(w->out, w->pretty ? ": " : ":");
    return status;
}

static crew_status write_value(struct writer *w, const crew_value *value);

static crew_status write_container(struct writer *w, const crew_value *value)
{
    bool array = value->type == CREW_TYPE_ARRAY;
    if (w->depth >= CREW_DEPTH_MAX)
        return CREW_LIMIT;
    crew_buffer_text(w->out, array ? "[" : "{");
    w->depth++;
    for (uint32_t i = 0; i < value->size; i++) {
        if (i)
            crew_buffer_append(w->out, ",", 1);
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
    crew_buffer_text(w->out, array ? "]" : "}");
    return CREW_OK;
}

static crew_status write_value(struct writer *w, const crew_value *value)
{
    crew_buffer *out = w->out;
    switch (crew_value_type(value)) {
    case CREW_TYPE_BOOL: crew_buffer_text(out, value->boolean ? "true" : "false"); return CREW_OK;
    case CREW_TYPE_INT: crew_json_write_int(value->integer, out); return CREW_OK;
    case CREW_TYPE_UINT: crew_buffer_printf(out, "%llu", (unsigned long long)value->natural); return CREW_OK;
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
    default: crew_buffer_text(out, "null"); return CREW_OK;
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
