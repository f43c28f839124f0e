/* The dispatcher: finds a call's method, binds its params, runs its handler. */
#ifndef RPCREW_DISPATCHER_H
#define RPCREW_DISPATCHER_H

#include <rpcrew/service.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Built by one thread; read-only, and shared by any number of them, once a server or crew_handle uses it. */
typedef struct crew_dispatcher crew_dispatcher;

CREW_NODISCARD CREW_API crew_status crew_dispatcher_new(crew_dispatcher **dispatcher);
/* Servers that use it keep what they need of it until their last call has ended. NULL is fine. */
CREW_API void crew_dispatcher_free(crew_dispatcher *dispatcher);

/* Adds a service's methods, each under prefix + name ("" for none). service is borrowed for the dispatcher's
 * life. CREW_BAD_ARGUMENT: a bad signature, name (those that begin "rpc." are the protocol's), type or error;
 * CREW_EXISTS: a name is taken; *why says which. Nothing of the service is added then. CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_dispatcher_add(crew_dispatcher *dispatcher, const char *prefix,
                                                        const crew_service *service, void *context,
                                                        crew_error *why);

/* A wrapper around every call whose method was found and whose params fit, rpc.ping, rpc.health and
 * rpc.discover among them, which health checks and descriptions want: for authorisation, validation, tracing.
 * It runs on the call's thread and either returns crew_call_proceed(call), or completes the call itself
 * (crew_fail) as a handler does. One a dispatcher; set before use. */
typedef crew_status crew_wrapper(crew_call *call, void *context);
CREW_API void crew_dispatcher_wrap(crew_dispatcher *dispatcher, crew_wrapper *wrapper, void *context);

/* Runs the call's handler: for wrappers only, once. */
CREW_NODISCARD CREW_API crew_status crew_call_proceed(crew_call *call);

typedef struct crew_handle_options {
    const char *content_type; /* NULL: told by the first bytes */
    crew_limits limits;
    crew_wire_errors errors; /* CREW_ERRORS_PAIR */
} crew_handle_options;

/* Bytes in, bytes out: decodes a message, runs its calls one after another on this thread, and encodes the
 * reply into *answer, the caller's, NUL-terminated behind its size; empty if there is nothing to say. Waits
 * for deferred calls. options may be NULL. CREW_NO_MEMORY; CREW_UNSUPPORTED if no protocol knows the bytes.
 * Any thread. */
CREW_NODISCARD CREW_API crew_status crew_handle(const crew_dispatcher *dispatcher, crew_string request,
                                                const crew_handle_options *options, crew_bytes *answer);

/* The methods as an OpenRPC document, in JSON: the result of rpc.discover, which is called as crew_handle
 * would; *document is the caller's. CREW_NOT_FOUND: the wrapper does not let it be called; CREW_NO_MEMORY.
 * Any thread. */
CREW_NODISCARD CREW_API crew_status crew_describe(const crew_dispatcher *dispatcher, crew_bytes *document);

/* The content type of the answer to a request that came with this one (NULL: none): what crew_handle chooses
 * by. NULL where it would return CREW_UNSUPPORTED. Any thread. */
CREW_API const char *crew_answer_type(const char *content_type, crew_string request);

#ifdef __cplusplus
}
#endif
#endif
