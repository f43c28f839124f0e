/* Values from and to jansson's, for programs that have those. The one header that includes another library's:
 * <rpcrew.h> does not include it, and who does needs jansson's own headers. */
#ifndef RPCREW_JANSSON_H
#define RPCREW_JANSSON_H

#include <jansson.h>
#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A copy of json, which is borrowed and not changed, in the arena. CREW_BAD_ARGUMENT: json is NULL.
 * CREW_LIMIT: more than 1,024 levels. CREW_NO_MEMORY. Any thread that may read json. */
CREW_NODISCARD CREW_API crew_status crew_value_from_jansson(json_t *json, crew_arena *arena,
                                                            const crew_value **value);

/* A copy of value (NULL is null); *json is the caller's reference. As in JSON text, bytes become a string in
 * base64, ext {"ext": type, "data": base64}, and integer keys strings; of duplicate keys the last counts.
 * CREW_OUT_OF_RANGE: an integer above 2^63 - 1, which jansson does not have. CREW_UNSUPPORTED: NaN, an
 * infinity, a key that is neither string nor integer. CREW_MALFORMED: a string that is not UTF-8. CREW_LIMIT:
 * more than 1,024 levels. CREW_NO_MEMORY. Any thread. */
CREW_NODISCARD CREW_API crew_status crew_value_to_jansson(const crew_value *value, json_t **json);

#ifdef __cplusplus
}
#endif
#endif
