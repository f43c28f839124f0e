/* The protocols alone, without client, server or any I/O: calls to bytes and back, for who carries the bytes
 * himself. For a service of functions crew_handle (dispatcher.h) does all that at once. Any thread. */
#ifndef RPCREW_PROTOCOL_H
#define RPCREW_PROTOCOL_H

#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct crew_protocol crew_protocol;

/* "jsonrpc" (2.0), "jsonrpc1" (1.0; a worker tells it from 2.0 by itself), "msgpack" (MessagePack-RPC); NULL
 * if no protocol has this name. */
CREW_API const crew_protocol *crew_protocol_find(const char *name);
/* By content type (NULL: none; parameters behind ';' and case do not count), else by the first bytes;
 * NULL if none knows them. */
CREW_API const crew_protocol *crew_protocol_of(const char *content_type, crew_string bytes);
/* The i-th, NULL past the end. */
CREW_API const crew_protocol *crew_protocol_at(size_t index);
/* As it is written on messages; for the process's life. */
CREW_API const char *crew_protocol_content_type(const crew_protocol *protocol);

/* ---- A caller's side ---- */

typedef struct crew_outgoing {
    const char *method;
    const crew_value *params; /* an array, an object or NULL */
    uint32_t id; /* by which its reply is known: one for each call that is outstanding; 0: one-way,
                    there is no reply */
} crew_outgoing;

/* Writes calls as one message: a single one by itself, several as a batch, which JSON-RPC has (1.0: no peer
 * is known to); MessagePack-RPC has none, and its messages follow one another. *message is the caller's.
 * CREW_BAD_ARGUMENT: no calls, or params of another type; CREW_UNSUPPORTED, CREW_MALFORMED: a value that the
 * protocol does not have (crew_json_encode); CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_write_calls(const crew_protocol *protocol,
                                                     const crew_outgoing *calls, size_t count,
                                                     crew_bytes *message);

typedef struct crew_incoming_reply {
    crew_status status;       /* CREW_OK: a result; CREW_REMOTE_ERROR: an error; CREW_BAD_REPLY: neither */
    uint32_t id;              /* of the call; 0: none that crew_write_calls writes */
    bool is_about_all;        /* it has no id, as an error about what its peer could not read */
    const crew_value *result; /* not NULL if there is one, if only a null */
    int64_t code;             /* of an error, */
    crew_string message;      /* and what it says */
    const crew_value *data;   /* and besides; NULL: nothing */
    const char *reason;       /* of a bad reply: the rule that it breaks */
} crew_incoming_reply;

typedef struct crew_incoming_replies {
    const crew_incoming_reply *items;
    size_t count;
} crew_incoming_replies;

/* Reads a message as replies. They live in arena, and point into bytes. limits may be NULL. CREW_MALFORMED,
 * CREW_LIMIT with *why: it is none; CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_read_replies(const crew_protocol *protocol, crew_string bytes,
                                                      const crew_limits *limits, crew_arena *arena,
                                                      crew_incoming_replies *replies, crew_error *why);

/* The reply to a call of the message that these answer; NULL: there is none among them. An error without an
 * id that is alone answers them all: its peer could not read the message. */
CREW_API const crew_incoming_reply *crew_reply_to(const crew_incoming_replies *replies, uint32_t id);

/* ---- A service's side ---- */

typedef struct crew_incoming_call {
    int code; /* CREW_CODE_…: it is no good call, crew_write_replies says so, and all else is empty; 0: it is
               */
    crew_string method;
    const crew_value *params; /* an array, an object or NULL */
    bool one_way;             /* nobody is to be answered */
} crew_incoming_call;

typedef struct crew_incoming_calls {
    const crew_incoming_call *items;
    size_t count; /* at least one, whatever the bytes */
    bool batch;
    const struct crew_incoming_more *more; /* the library's */
} crew_incoming_calls;

/* Reads a message as calls. They live in arena, and point into bytes; limits may be NULL. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_read_calls(const crew_protocol *protocol, crew_string bytes,
                                                    const crew_limits *limits, crew_arena *arena,
                                                    crew_incoming_calls *calls);

/* How a call ended. */
typedef struct crew_outgoing_reply {
    int64_t code;            /* 0: a result; else an error's */
    const char *message;     /* of an error */
    const crew_value *value; /* the result (NULL: null), or what an error says besides (NULL: nothing) */
} crew_outgoing_reply;

/* Writes the answer to calls, by what became of each, in their order; NULL where all are bad or one-way.
 * *answer is the caller's, and empty if nobody is to be answered. errors: what MessagePack-RPC's look like. A
 * result that the protocol cannot carry is answered as -32603. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_write_replies(const crew_incoming_calls *calls,
                                                       const crew_outgoing_reply *replies,
                                                       crew_wire_errors errors, crew_bytes *answer);

#ifdef __cplusplus
}
#endif
#endif
