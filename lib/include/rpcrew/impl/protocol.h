/* The contract of a protocol: bytes to calls and replies and back, no I/O. Pure functions, any thread.
 *
 * Bytes that are no message of the protocol are no failure of a decoder: what the peer is to be told about
 * them is in what it decodes. Decoders may keep pointers into the bytes; what else they make is in the arena.
 */
#ifndef RPCREW_IMPL_PROTOCOL_H
#define RPCREW_IMPL_PROTOCOL_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/protocol.h>

/* One decoded call, or one part of a message that should have been one (code is not 0 then). */
typedef struct crew_wire_call {
    crew_string id; /* as it is written in the reply; empty: null */
    crew_string method;
    const crew_value *params; /* an array, an object, or NULL */
    const crew_value *data;   /* of the error */
    int code;                 /* what to answer instead of running it: CREW_CODE_…; 0: a good call */
    bool one_way;             /* nobody is to be answered, not even with an error */
    bool is_reply;            /* it is none: a reply, for whoever both calls and is called; code is not 0 */
    bool named_in_array;      /* its named params may also come as the one item of the array */
    uint8_t dialect;          /* the protocol's own: which shape the reply takes */
    crew_wire_errors errors;  /* the endpoint's: what errors look like */
} crew_wire_call;

typedef struct crew_wire_calls {
    crew_wire_call *items; /* in the arena */
    size_t count;
    bool batch;     /* the replies, if any, go between batch_open and batch_close */
    bool malformed; /* no message of this protocol at all: the one item is its error */
} crew_wire_calls;

/* How a reply's id compares with those that encode_call writes. */
typedef enum crew_wire_id {
    CREW_ID_NUMBER, /* in id */
    CREW_ID_NULL,   /* an error about something that the peer could not read */
    CREW_ID_FOREIGN /* none that we sent */
} crew_wire_id;

typedef struct crew_wire_reply {
    crew_wire_id id_kind;
    uint32_t id;
    bool valid; /* if not, reason says which rule it broke */
    bool is_error;
    const char *reason;
    const crew_value *result; /* NULL if it is an error */
    int64_t code;
    crew_string message;
    const crew_value *data; /* NULL if there is none */
} crew_wire_reply;

typedef struct crew_wire_replies {
    crew_wire_reply *items; /* in the arena */
    size_t count;
} crew_wire_replies;

struct crew_protocol {
    const char *name;
    const char *content_type;         /* as it is written on requests and replies */
    const char *const *content_types; /* all that mean this protocol, lower case, NULL at the end */
    /* A batch of messages is these around and between them. Without them (all "") it is no batch but messages
     * in one body, which are answered as they are completed, not in their order. */
    const char *batch_open, *batch_separator, *batch_close;
    bool base64_bytes; /* it has no bytes: they travel as strings in base64 */

    /* Whether bytes without a known content type begin like this protocol's. */
    bool (*sniff)(crew_string bytes);

    /* A message to calls: always at least one item, whatever the bytes. CREW_NO_MEMORY. */
    crew_status (*decode_calls)(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                crew_wire_calls *calls);

    /* Append one reply to out. On failure (CREW_UNSUPPORTED, CREW_MALFORMED, CREW_NO_MEMORY) out is as
     * before. */
    crew_status (*encode_result)(const crew_wire_call *call, const crew_value *result, crew_buffer *out);
    crew_status (*encode_error)(const crew_wire_call *call, int64_t code, crew_string message,
                                const crew_value *data, crew_buffer *out);

    /* Appends one call to out; id 0: one-way. params: array, object or NULL, else CREW_BAD_ARGUMENT;
     * otherwise as encode_result. */
    crew_status (*encode_call)(crew_string method, const crew_value *params, uint32_t id, crew_buffer *out);

    /* A message to replies, each valid or not. CREW_MALFORMED and CREW_LIMIT with *why if it is no message of
     * this protocol at all; CREW_NO_MEMORY. */
    crew_status (*decode_replies)(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                  crew_wire_replies *replies, crew_error *why);
};

/* The standard words of an error code; NULL if it has none. */
const char *crew_code_text(int64_t code);

#endif
