/* Services: a table of methods, and what a handler can do with a call. */
#ifndef RPCREW_SERVICE_H
#define RPCREW_SERVICE_H

#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One call being handled. Valid until its handler returns; after crew_call_defer, until it is completed. */
typedef struct crew_call crew_call;

/* Runs a call on a pool thread, with others like it at the same time. It completes the call with one of the
 * crew_reply or crew_fail functions, which return what to return. Returning CREW_OK without having completed
 * the call answers null; any other status answers -32603. */
typedef crew_status crew_handler(crew_call *call);

/* A row of a method table; the table ends with { 0 }. All pointers are borrowed for the dispatcher's life.
 *
 * params is the signature: "minuend:number subtrahend:number". Types: any, bool, int, uint, number, string,
 * bytes (base64 on a JSON wire), array, object, and the service's own. A ? behind the type makes a param
 * optional (then all behind it are), and so does =VALUE, which is what it then is: JSON without spaces, as in
 * "limit:uint=10 order:string=\"name\""; ... behind the last one takes any number of them. "" takes none;
 * NULL takes anything, unchecked.
 */
typedef struct crew_method {
    const char *name;
    crew_handler *handler;
    const char *params;
    const char *result; /* one type name, for descriptions; NULL: any */
    const char *doc;    /* one sentence or more; NULL: none */
    unsigned
        max_concurrency; /* calls at the same time, in this process; beyond it they are shed. 0: no limit */
} crew_method;

/* A row of a service's table of errors; the table ends with { 0 }. What fails with a code of the table tells
 * its caller the name too, in data.rpcrew.name (crew_error.name, if the caller is rpcrew's), unless the
 * handler's own data is no object or the wire carries none (docs/errors.md). */
typedef struct crew_service_error {
    int64_t code;        /* not of -32768…-32000, which JSON-RPC keeps for itself; one row each */
    const char *name;    /* "NO_ACCOUNT": letters, digits and _, at most 39 */
    const char *message; /* for people, where the handler says nothing of its own */
} crew_service_error;

/* What its handlers do most of the time. */
typedef enum crew_work {
    CREW_WORK_WAITS, /* wait for others: a database, a disk, other services */
    CREW_WORK_CPU    /* compute: what a worker takes beyond its threads only waits there, instead of going to
                        another */
} crew_work;

/* All pointers are borrowed for the dispatcher's life. Calls that are completed after that find what they
 * need. */
typedef struct crew_service {
    const char *name;
    const char *version;
    const char *doc;
    const crew_method *methods;
    void *context; /* what crew_call_context returns, unless the service is added with another */
    const crew_custom_type *const *types; /* its own, for signatures; NULL at the end; NULL: none */
    const crew_service_error *errors;     /* its own; NULL: none */
    crew_work work;
} crew_service;

/* ---- The call. All of it from the handler's thread only, or the one that a deferred call was handed to.
 * ---- */

/* The method's full name, with the prefix that its service was added under. */
CREW_API crew_string crew_call_method(const crew_call *call);
CREW_API void *crew_call_context(const crew_call *call);
/* Nobody waits for the answer; replies are dropped. */
CREW_API bool crew_call_is_one_way(const crew_call *call);
/* Milliseconds until the caller gives up: 0 when it has, INT64_MAX when it never does. */
CREW_API int64_t crew_call_remaining_ms(const crew_call *call);
/* Whether the worker is stopping and takes nothing new: what can be cut short should be. */
CREW_API bool crew_call_draining(const crew_call *call);
/* Whether nobody is to wait for this call any more: its deadline has passed, whoever sent it has gone (the
 * broker's connection was lost, so that another worker gets it) or took it back (crew_server_cancel), or half
 * of the time to drain has passed. Once true it stays so. For loops of long handlers: cheap. Completing the
 * call is still right, and wanted.
 */
CREW_API bool crew_call_cancelled(const crew_call *call);
/* The same to wait for: readable once crew_call_cancelled is true. The call's, closed with it; not to be
 * read. -1: none can be had (crew_handle, no descriptors left). */
CREW_API int crew_call_cancel_fd(crew_call *call);
/* What came beside the message: an object, or NULL. The headers of an AMQP message, without those that begin
 * with rpcrew- (a timestamp is its seconds since 1970, a decimal a double, text that is no UTF-8 is bytes;
 * 1,000 entries at most, and no names that are no UTF-8); an HTTP request's fields; what rpc.with said, over
 * streams and WebSocket; those of a crew_request. Read it with
 * crew_value_get; the type is whatever the caller chose. */
CREW_API const crew_value *crew_call_headers(const crew_call *call);
/* Who sent it, where that is sure, else "": over TLS the first DNS or mail name of the certificate that was
 * asked for and verified, or its common name; over a unix socket "uid:1000". Borrowed for the call's life. */
CREW_API const char *crew_call_peer_name(const crew_call *call);
/* Where it is: "127.0.0.1:51234", "[::1]:51234"; over ZeroMQ without its port; behind a proxy, the proxy's;
 * "" over a broker, a unix socket or a pipe. Of CGI what the server says (REMOTE_ADDR). Borrowed for the
 * call's life. */
CREW_API const char *crew_call_peer_address(const crew_call *call);
/* The params as they came: an array, an object, or NULL. */
CREW_API const crew_value *crew_call_params(const crew_call *call);
/* For values of a reply that are built by hand; freed with the call. */
CREW_API crew_arena *crew_call_arena(crew_call *call);

/* Arguments, bound to the signature: index 0 is its first param, variadic ones follow one another.
 * Their types are as declared, so these cannot fail; for a param of another type (any, or not given) they
 * return false, 0 or empty. Strings and bytes are borrowed for the call's life. */
CREW_API size_t crew_arg_count(const crew_call *call);
/* The index of a declared param by its name, for all of these; SIZE_MAX, which none is given at: there is
 * none. */
CREW_API size_t crew_arg_index(const crew_call *call, const char *name);
/* Also if it was not, and has a default. */
CREW_API bool crew_arg_given(const crew_call *call, size_t index);
CREW_API const crew_value *crew_arg(const crew_call *call, size_t index);
CREW_API bool crew_arg_bool(const crew_call *call, size_t index);
CREW_API int64_t crew_arg_int(const crew_call *call, size_t index);
CREW_API uint64_t crew_arg_uint(const crew_call *call, size_t index);
CREW_API double crew_arg_double(const crew_call *call, size_t index);
CREW_API crew_string crew_arg_string(const crew_call *call, size_t index);
CREW_API crew_string crew_arg_bytes(const crew_call *call, size_t index);
/* A param of one of the service's own types: its C object; NULL if it was not given. */
CREW_API const void *crew_arg_custom(const crew_call *call, size_t index);

/* ---- Completing it, once. Each of these completes the call whatever happens: what cannot be encoded (bad
 * UTF-8, NaN on a JSON wire, beyond the message limit, no memory) is answered as -32603, and the status says
 * why. CREW_DONE_ALREADY: it was completed before; nothing happened. ---- */

/* By crew_pack's format; CREW_BAD_ARGUMENT if it is none. */
CREW_API crew_status crew_reply(crew_call *call, const char *format, ...);
CREW_API crew_status crew_reply_null(crew_call *call);
CREW_API crew_status crew_reply_bool(crew_call *call, bool value);
CREW_API crew_status crew_reply_int(crew_call *call, int64_t value);
CREW_API crew_status crew_reply_uint(crew_call *call, uint64_t value);
CREW_API crew_status crew_reply_double(crew_call *call, double value);
CREW_API crew_status crew_reply_string(crew_call *call, crew_string value);
CREW_API crew_status crew_reply_bytes(crew_call *call, crew_string value);
CREW_API crew_status crew_reply_value(crew_call *call, const crew_value *value);

/* An error: your code (JSON-RPC keeps -32768…-32000 for itself) and a message for people; NULL: the one of
 * the service's table. Of a text, 503 bytes count. */
CREW_API crew_status crew_fail(crew_call *call, int64_t code, const char *format, ...) CREW_PRINTF(3, 4);
/* With data, by crew_pack's format; message as above. */
CREW_API crew_status crew_fail_data(crew_call *call, int64_t code, const char *message, const char *format,
                                    ...);
CREW_API crew_status crew_fail_value(crew_call *call, int64_t code, crew_string message,
                                     const crew_value *data);
/* -32602, naming the param and saying what is wrong with it. Tells the caller that nothing was executed. */
CREW_API crew_status crew_fail_param(crew_call *call, size_t index, const char *format, ...)
    CREW_PRINTF(3, 4);

/* Leaves the pool thread: the handler returns CREW_OK without a reply, and any one thread completes the call
 * later, which ends the pointer's life; args and arena stay valid until then. If the handler returns another
 * status, the call is completed by that and the pointer must not be used. Call it from the handler, once. */
CREW_API crew_call *crew_call_defer(crew_call *call);

#ifdef __cplusplus
}
#endif
#endif
