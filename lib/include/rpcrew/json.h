/* JSON text to values and back (RFC 8259). What happens to values that JSON lacks: docs/values.md. */
#ifndef RPCREW_JSON_H
#define RPCREW_JSON_H

#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads one JSON value of any type (RFC 8259); a byte order mark before it is passed over, and of members
 * with the same key the last one's value counts. The value lives in arena; limits may be NULL, and the one on
 * batches does not count here. CREW_MALFORMED: no JSON, invalid UTF-8, a lone surrogate, NaN, trailing bytes.
 * CREW_LIMIT. CREW_OUT_OF_RANGE: an integer beyond 64 bits, a number beyond a double. *why names the place.
 * CREW_NO_MEMORY. Any thread. */
CREW_NODISCARD CREW_API crew_status crew_json_decode(crew_string text, const crew_limits *limits,
                                                     crew_arena *arena, const crew_value **value,
                                                     crew_error *why);

typedef enum crew_json_style {
    CREW_JSON_COMPACT, /* no spaces, one line */
    CREW_JSON_PRETTY   /* two spaces a level, "key": value */
} crew_json_style;

/* Writes a value; *text is the caller's, NUL-terminated behind its size. Bytes are written in base64,
 * integral doubles without a fraction, other doubles with the fewest digits that read back the same, 17 at
 * most. CREW_UNSUPPORTED: NaN, an infinity, a key that is neither string nor integer. CREW_MALFORMED: a
 * string that is not UTF-8. CREW_LIMIT: more than 1,024 levels. CREW_NO_MEMORY. Any thread. */
CREW_NODISCARD CREW_API crew_status crew_json_encode(const crew_value *value, crew_json_style style,
                                                     crew_bytes *text);

#ifdef __cplusplus
}
#endif
#endif
