/* Structs from and to objects. */
#include "core/value.h"

#include <rpcrew/fields.h>

#include <limits.h>
#include <string.h>

static const char *const wanted[] = {
    [CREW_FIELD_BOOL] = "true or false",
    [CREW_FIELD_INT] = "an integer of 32 bits",
    [CREW_FIELD_INT64] = "an integer of 64 bits",
    [CREW_FIELD_UINT32] = "an integer from 0 to 4294967295",
    [CREW_FIELD_UINT64] = "an integer from 0 to 18446744073709551615",
    [CREW_FIELD_DOUBLE] = "a number",
    [CREW_FIELD_STRING] = "a string",
    [CREW_FIELD_TEXT] = "a string without a NUL in it",
    [CREW_FIELD_VALUE] = "a value",
};

static crew_status read_int(const crew_value *value, int *out)
{
    int64_t wide;
    crew_status status = crew_value_int(value, &wide);
    if (status == CREW_OK && (wide < INT_MIN || wide > INT_MAX))
        status = CREW_OUT_OF_RANGE;
    if (status == CREW_OK)
        *out = (int)wide;
    return status;
}

static crew_status read_uint32(const crew_value *value, uint32_t *out)
{
    uint64_t wide;
    crew_status status = crew_value_uint(value, &wide);
    if (status == CREW_OK && wide > UINT32_MAX)
        status = CREW_OUT_OF_RANGE;
    if (status == CREW_OK)
        *out = (uint32_t)wide;
    return status;
}

static crew_status read_text(const crew_value *value, const char **out)
{
    crew_string text;
    crew_status status = crew_value_string(value, &text);
    if (status == CREW_OK && memchr(text.data, '\0', text.size))
        status = CREW_MISMATCH;
    if (status == CREW_OK)
        *out = text.data; /* behind which there is one */
    return status;
}

static crew_status read_one(const crew_value *value, crew_field_type type, void *out)
{
    switch (type) {
    case CREW_FIELD_BOOL: return crew_value_bool(value, out);
    case CREW_FIELD_INT: return read_int(value, out);
    case CREW_FIELD_INT64: return crew_value_int(value, out);
    case CREW_FIELD_UINT32: return read_uint32(value, out);
    case CREW_FIELD_UINT64: return crew_value_uint(value, out);
    case CREW_FIELD_DOUBLE: return crew_value_double(value, out);
    case CREW_FIELD_STRING: return crew_value_string(value, out);
    case CREW_FIELD_TEXT: return read_text(value, out);
    default: *(const crew_value **)out = value; return CREW_OK;
    }
}

crew_status crew_object_read(const crew_value *object, const crew_field *fields, void *into, crew_error *why)
{
    if (crew_value_type(object) != CREW_TYPE_OBJECT)
        return crew_error_set(why, CREW_MISMATCH, "wants an object, not %s",
                              crew_type_name(crew_value_type(object)));
    for (const crew_field *f = fields; f->name; f++) {
        const crew_value *value = crew_value_get(object, f->name);
        bool is_null = crew_value_type(value) == CREW_TYPE_NULL;
        if (f->optional && is_null)
            continue;
        if (!value)
            return crew_error_set(why, CREW_MISMATCH, "%s is missing: it wants %s", f->name, wanted[f->type]);
        crew_status status = read_one(value, f->type, (char *)into + f->offset);
        if (status == CREW_OUT_OF_RANGE)
            return crew_error_set(why, status, "%s does not fit: it wants %s", f->name, wanted[f->type]);
        if (status != CREW_OK)
            return crew_error_set(why, status, "%s wants %s, not %s", f->name, wanted[f->type],
                                  crew_type_name(crew_value_type(value)));
    }
    return CREW_OK;
}

/* NULL: there is nothing to be written. */
static crew_status make_one(crew_arena *arena, crew_field_type type, const void *from,
                            const crew_value **value)
{
    const crew_string *text = from;
    const char *const *words = from;
    *value = NULL;
    switch (type) {
    case CREW_FIELD_BOOL: return crew_pack(arena, value, "b", *(const bool *)from);
    case CREW_FIELD_INT: return crew_pack(arena, value, "i", *(const int *)from);
    case CREW_FIELD_INT64: return crew_pack(arena, value, "I", *(const int64_t *)from);
    case CREW_FIELD_UINT32: return crew_pack(arena, value, "I", (int64_t)*(const uint32_t *)from);
    case CREW_FIELD_UINT64: return crew_pack(arena, value, "U", *(const uint64_t *)from);
    case CREW_FIELD_DOUBLE: return crew_pack(arena, value, "f", *(const double *)from);
    case CREW_FIELD_STRING: return text->data ? crew_pack(arena, value, "S", *text) : CREW_OK;
    case CREW_FIELD_TEXT: return *words ? crew_pack(arena, value, "s", *words) : CREW_OK;
    default: *value = *(const crew_value *const *)from; return CREW_OK;
    }
}

crew_status crew_object_write(crew_arena *arena, const crew_field *fields, const void *from,
                              crew_value **object)
{
    static const crew_value null;
    crew_value *made;
    crew_status status = crew_object_new(arena, &made);
    for (const crew_field *f = fields; status == CREW_OK && f->name; f++) {
        const crew_value *value;
        status = make_one(arena, f->type, (const char *)from + f->offset, &value);
        if (status == CREW_OK && (value || !f->optional))
            status = crew_object_append(arena, made, crew_str(f->name), value ? value : &null);
    }
    if (status == CREW_OK)
        *object = made;
    return status;
}
