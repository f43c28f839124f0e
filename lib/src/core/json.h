/* JSON for the protocols: reading with notes on the text, writing into buffers. */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/json.h>

/* What is noted of the text itself, of each item of a top-level array, or of the one value that is none. */
struct crew_json_item {
    crew_string watched; /* the text of its watched member, if that is a string, number or literal */
    const char *too_big; /* the place of its first integer beyond int64_t, such as "params[0]"; NULL: none */
};

struct crew_json_notes {
    const char *watch; /* in: the name of a member whose text is wanted */
    struct crew_json_item *items;
    size_t count, room; /* an empty array has no items */
};

/* crew_json_decode with notes; integers beyond int64_t are noted, and are 0 in the value. limits are
 * resolved; limits->batch bounds the items of a top-level array. */
CREW_NODISCARD crew_status crew_json_read(crew_string text, const crew_limits *limits, crew_arena *arena,
                                          struct crew_json_notes *notes, const crew_value **value,
                                          crew_error *why);

/* Appends value's text to out, or nothing if it cannot be written. Statuses as crew_json_encode. */
CREW_NODISCARD crew_status crew_json_write(const crew_value *value, crew_json_style style, crew_buffer *out);

/* Appends a quoted string; CREW_MALFORMED if it is not UTF-8 (part of it may be written). */
CREW_NODISCARD crew_status crew_json_write_string(crew_string text, crew_buffer *out);

void crew_json_write_int(int64_t number, crew_buffer *out);

#endif
