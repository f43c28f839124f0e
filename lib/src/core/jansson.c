/* The bridge to jansson's values, both ways. */
#include "core/base64.h"
#include "core/json.h"
#include "core/utf8.h"
#include "core/value.h"

#include <math.h>
#include <rpcrew/jansson.h>

/* ---- from ---- */

static crew_status from_json(json_t *json, crew_arena *arena, unsigned depth, crew_value *out);

static crew_status from_text(const char *data, size_t size, crew_arena *arena, crew_value *out)
{
    crew_string copy = crew_arena_string(arena, (crew_string){ data, size });
    if (!copy.data)
        return CREW_NO_MEMORY;
    *out = crew_make_text(CREW_TYPE_STRING, copy);
    return CREW_OK;
}

static crew_status from_array(json_t *json, crew_arena *arena, unsigned depth, crew_value *out)
{
    size_t count = json_array_size(json);
    crew_value *items = crew_arena_alloc(arena, count * sizeof *items);
    crew_status status = items ? CREW_OK : CREW_NO_MEMORY;
    for (size_t i = 0; i < count && status == CREW_OK; i++)
        status = from_json(json_array_get(json, i), arena, depth, &items[i]);
    *out = (crew_value){ .type = CREW_TYPE_ARRAY, .size = (uint32_t)count, .items = items };
    return status;
}

static crew_status from_object(json_t *json, crew_arena *arena, unsigned depth, crew_value *out)
{
    size_t count = json_object_size(json), i = 0;
    struct crew_member *members = crew_arena_alloc(arena, count * sizeof *members);
    crew_status status = members ? CREW_OK : CREW_NO_MEMORY;
    for (void *at = json_object_iter(json); at && status == CREW_OK;
         at = json_object_iter_next(json, at), i++) {
        status = from_text(json_object_iter_key(at), json_object_iter_key_len(at), arena, &members[i].key);
        if (status == CREW_OK)
            status = from_json(json_object_iter_value(at), arena, depth, &members[i].value);
    }
    *out = (crew_value){ .type = CREW_TYPE_OBJECT, .size = (uint32_t)count, .members = members };
    return status;
}

static crew_status from_json(json_t *json, crew_arena *arena, unsigned depth, crew_value *out)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT: return depth < CREW_DEPTH_MAX ? from_object(json, arena, depth + 1, out) : CREW_LIMIT;
    case JSON_ARRAY: return depth < CREW_DEPTH_MAX ? from_array(json, arena, depth + 1, out) : CREW_LIMIT;
    case JSON_STRING: return from_text(json_string_value(json), json_string_length(json), arena, out);
    case JSON_INTEGER: *out = crew_make_int(json_integer_value(json)); break;
    case JSON_REAL: *out = crew_make_double(json_real_value(json)); break;
    case JSON_TRUE:
    case JSON_FALSE: *out = crew_make_bool(json_is_true(json)); break;
    default: *out = (crew_value){ .type = CREW_TYPE_NULL }; break;
    }
    return CREW_OK;
}

crew_status crew_value_from_jansson(json_t *json, crew_arena *arena, const crew_value **value)
{
    crew_value made;
    if (!json)
        return CREW_BAD_ARGUMENT;
    crew_status status = from_json(json, arena, 0, &made);
    const crew_value *kept = status == CREW_OK ? crew_value_in(arena, made) : NULL;
    if (status == CREW_OK && !kept)
        status = CREW_NO_MEMORY;
    if (status == CREW_OK)
        *value = kept;
    return status;
}

/* ---- to ---- */

static crew_status to_json(const crew_value *value, unsigned depth, json_t **json);

static crew_status to_string(crew_string text, json_t **json)
{
    if (!crew_utf8_valid(text))
        return CREW_MALFORMED;
    *json = json_stringn_nocheck(text.size ? text.data : "", text.size);
    return *json ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status to_base64(crew_string bytes, json_t **json)
{
    crew_buffer text = { 0 };
    crew_base64_encode(bytes, &text);
    *json = text.failed ? NULL : json_stringn_nocheck(text.size ? text.data : "", text.size);
    crew_buffer_fini(&text);
    return *json ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status to_ext(const crew_value *value, json_t **json)
{
    json_t *data = NULL;
    crew_status status = to_base64(crew_text_of(value), &data);
    if (status != CREW_OK)
        return status;
    *json = json_pack("{s:i,s:o}", "ext", value->ext_type, "data", data); /* which takes data in any case */
    return *json ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status to_array(const crew_value *value, unsigned depth, json_t *array)
{
    crew_status status = CREW_OK;
    for (uint32_t i = 0; i < value->size && status == CREW_OK; i++) {
        json_t *item = NULL;
        status = to_json(&value->items[i], depth, &item);
        if (status == CREW_OK && json_array_append_new(array, item) != 0)
            status = CREW_NO_MEMORY;
    }
    return status;
}

/* The key's text: its own, or the digits of an integer. */
static crew_status key_text(const crew_value *key, crew_buffer *digits, crew_string *text)
{
    *text = crew_text_of(key);
    if (key->type == CREW_TYPE_STRING)
        return crew_utf8_valid(*text) ? CREW_OK : CREW_MALFORMED;
    if (key->type != CREW_TYPE_INT && key->type != CREW_TYPE_UINT)
        return CREW_UNSUPPORTED;
    crew_status status = crew_json_write(key, CREW_JSON_COMPACT, digits);
    *text = crew_buffer_string(digits);
    return status;
}

static crew_status to_object(const crew_value *value, unsigned depth, json_t *object)
{
    crew_status status = CREW_OK;
    for (uint32_t i = 0; i < value->size && status == CREW_OK; i++) {
        json_t *item = NULL;
        crew_buffer digits = { 0 };
        crew_string key;
        status = key_text(&value->members[i].key, &digits, &key);
        if (status == CREW_OK)
            status = to_json(&value->members[i].value, depth, &item);
        if (status == CREW_OK &&
            json_object_setn_new_nocheck(object, key.size ? key.data : "", key.size, item) != 0)
            status = CREW_NO_MEMORY;
        crew_buffer_fini(&digits);
    }
    return status;
}

static crew_status to_container(const crew_value *value, unsigned depth, json_t **json)
{
    bool array = value->type == CREW_TYPE_ARRAY;
    if (depth >= CREW_DEPTH_MAX)
        return CREW_LIMIT;
    json_t *made = array ? json_array() : json_object();
    if (!made)
        return CREW_NO_MEMORY;
    crew_status status = array ? to_array(value, depth + 1, made) : to_object(value, depth + 1, made);
    if (status == CREW_OK)
        *json = made;
    else
        json_decref(made);
    return status;
}

static crew_status to_json(const crew_value *value, unsigned depth, json_t **json)
{
    switch (crew_value_type(value)) {
    case CREW_TYPE_BOOL: *json = json_boolean(value->boolean); break;
    case CREW_TYPE_INT: *json = json_integer(value->integer); break;
    case CREW_TYPE_UINT: return CREW_OUT_OF_RANGE;
    case CREW_TYPE_DOUBLE:
        if (!isfinite(value->number))
            return CREW_UNSUPPORTED;
        *json = json_real(value->number);
        break;
    case CREW_TYPE_STRING: return to_string(crew_text_of(value), json);
    case CREW_TYPE_BYTES: return to_base64(crew_text_of(value), json);
    case CREW_TYPE_EXT: return to_ext(value, json);
    case CREW_TYPE_ARRAY:
    case CREW_TYPE_OBJECT: return to_container(value, depth, json);
    default: *json = json_null(); break;
    }
    return *json ? CREW_OK : CREW_NO_MEMORY;
}

crew_status crew_value_to_jansson(const crew_value *value, json_t **json)
{
    json_t *made = NULL;
    crew_status status = to_json(value, 0, &made);
    if (status == CREW_OK)
        *json = made;
    return status;
}
