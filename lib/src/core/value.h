/* What a value is, for the files that read and build many of them. */
#ifndef CORE_VALUE_H
#define CORE_VALUE_H

#include <rpcrew/impl/memory.h>

/* Arrays and objects inside one another, at most: what walks through them recurses. */
enum { CREW_DEPTH_MAX = 1024 };

/* 16 bytes. Items and members stand in one block in the arena, so that an array is a real array. */
struct crew_value {
    uint8_t type;    /* crew_type */
    int8_t ext_type; /* of CREW_TYPE_EXT */
    uint8_t room;    /* array, object: there is space for 1 << room items; 0: for as many as there are */
    uint32_t size;   /* bytes, items or members */
    union {
        bool boolean;
        int64_t integer;
        uint64_t natural;
        double number;
        const char *bytes;
        struct crew_value *items;
        struct crew_member *members;
    };
};

struct crew_member {
    struct crew_value key, value;
};

static inline crew_value crew_make_int(int64_t i)
{
    return (crew_value){ .type = CREW_TYPE_INT, .integer = i };
}

static inline crew_value crew_make_bool(bool b)
{
    return (crew_value){ .type = CREW_TYPE_BOOL, .boolean = b };
}

static inline crew_value crew_make_double(double d)
{
    return (crew_value){ .type = CREW_TYPE_DOUBLE, .number = d };
}

/* CREW_TYPE_UINT only holds what an int cannot. */
static inline crew_value crew_make_uint(uint64_t u)
{
    if (u <= INT64_MAX)
        return crew_make_int((int64_t)u);
    return (crew_value){ .type = CREW_TYPE_UINT, .natural = u };
}

/* The bytes are shared. Sizes are checked where bytes come in: no message is 4 GiB. */
static inline crew_value crew_make_text(crew_type type, crew_string text)
{
    return (crew_value){ .type = (uint8_t)type, .size = (uint32_t)text.size, .bytes = text.data };
}

static inline crew_string crew_text_of(const crew_value *value)
{
    return (crew_string){ value->bytes, value->size };
}

/* Whether a double is a whole number that int64_t holds. */
bool crew_double_is_int(double number);

/* crew_value_get by a key of known length. */
const crew_value *crew_value_find(const crew_value *value, crew_string key);

/* A copy of a value struct, in the arena; NULL without memory. */
crew_value *crew_value_in(crew_arena *arena, crew_value value);

/* Appends a place to an array or object for the caller to fill; NULL without memory. */
crew_value *crew_array_place(crew_arena *arena, crew_value *array);
/* An error's data with rpcrew.KEY in it: data's members, or none of NULL, and in rpcrew those that it has,
 * and this one. NULL: there is no place for it, since data, or its rpcrew, is no object; or no memory. */
const crew_value *crew_value_with_ours(crew_arena *arena, const crew_value *data, const char *key,
                                       const crew_value *value);

struct crew_member *crew_object_place(crew_arena *arena, crew_value *object);

/* Of members with the same string key leaves one: with the last one's value, in the first one's place. All
 * keys are strings. CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_object_unite(crew_value *object);

#endif
