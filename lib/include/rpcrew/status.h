/* What happened: the statuses that functions return, and the error that says why. */
#ifndef RPCREW_STATUS_H
#define RPCREW_STATUS_H

#include <rpcrew/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The one list of statuses: enum, names and texts are made from it.
 * The first block is every way a call can end; the second, what any function may return. */
#define CREW_STATUS_LIST(X)                                    \
    X(OK, "done")                                              \
    X(REMOTE_ERROR, "the service answered with an error")      \
    X(NO_SERVICE, "nothing serves this endpoint")              \
    X(OVERLOADED, "refused for lack of room; not executed")    \
    X(EXPIRED, "the deadline passed before the call was sent") \
    X(TIMEOUT, "no answer by the deadline")                    \
    X(DISCONNECTED, "the connection was lost")                 \
    X(CANCELLED, "cancelled by the caller")                    \
    X(BAD_REPLY, "the answer broke the protocol")              \
                                                               \
    X(BAD_ARGUMENT, "an argument is not valid")                \
    X(NO_MEMORY, "out of memory")                              \
    X(WOULD_DEADLOCK, "a blocking call from a completion")     \
    X(NOT_FOUND, "no such thing")                              \
    X(EXISTS, "it is there already")                           \
    X(MALFORMED, "the bytes are not what they should be")      \
    X(MISMATCH, "the value has another type or shape")         \
    X(OUT_OF_RANGE, "the number does not fit")                 \
    X(LIMIT, "beyond a limit")                                 \
    X(DONE_ALREADY, "the call is already completed")           \
    X(CLOSED, "already stopped or closed")                     \
    X(UNSUPPORTED, "not supported here")                       \
    X(SYSTEM, "the operating system refused")

typedef enum crew_status {
#define X(name, text) CREW_##name,
    CREW_STATUS_LIST(X)
#undef X
        CREW_STATUS_COUNT
} crew_status;

/* "CREW_TIMEOUT"; for a number that is no status, "CREW_?". Any thread. */
CREW_API const char *crew_status_name(crew_status status);

/* "no answer by the deadline". Any thread. */
CREW_API const char *crew_status_text(crew_status status);

/* Whether the service ran a call that did not end well: what a caller needs to know before it tries again. */
typedef enum crew_executed { CREW_EXECUTED_NO, CREW_EXECUTED_UNKNOWN, CREW_EXECUTED_YES } crew_executed;

/* "no", "unknown", "yes". */
CREW_API const char *crew_executed_name(crew_executed executed);

/* Why something failed, for people and for retries. Caller-owned, holds no pointers, NULL is accepted
 * wherever one is asked for. Filled only on failure. */
typedef struct crew_error {
    crew_status status;
    crew_executed executed; /* calls only */
    int64_t code;           /* CREW_REMOTE_ERROR: the peer's code, else 0 */
    int64_t elapsed_ms;     /* calls only: since the start */
    char name[40];          /* CREW_REMOTE_ERROR: what the service's table calls it, or "" */
    char message[504];      /* UTF-8, NUL-terminated, cut at a character if too long */
    char peer_message[504]; /* CREW_REMOTE_ERROR, CREW_OVERLOADED by a worker: the peer's own message alone,
                               in the same form */
    char endpoint[256];     /* calls only: the client's URL, as crew_url_text has it, cut in the same way */
} crew_error;

/* Fills *why (if there is one) and returns status, so that a failing function can end in one line.
 * Invalid UTF-8 in what is printed becomes '?'. Any thread. */
CREW_API crew_status crew_error_set(crew_error *why, crew_status status, const char *format, ...)
    CREW_PRINTF(3, 4);

/* The error codes of JSON-RPC 2.0 (section 5.1), used on every wire. */
enum {
    CREW_CODE_PARSE_ERROR = -32700,
    CREW_CODE_INVALID_REQUEST = -32600,
    CREW_CODE_METHOD_NOT_FOUND = -32601,
    CREW_CODE_INVALID_PARAMS = -32602,
    CREW_CODE_INTERNAL_ERROR = -32603,
    CREW_CODE_RESERVED_FIRST = -32768, /* up to the last one, they are the protocol's */
    CREW_CODE_RESERVED_LAST = -32000,
    /* Ours, which mean one thing on every wire, also where data (data.rpcrew) does not travel; away from
     * -32000 to -32019, which others use for calls that ran. */
    CREW_CODE_OVERLOADED = -32040,  /* shed, not executed */
    CREW_CODE_REDELIVERED = -32041, /* not run, since a worker that had it before may have died of it */
    CREW_CODE_CANCELLED =
        -32043, /* taken back, or its caller had gone; it may have run, unless data says no */
    CREW_CODE_FORBIDDEN = -32045 /* not allowed, not executed */
};

#ifdef __cplusplus
}
#endif
#endif
