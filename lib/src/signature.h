/* Declared signatures: "minuend:number subtrahend:number", parsed once, bound to the params of each call. */
#ifndef SIGNATURE_H
#define SIGNATURE_H

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

struct crew_param {
    crew_string name;
    crew_param_type type;
    bool optional;
    bool variadic; /* the last one only */
};

/* Immutable once parsed. */
struct crew_signature {
    struct crew_param *params;
    size_t count;
    bool unchecked; /* no signature: anything goes */
};

/* What a call's params are bound to. */
struct crew_arguments {
    const crew_value **items; /* NULL: not given */
    size_t count;
};

const char *crew_param_type_name(crew_param_type type);

/* Finds a type by its name; CREW_PARAM_COUNT if it is none. */
crew_param_type crew_param_type_find(crew_string name);

/* text NULL: unchecked. What it makes is in the arena; names point into text. CREW_BAD_ARGUMENT with *why,
 * CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_signature_parse(const char *text, crew_arena *arena,
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
