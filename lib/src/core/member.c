/* Reading where what is wrong does not matter, or has another form on each wire. */
#include "core/base64.h"
#include "core/value.h"

crew_status crew_value_base64(crew_arena *arena, const crew_value *value, crew_string *out)
{
    switch (crew_value_type(value)) {
    case CREW_TYPE_BYTES: return crew_value_bytes(value, out);
    case CREW_TYPE_STRING: return crew_base64_decode(crew_text_of(value), arena, out);
    default: return CREW_MISMATCH;
    }
}

bool crew_member_bool(const crew_value *object, const char *key, bool fallback)
{
    bool value;
    return crew_value_bool(crew_value_get(object, key), &value) == CREW_OK ? value : fallback;
}

int64_t crew_member_int(const crew_value *object, const char *key, int64_t fallback)
{
    int64_t value;
    return crew_value_int(crew_value_get(object, key), &value) == CREW_OK ? value : fallback;
}

uint64_t crew_member_uint(const crew_value *object, const char *key, uint64_t fallback)
{
    uint64_t value;
    return crew_value_uint(crew_value_get(object, key), &value) == CREW_OK ? value : fallback;
}

double crew_member_double(const crew_value *object, const char *key, double fallback)
{
    double value;
    return crew_value_double(crew_value_get(object, key), &value) == CREW_OK ? value : fallback;
}

crew_string crew_member_string(const crew_value *object, const char *key, crew_string fallback)
{
    crew_string value;
    return crew_value_string(crew_value_get(object, key), &value) == CREW_OK ? value : fallback;
}

/* An object with the same members; an empty one of NULL. NULL: it is no object, or there is no memory. */
static crew_value *copy_object(crew_arena *arena, const crew_value *object)
{
    crew_value *copy;
    if ((object && object->type != CREW_TYPE_OBJECT) || crew_object_new(arena, &copy) != CREW_OK)
        return NULL;
    for (size_t i = 0; object && i < crew_value_count(object); i++) {
        struct crew_member *member = crew_object_place(arena, copy);
        if (!member)
            return NULL;
        *member = object->members[i];
    }
    return copy;
}

const crew_value *crew_value_with_ours(crew_arena *arena, const crew_value *data, const char *key,
                                       const crew_value *value)
{
    crew_value *copy = copy_object(arena, data), *ours = copy_object(arena, crew_value_get(data, "rpcrew"));
    bool good = copy && ours && crew_object_add(arena, ours, crew_str(key), value) == CREW_OK &&
                crew_object_add(arena, copy, crew_str("rpcrew"), ours) == CREW_OK;
    return good ? copy : NULL;
}
