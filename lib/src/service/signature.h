/* Declared signatures: "minuend:number subtrahend:number", parsed once, bound to the params of each call. */
#ifndef SERVICE_SIGNATURE_H
#define SERVICE_SIGNATURE_H

#include <rpcrew/impl/memory.h>

/* The types a param can be declared as. */
#define CREW_PARAM_LIST(X) \
    X(ANY, "any")          \
    X(BOOL, "bool")        \
    X(INT, "int")          \
    X(UINT, "uint")        \
    X(NUMBER, "number")    \
    X(STRING, "string")    \
    X(BYTES, "bytes")      \
    X(ARRAY, "array")      \
    X(OBJECT, "object")

typedef enum crew_param_type {
#define X(name, text) CREW_PARAM_##name,
    CREW_PARAM_LIST(X)
#undef X
        CREW_PARAM_COUNT
} crew_param_type;

/* A declared type: one of the list, and perhaps one of a service's own that travels as that. */
struct crew_declared {
    crew_param_type type;
    const crew_custom_type *custom; /* NULL: none */
};

struct crew_param {
    crew_string name;
    struct crew_declared declared;
    bool optional;
    const crew_value *fallback; /* what an optional one is if it is not given; NULL: nothing */
    bool variadic;              /* the last one only */
};

/* Immutable once parsed. */
struct crew_signature {
    struct crew_param *params;
    size_t count;
    bool unchecked; /* no signature: anything goes */
    bool custom;    /* some param is of a type of the service's own */
};

/* What a call's params are bound to. */
struct crew_arguments {
    const crew_value **items; /* NULL: not given */
    const void **objects;     /* C objects of the service's own types; NULL: there are none */
    size_t count;
};

/* A service's own types: a list with NULL at its end, or NULL. */
typedef const crew_custom_type *const *crew_custom_types;

/* As it is written in a signature. */
const char *crew_declared_name(const struct crew_declared *declared);

/* Finds a type by its name. */
bool crew_declared_find(crew_string name, crew_custom_types types, struct crew_declared *declared);

/* CREW_BAD_ARGUMENT with *why, if one of the types is not what crew_custom_type wants. */
CREW_NODISCARD crew_status crew_custom_types_check(crew_custom_types types, crew_error *why);

/* text NULL: unchecked. What it makes is in the arena, which lives as long; names point into text.
 * CREW_BAD_ARGUMENT with *why, CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_signature_parse(const char *text, crew_custom_types types, crew_arena *arena,
                                                struct crew_signature *signature, crew_error *why);

/* Binds params (array, object or NULL) to the signature. CREW_MISMATCH: *why says which param is wrong and
 * what was expected, *data the same for programs. CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_signature_bind(const struct crew_signature *signature,
                                               const crew_value *params, bool base64_bytes, crew_arena *arena,
                                               struct crew_arguments *arguments, const crew_value **data,
                                               crew_error *why);

/* The param that an argument's index belongs to; NULL if there is none. */
const struct crew_param *crew_signature_param(const struct crew_signature *signature, size_t index);

#endif
