/* What MessagePack carries and JSON does not, in words. */
#include "show.h"

#include <math.h>
#include <stdlib.h>

static crew_status show_bytes(crew_arena *arena, const crew_value *value, const crew_value **shown)
{
    static const char digits[] = "0123456789abcdef";
    crew_string bytes = { 0 };
    (void)!crew_value_bytes(value, &bytes);
    char *text = malloc(2 * bytes.size + 1);
    if (!text)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < bytes.size; i++) {
        text[2 * i] = digits[(unsigned char)bytes.data[i] >> 4];
        text[2 * i + 1] = digits[bytes.data[i] & 15];
    }
    crew_status status = crew_pack(arena, shown, "s%", text, 2 * bytes.size);
    if (status == CREW_OK && crew_value_type(value) == CREW_TYPE_EXT)
        status = crew_pack(arena, shown, "{s:i,s:o}", "ext", crew_value_ext_type(value), "data", *shown);
    free(text);
    return status;
}

static crew_status show_number(crew_arena *arena, const crew_value *value, const crew_value **shown)
{
    double number = 0;
    (void)!crew_value_double(value, &number);
    *shown = value;
    if (isfinite(number))
        return CREW_OK;
    return crew_pack(arena, shown, "s", isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity");
}

static crew_status show_array(crew_arena *arena, const crew_value *value, const crew_value **shown)
{
    crew_value *array;
    crew_status status = crew_array_new(arena, &array);
    for (size_t i = 0; i < crew_value_count(value) && status == CREW_OK; i++) {
        const crew_value *item;
        status = cli_show(arena, crew_value_at(value, i), &item);
        if (status == CREW_OK)
            status = crew_array_add(arena, array, item);
    }
    *shown = array;
    return status;
}

/* A key as text: a string is itself, all else its JSON. */
static crew_status show_key(crew_arena *arena, const crew_value *key, crew_string *text)
{
    const crew_value *shown;
    crew_bytes json;
    crew_status status = cli_show(arena, key, &shown);
    if (status != CREW_OK || crew_value_string(shown, text) == CREW_OK)
        return status;
    status = crew_json_encode(shown, CREW_JSON_COMPACT, &json);
    if (status != CREW_OK)
        return status;
    status = crew_pack(arena, &shown, "s%", json.data, json.size);
    if (status == CREW_OK)
        status = crew_value_string(shown, text);
    crew_bytes_free(&json);
    return status;
}

static crew_status show_object(crew_arena *arena, const crew_value *value, const crew_value **shown)
{
    crew_value *object;
    crew_status status = crew_object_new(arena, &object);
    for (size_t i = 0; i < crew_value_count(value) && status == CREW_OK; i++) {
        const crew_value *member;
        crew_string key;
        status = show_key(arena, crew_value_key_at(value, i), &key);
        if (status == CREW_OK)
            status = cli_show(arena, crew_value_at(value, i), &member);
        if (status == CREW_OK)
            status = crew_object_append(arena, object, key, member);
    }
    *shown = object;
    return status;
}

/* Whether JSON can say it as it is. */
static bool is_plain(const crew_value *value)
{
    crew_type type = crew_value_type(value);
    double number = 0;
    if (type == CREW_TYPE_DOUBLE && crew_value_double(value, &number) == CREW_OK)
        return isfinite(number);
    for (size_t i = 0; i < crew_value_count(value); i++) {
        bool key =
            type != CREW_TYPE_OBJECT || crew_value_type(crew_value_key_at(value, i)) == CREW_TYPE_STRING;
        if (!key || !is_plain(crew_value_at(value, i)))
            return false;
    }
    return type != CREW_TYPE_BYTES && type != CREW_TYPE_EXT;
}

crew_status cli_show(crew_arena *arena, const crew_value *value, const crew_value **shown)
{
    *shown = value;
    if (is_plain(value))
        return CREW_OK;
    switch (crew_value_type(value)) {
    case CREW_TYPE_BYTES:
    case CREW_TYPE_EXT: return show_bytes(arena, value, shown);
    case CREW_TYPE_DOUBLE: return show_number(arena, value, shown);
    case CREW_TYPE_ARRAY: return show_array(arena, value, shown);
    case CREW_TYPE_OBJECT: return show_object(arena, value, shown);
    default: return CREW_OK;
    }
}
