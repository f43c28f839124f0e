/* The client: calls a service by URL, any number at a time over one connection. docs/delivery.md says what a
 * caller can rely on. */
#ifndef RPCREW_CLIENT_H
#define RPCREW_CLIENT_H

#include <rpcrew/log.h>
#include <rpcrew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any thread may use it, but it is not usable after fork. */
typedef struct crew_client crew_client;

/* Zero fields mean their defaults. */
typedef struct crew_client_options {
    unsigned timeout_ms;         /* deadline of each call, from its start; 30,000 */
    unsigned connect_timeout_ms; /* for each attempt to connect and log in; 5,000 */
    unsigned in_flight_max;      /* calls outstanding; beyond it, CREW_OVERLOADED; 65,536 */
    const char *protocol;        /* "jsonrpc", "jsonrpc1", "msgpack"; NULL: jsonrpc */
    bool brief;                  /* for a call or a few: saves what pays only for many (reply=direct) */
    const char *prefix;          /* put before every method's name */
    const struct crew_dispatcher *dispatcher; /* where the peer may call too (streams), serves what it calls,
                                    one after another, on a thread of the client's, which may call; borrowed
                                    for its life. NULL: such calls are answered -32601 */
    crew_limits limits;                       /* of requests and replies */
    crew_trace_fn *trace;
    void *trace_context;
    struct crew_metrics *metrics; /* where its calls are counted (rpcrew/metrics.h), by the methods that the
                                     program calls; NULL: nowhere */
} crew_client_options;

/* Connects in the background; calls wait for it, within their deadlines. Where the URL's hosts are peers of
 * one another (ZeroMQ), the client connects to all and balances its calls over them. options are copied.
 * CREW_BAD_ARGUMENT: URL or options; CREW_UNSUPPORTED: scheme; CREW_NO_MEMORY, CREW_SYSTEM. */
CREW_NODISCARD CREW_API crew_status crew_client_new(crew_client **client, const char *url,
                                                    const crew_client_options *options, crew_error *why);

/* Completes what is outstanding as CREW_CANCELLED, then closes. NULL is fine. Not from a completion, nor
 * while another thread uses the client. */
CREW_API void crew_client_free(crew_client *client);

/* A client that calls whoever called this handler, over the same connection, where that goes both ways:
 * streams and WebSocket; one-way calls too. For the handler, or kept for later, as a subscriber's: calls fail
 * as CREW_DISCONNECTED once its connection has gone, or its caller has said that nothing more comes. It is
 * shared by all who ask for it while it lives, and each frees it: calls that are outstanding then go on as
 * long as another has it, so whoever started some without waiting frees it behind their completions. A caller
 * that never answers holds the handler until the call's deadline: give calls one of their own.
 * CREW_UNSUPPORTED: this caller cannot be called; CREW_OVERLOADED: another thread is making or ending it this
 * very moment; CREW_NO_MEMORY, CREW_SYSTEM. */
struct crew_call;
CREW_NODISCARD CREW_API crew_status crew_call_client(struct crew_call *call, crew_client **client,
                                                     crew_error *why);

/* An answer. Its values are read-only, for any thread, until it is freed; it may outlive the client. */
typedef struct crew_result crew_result;
/* The result, or NULL when the answer is an error. */
CREW_API const crew_value *crew_result_value(const crew_result *result);
/* The error's data; NULL when there is none. */
CREW_API const crew_value *crew_result_error_data(const crew_result *result);
CREW_API void crew_result_free(crew_result *result);

/* Fails a call as one that its handler made has failed (result may be NULL): an error of the other service's
 * own is passed on, its code, message (503 bytes of it) and data; all else (no answer, no service, bad
 * params, …) is answered as code, one of your own, with the message of the service's table, and
 * data.rpcrew.executed, which says whether the other one may have run it. Where it was called, and what was
 * wrong, is in *why, for the log, and not told. As crew_fail_value. */
CREW_API crew_status crew_fail_from(struct crew_call *call, int64_t code, const crew_result *result,
                                    const crew_error *why);

/* Of a single call; zero fields mean the client's. */
typedef struct crew_call_options {
    unsigned timeout_ms;
    bool one_way;    /* nobody waits for an answer; the completion tells that it was handed over */
    bool idempotent; /* may be sent again when a lost connection leaves its outcome unknown */
    unsigned retry;  /* outcomes that are tried again within the deadline: CREW_RETRY_… */
    const struct crew_call
        *within; /* the call being handled that this one serves: its deadline bounds this */
    /* What goes beside the request, a token or a trace id: an object of strings, which crew_call_headers
     * shows the handler, with names in lower case. Names are those of HTTP's fields, 128 bytes at most, each
     * once, and none that the message itself wants (content-…, host, cc, …) or that begins with rpcrew-;
     * values are UTF-8 without control characters or blanks around them; 32 of them, 2,048 bytes in all, at
     * most. Copied. Where nothing travels beside a request (ZeroMQ; streams and WebSocket without peer=rpcrew
     * in the URL), such a call is CREW_UNSUPPORTED. NULL: none. */
    const crew_value *headers;
} crew_call_options;

enum {
    CREW_RETRY_NO_SERVICE = 1, /* wait for a worker to appear */
    CREW_RETRY_OVERLOADED = 2  /* within a budget that the client's calls share: one retry for ten calls */
};

/* Calls and waits. params by crew_pack's format: an array or object, "" or NULL for none.
 * *result is set in every case: to the answer (CREW_OK, CREW_REMOTE_ERROR), else to NULL; it may be NULL
 * itself when nobody wants it. Returns one of the outcomes, or CREW_WOULD_DEADLOCK (called from a
 * completion), CREW_BAD_ARGUMENT (format; params that the protocol cannot carry), CREW_LIMIT (too large),
 * CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_client_call(crew_client *client, const char *method,
                                                     crew_result **result, crew_error *why,
                                                     const char *format, ...);
/* The same with a built value (NULL: no params) and options (NULL: the client's). */
CREW_NODISCARD CREW_API crew_status crew_client_call_value(crew_client *client, const char *method,
                                                           const crew_value *params,
                                                           const crew_call_options *options,
                                                           crew_result **result, crew_error *why);

/* The same by a format. */
CREW_NODISCARD CREW_API crew_status crew_client_call_with(crew_client *client,
                                                          const crew_call_options *options,
                                                          const char *method, crew_result **result,
                                                          crew_error *why, const char *format, ...);

/* One-way: CREW_OK means that it was handed over as surely as the transport can tell (delivery.md). */
CREW_NODISCARD CREW_API crew_status crew_client_notify(crew_client *client, const char *method,
                                                       crew_error *why, const char *format, ...);
CREW_NODISCARD CREW_API crew_status crew_client_notify_value(crew_client *client, const char *method,
                                                             const crew_value *params,
                                                             const crew_call_options *options,
                                                             crew_error *why);

/* How an asynchronous call ended, once, on the client's I/O thread; it must not block. result is the
 * completion's to free (NULL without an answer); why is borrowed, status CREW_OK on success. */
typedef void crew_completion(void *context, crew_result *result, const crew_error *why);

/* Starts a call and returns. If it returns another status than CREW_OK, on_done is not called; beside those
 * of crew_client_call this can be CREW_CLOSED, from a completion while the client is being freed. */
CREW_NODISCARD CREW_API crew_status crew_client_start(crew_client *client, const char *method,
                                                      crew_completion *on_done, void *context,
                                                      crew_error *why, const char *format, ...);
/* *id, if wanted, is for crew_client_cancel; it is set before the call can end. */
CREW_NODISCARD CREW_API crew_status crew_client_start_value(crew_client *client, const char *method,
                                                            const crew_value *params,
                                                            const crew_call_options *options,
                                                            crew_completion *on_done, void *context,
                                                            uint32_t *id, crew_error *why);

/* CREW_OK: the call will end as CREW_CANCELLED. CREW_NOT_FOUND: it has ended otherwise. Any thread. */
CREW_API crew_status crew_client_cancel(crew_client *client, uint32_t id);

/* Many calls in parallel, results in the order of adding. One thread. */
typedef struct crew_batch crew_batch;
CREW_NODISCARD CREW_API crew_status crew_batch_new(crew_batch **batch, crew_client *client);
/* The format and its arguments are read at once. CREW_BAD_ARGUMENT, CREW_NO_MEMORY: nothing was added. */
CREW_NODISCARD CREW_API crew_status crew_batch_add(crew_batch *batch, const char *method, const char *format,
                                                   ...);
/* params is borrowed until the batch has run. */
CREW_NODISCARD CREW_API crew_status crew_batch_add_value(crew_batch *batch, const char *method,
                                                         const crew_value *params);
/* Runs what was added, once, and waits for all. CREW_OK if every call's status is; else the first other one,
 * and *why of that call. */
CREW_NODISCARD CREW_API crew_status crew_batch_run(crew_batch *batch, crew_error *why);
/* The same, each call with these options (NULL: the client's); the time is each one's own, but that within's
 * deadline is one for all. */
CREW_NODISCARD CREW_API crew_status crew_batch_run_with(crew_batch *batch, const crew_call_options *options,
                                                        crew_error *why);
CREW_API size_t crew_batch_count(const crew_batch *batch);
CREW_API crew_status crew_batch_status(const crew_batch *batch, size_t index);
/* Of a call that ended otherwise than CREW_OK; borrowed. */
CREW_API const crew_error *crew_batch_error(const crew_batch *batch, size_t index);
/* The result, or NULL; lives as long as the batch. */
CREW_API const crew_value *crew_batch_value(const crew_batch *batch, size_t index);
CREW_API void crew_batch_free(crew_batch *batch);

typedef struct crew_client_stats {
    uint64_t calls;         /* started */
    uint64_t resent;        /* handed to a new connection after the old one was lost */
    uint64_t retried;       /* tried again for crew_call_options.retry */
    uint64_t stray_replies; /* late, doubled, or of nobody's id: dropped */
    uint64_t bad_replies;   /* that broke the protocol */
    uint64_t outstanding;   /* now */
} crew_client_stats;
CREW_API void crew_client_stats_get(crew_client *client, crew_client_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
