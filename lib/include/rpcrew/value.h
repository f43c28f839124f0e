/* Values: what params and results are made of, on every wire.
 *
 * A value lives in an arena and is freed with it. Values that a function hands out are read-only and may be
 * read by any number of threads; an arena and the values being built in it belong to one thread at a time. */
#ifndef RPCREW_VALUE_H
#define RPCREW_VALUE_H

#include <rpcrew/status.h>
#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct crew_arena crew_arena;
typedef struct crew_value crew_value;

/* The X-macro list of types: constant, name in texts. */
#define CREW_TYPE_LIST(X)                                                                    \
    X(NULL, "null")                                                                          \
    X(BOOL, "bool")                                                                          \
    X(INT, "int")       /* int64_t */                                                        \
    X(UINT, "uint")     /* uint64_t above int's range, never below */                        \
    X(DOUBLE, "number") /* IEEE 754 double */                                                \
    X(STRING, "string") /* UTF-8, length-counted, NUL allowed; a NUL follows, not counted */ \
    X(BYTES, "bytes")                                                                        \
    X(ARRAY, "array")                                                                        \
    X(OBJECT, "object") /* members in order; MessagePack allows keys that are no strings */  \
    X(EXT, "ext")       /* MessagePack's ext: a type number and bytes, as it came */

typedef enum crew_type {
#define X(name, text) CREW_TYPE_##name,
    CREW_TYPE_LIST(X)
#undef X
        CREW_TYPE_COUNT
} crew_type;

/* "null", "bool", "int", …; "?" for a number that is no type. */
CREW_API const char *crew_type_name(crew_type type);

/* An empty arena. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_arena_new(crew_arena **arena);
/* Frees all its values; the arena can be used again, and keeps up to 1 MiB for that. */
CREW_API void crew_arena_reset(crew_arena *arena);
CREW_API void crew_arena_free(crew_arena *arena);

/* ---- Reading. A NULL value reads as null, so that lookups can be chained. ---- */

CREW_API crew_type crew_value_type(const crew_value *value);

/* Typed access: CREW_OK, CREW_MISMATCH (another type), CREW_OUT_OF_RANGE (a number that does not fit).
 * *out is untouched on failure. Integral doubles are ints where they fit; every number is a double. */
CREW_NODISCARD CREW_API crew_status crew_value_bool(const crew_value *value, bool *out);
CREW_NODISCARD CREW_API crew_status crew_value_int(const crew_value *value, int64_t *out);
CREW_NODISCARD CREW_API crew_status crew_value_uint(const crew_value *value, uint64_t *out);
CREW_NODISCARD CREW_API crew_status crew_value_double(const crew_value *value, double *out);
/* Borrowed for the arena's life. crew_value_bytes reads strings too; for CREW_TYPE_EXT it reads the body. */
CREW_NODISCARD CREW_API crew_status crew_value_string(const crew_value *value, crew_string *out);
CREW_NODISCARD CREW_API crew_status crew_value_bytes(const crew_value *value, crew_string *out);

/* Bytes on any wire: those of CREW_TYPE_BYTES as they are, a string as the base64 that JSON carries them in
 * (RFC 4648, padded), decoded into the arena. CREW_MISMATCH; CREW_MALFORMED: it is no base64;
 * CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_value_base64(crew_arena *arena, const crew_value *value,
                                                      crew_string *out);

/* Members of an object that may be missing: the fallback stands for one that is not there, is null, or is
 * something else. */
CREW_API bool crew_member_bool(const crew_value *object, const char *key, bool fallback);
CREW_API int64_t crew_member_int(const crew_value *object, const char *key, int64_t fallback);
CREW_API uint64_t crew_member_uint(const crew_value *object, const char *key, uint64_t fallback);
CREW_API double crew_member_double(const crew_value *object, const char *key, double fallback);
/* Borrowed for the arena's life. */
CREW_API crew_string crew_member_string(const crew_value *object, const char *key, crew_string fallback);

/* MessagePack's type number of an ext, -128…127; 0 for all else. */
CREW_API int crew_value_ext_type(const crew_value *value);

/* Items of an array, members of an object; 0 for all else. */
CREW_API size_t crew_value_count(const crew_value *value);
/* An array's item or an object's member value; NULL past the end. */
CREW_API const crew_value *crew_value_at(const crew_value *value, size_t index);
/* An object's key; NULL past the end or for all else. */
CREW_API const crew_value *crew_value_key_at(const crew_value *value, size_t index);
/* An object's member with this string key; NULL if there is none. */
CREW_API const crew_value *crew_value_get(const crew_value *value, const char *key);

/* Same type, same contents, deeply; int 1 and double 1.0 differ, the order of members does not count, and of
 * members with the same key the last does. Every key is looked for: not for objects of very many members. */
CREW_API bool crew_value_equal(const crew_value *a, const crew_value *b);

/* A copy in an arena, deeply, which shares nothing: to keep a value beyond its own arena. CREW_LIMIT: arrays
 * and objects stand more than 1,024 deep; CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_value_copy(crew_arena *arena, const crew_value *value,
                                                    const crew_value **copy);

/* ---- Building. Strings, items and members of what is added are shared, not copied: they must live in the
 * same arena or outlive it. An array or object is added as it is then: complete it first. ---- */

CREW_NODISCARD CREW_API crew_status crew_array_new(crew_arena *arena, crew_value **array);
CREW_NODISCARD CREW_API crew_status crew_array_add(crew_arena *arena, crew_value *array,
                                                   const crew_value *item);
CREW_NODISCARD CREW_API crew_status crew_object_new(crew_arena *arena, crew_value **object);
/* Appends a member; the key is copied. If the key is there already, its value is replaced: every member is
 * looked at, so that for very many of them append is the way. */
CREW_NODISCARD CREW_API crew_status crew_object_add(crew_arena *arena, crew_value *object, crew_string key,
                                                    const crew_value *value);
/* The same without looking; of two members with the same key the last is found. */
CREW_NODISCARD CREW_API crew_status crew_object_append(crew_arena *arena, crew_value *object, crew_string key,
                                                       const crew_value *value);

/* A C type of the program's own that travels as a value, on every wire: a date as RFC 3339 text, a decimal as
 * digits. Registered with a service (crew_service.types) it can be declared in signatures by its name;
 * packing and unpacking know it as the letter t. Both functions may run on any thread, many at a time. */
typedef struct crew_custom_type {
    const char *name; /* letters, digits, _ and -; none of the declared types' */
    const char
        *base; /* the declared type that it travels as: "string"; not bytes, which JSON does not have */
    const char *format; /* what JSON Schema calls it, for descriptions: "date-time"; NULL: nothing */
    size_t size;        /* of the C object, which is aligned for pointers and doubles */
    /* Makes the value, in the arena. CREW_NO_MEMORY, or what crew_pack or a reply is to return. */
    crew_status (*to_value)(const void *object, crew_arena *arena, const crew_value **value);
    /* Fills the object, all zero before; it may borrow what is in the value. CREW_MISMATCH,
     * CREW_OUT_OF_RANGE: the value is none. It owns nothing: nobody would free it. */
    crew_status (*from_value)(const crew_value *value, void *object);
} crew_custom_type;

/* Builds a value by a format whose letters follow jansson's:
 *
 *   n null                     b int or bool            i int      I int64_t    U uint64_t    f double
 *   s const char *, UTF-8      s# with int length       s% with size_t length   S crew_string
 *   y% bytes: const void *, size_t                      o const crew_value * (shared; NULL is null)
 *   t const crew_custom_type *, const void * to its C object
 *   [...] array                {s:x,s:x} object; keys are s, s#, s% or S
 *
 * A ? after s (s?) turns a NULL pointer to null. Spaces, commas and colons mean nothing. Strings are copied.
 * CREW_BAD_ARGUMENT for a format that is none; C arguments that do not fit the format are undefined, as with
 * printf. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_pack(crew_arena *arena, const crew_value **value, const char *format,
                                              ...);
CREW_NODISCARD CREW_API crew_status crew_vpack(crew_arena *arena, const crew_value **value,
                                               const char *format, va_list arguments);

/* The same of an array's next item, added to it: rows of a table, one after another. On failure the array is
 * as it was. */
CREW_NODISCARD CREW_API crew_status crew_array_pack(crew_arena *arena, crew_value *array, const char *format,
                                                    ...);

/* The way back, into pointers:
 *
 *   n expects null             b bool *                 i int *    I int64_t *  U uint64_t *  f double *
 *   s const char **            s% with size_t *         S crew_string *
 *   y% const void **, size_t * o const crew_value **    t const crew_custom_type *, void * to its C object
 *   [...] array                {s:x,s?x} object; the keys are const char * arguments; ? marks an optional one
 *
 * A ! before ] or } wants that there are no more items; without it they are ignored. f takes any number.
 * Missing optional members leave their targets untouched. Strings are borrowed for the arena's life; s wants
 * a string without NUL inside. CREW_MISMATCH or CREW_OUT_OF_RANGE where the value does not fit (targets
 * before that place are written), CREW_BAD_ARGUMENT for a format that is none. */
CREW_NODISCARD CREW_API crew_status crew_unpack(const crew_value *value, const char *format, ...);

#ifdef __cplusplus
}
#endif
#endif
