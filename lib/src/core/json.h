/* JSON for the protocols: reading with notes on the text, writing into buffers. */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/json.h>

/* What is noted of an item of a top-level array, or of the one value that is none. */
struct crew_json_item {
    crew_string watched; /* the text of its watched member's value, as it is written; empty: there is none */
    /* The first thing in it that is good JSON and cannot be carried: CREW_OUT_OF_RANGE (a number),
     * CREW_MALFORMED (a lone surrogate), CREW_LIMIT; CREW_OK: none. There is null, 0 or "" in its place in
     * the value. */
    crew_status fault;
    const char *words; /* what and where it is: "an integer beyond 64 bits at params[0]" */
    bool in_params;    /* it is in the item's member of that name */
};

struct crew_json_notes {
    const char *watch; /* in: the name of a member whose text is wanted; NULL: none. In it, if it is no
                          container, nothing is a fault. */
    struct crew_json_item *items; /* in the arena */
    size_t count, room;           /* those behind count have nothing to be noted */
};

/* crew_json_decode with notes: what cannot be carried costs its own item only. Without notes it is a failure.
 * limits are resolved; limits->batch bounds the items of a top-level array, if there are notes.
 * at: NULL: the value is all there is; else where it begins, and then where it ends, or where reading failed:
 * at the end of the text if more of it might have helped. */
CREW_NODISCARD crew_status crew_json_read(crew_string text, size_t *at, const crew_limits *limits,
                                          crew_arena *arena, struct crew_json_notes *notes,
                                          const crew_value **value, crew_error *why);

/* Appends value's text to out, or nothing if it cannot be written. Statuses as crew_json_encode. */
CREW_NODISCARD crew_status crew_json_write(const crew_value *value, crew_json_style style, crew_buffer *out);

/* Appends a quoted string; CREW_MALFORMED if it is not UTF-8 (part of it may be written). */
CREW_NODISCARD crew_status crew_json_write_string(crew_string text, crew_buffer *out);

/* Appends the text of a member of an object's, or nothing if there is none: CREW_NOT_FOUND. */
CREW_NODISCARD crew_status crew_json_extract(crew_string object, const char *member, crew_buffer *out);

void crew_json_write_int(int64_t number, crew_buffer *out);

#endif
