/* MessagePack for the protocols: one object after another, and into buffers. */
#ifndef CORE_MSGPACK_H
#define CORE_MSGPACK_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/msgpack.h>

/* The first thing in an object that is well-formed and cannot be carried: CREW_MALFORMED (a str that is not
 * UTF-8), CREW_LIMIT; CREW_OK: there is none. In its place there is nil. */
struct crew_msgpack_fault {
    crew_status status;
    size_t field; /* the item of the object, an array, that it is in or is */
    char words[100];
};

/* Reads the object that begins at bytes + *at, and moves *at behind it. Otherwise as crew_msgpack_decode, but
 * that what cannot be carried is a failure only if there is no fault to tell it by (NULL). On failure *value
 * is what had been read of an array, or NULL. limits are resolved. */
CREW_NODISCARD crew_status crew_msgpack_read(crew_string bytes, size_t *at, const crew_limits *limits,
                                             crew_arena *arena, struct crew_msgpack_fault *fault,
                                             const crew_value **value, crew_error *why);

/* Append to out as crew_msgpack_encode does, whose statuses they return but for CREW_NO_MEMORY: out remembers
 * that. What they have written on failure is the caller's to take back. */
CREW_NODISCARD crew_status crew_msgpack_write(const crew_value *value, crew_buffer *out);
CREW_NODISCARD crew_status crew_msgpack_write_string(crew_string text, crew_buffer *out);

/* These append to out, which remembers a failure. */
void crew_msgpack_write_array(size_t count, crew_buffer *out);
void crew_msgpack_write_int(int64_t number, crew_buffer *out);
/* The same into bytes, without a buffer; returns how many. */
enum { CREW_MSGPACK_INT_MOST = 9 };
size_t crew_msgpack_print_int(int64_t number, char bytes[CREW_MSGPACK_INT_MOST]);
void crew_msgpack_write_nil(crew_buffer *out);

#endif
