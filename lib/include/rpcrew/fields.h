/* A struct's members and an object's, by one table for both ways:
 *
 *     struct account { crew_string name; int64_t cents; bool closed; };
 *     static const crew_field account_fields[] = {
 *         CREW_FIELD(struct account, name),
 *         CREW_FIELD(struct account, cents),
 *         CREW_OPTIONAL_FIELD(struct account, closed),
 *         CREW_END_OF_FIELDS,
 *     };
 *
 *     struct account account = { .closed = false };
 *     if (crew_object_read(crew_arg(call, 0), account_fields, &account, &why) != CREW_OK)
 *         return crew_fail_param(call, 0, "%s", why.message);
 *
 * A member's C type says what it is on the wire: bool; int, int64_t, uint32_t and uint64_t, integers; double,
 * any number; crew_string and const char *, a string; const crew_value *, whatever comes. A member of another
 * type does not compile. */
#ifndef RPCREW_FIELDS_H
#define RPCREW_FIELDS_H

#include <rpcrew/value.h>

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum crew_field_type {
    CREW_FIELD_BOOL,
    CREW_FIELD_INT,
    CREW_FIELD_INT64,
    CREW_FIELD_UINT32,
    CREW_FIELD_UINT64,
    CREW_FIELD_DOUBLE,
    CREW_FIELD_STRING,
    CREW_FIELD_TEXT, /* without a NUL inside */
    CREW_FIELD_VALUE
} crew_field_type;

/* A row of the table; one without a name ends it. */
typedef struct crew_field {
    const char *name; /* the object's */
    size_t offset;    /* the struct's */
    crew_field_type type;
    bool optional; /* it may be missing, or null */
} crew_field;

#ifndef __cplusplus
#define CREW_FIELD_TYPE(expression)     \
    _Generic((expression),              \
        bool: CREW_FIELD_BOOL,          \
        int: CREW_FIELD_INT,            \
        int64_t: CREW_FIELD_INT64,      \
        uint32_t: CREW_FIELD_UINT32,    \
        uint64_t: CREW_FIELD_UINT64,    \
        double: CREW_FIELD_DOUBLE,      \
        crew_string: CREW_FIELD_STRING, \
        const char *: CREW_FIELD_TEXT,  \
        const crew_value *: CREW_FIELD_VALUE)

/* Of the same name on both sides, or of another in the object. */
#define CREW_FIELD(structure, member) CREW_NAMED_FIELD(structure, member, #member)
#define CREW_NAMED_FIELD(structure, member, object_name) \
    { object_name, offsetof(structure, member), CREW_FIELD_TYPE(((structure *)0)->member), false }
#define CREW_OPTIONAL_FIELD(structure, member) \
    { #member, offsetof(structure, member), CREW_FIELD_TYPE(((structure *)0)->member), true }
#define CREW_END_OF_FIELDS { NULL, 0, CREW_FIELD_BOOL, false }
#endif

/* Reads an object's members into a struct. An optional one that is missing or null leaves its target as it
 * is; what the table does not name is passed over. Strings and values are borrowed for the object's arena's
 * life. CREW_MISMATCH: it is no object, a member is missing or has another type; CREW_OUT_OF_RANGE: a number
 * that does not fit; with *why naming the member and what it wants. Members before that one are written. */
CREW_NODISCARD CREW_API crew_status crew_object_read(const crew_value *object, const crew_field *fields,
                                                     void *into, crew_error *why);

/* Makes an object of a struct. A string without data, a text or a value that is NULL, is left out if it is
 * optional, else it is null. Strings are copied, values shared. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_object_write(crew_arena *arena, const crew_field *fields,
                                                      const void *from, crew_value **object);

#ifdef __cplusplus
}
#endif

#endif
