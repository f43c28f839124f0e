/* MessagePack (github.com/msgpack/msgpack/blob/master/spec.md) to values and back. */
#ifndef RPCREW_MSGPACK_H
#define RPCREW_MSGPACK_H

#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads one object of any type. The value lives in arena; limits may be NULL. Ext types, timestamps among
 * them, are kept as they came; of two members with the same key the last is found.
 * CREW_MALFORMED: no MessagePack, a str that is not UTF-8, cut short, or with bytes behind it; CREW_LIMIT;
 * CREW_NO_MEMORY. Memory is bounded by 40 times the bytes, or the few KiB of a small arena. Any thread. */
CREW_NODISCARD CREW_API crew_status crew_msgpack_decode(crew_string bytes, const crew_limits *limits,
                                                        crew_arena *arena, const crew_value **value,
                                                        crew_error *why);

/* Writes a value in the shortest form of each type, doubles as float64; *bytes is the caller's.
 * CREW_MALFORMED: a string that is not UTF-8. CREW_LIMIT: more than 1,024 levels. CREW_NO_MEMORY. Any thread.
 */
CREW_NODISCARD CREW_API crew_status crew_msgpack_encode(const crew_value *value, crew_bytes *bytes);

#ifdef __cplusplus
}
#endif
#endif
