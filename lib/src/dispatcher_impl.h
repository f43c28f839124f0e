/* What the dispatcher knows of a method, for the calls that are bound to it. */
#ifndef DISPATCHER_IMPL_H
#define DISPATCHER_IMPL_H

#include "signature.h"

#include <rpcrew/dispatcher.h>

#include <stdatomic.h>

struct crew_entry {
    struct crew_entry *next; /* in the order of adding */
    crew_string name;        /* prefix and name */
    size_t prefix_size;
    const crew_method *method;
    const crew_service *service;
    const crew_service_error
        *errors; /* the service's, copied: a deferred call may outlive it; { 0 } at the end */
    void *context;
    struct crew_signature signature;
    struct crew_declared result;
    bool returns_null;
    atomic_uint running; /* calls at the moment, for max_concurrency */
};

/* The methods that every dispatcher has; the first of them has the first entry as its context. */
extern const crew_service crew_rpc_service;

/* What a service's error is called in descriptions: its name behind the service's prefix, whose characters
 * that no JSON Pointer or name wants are _. data is NULL without memory. */
crew_string crew_error_key(crew_arena *arena, const struct crew_entry *entry,
                           const crew_service_error *error);

/* The dispatcher's tables stay until the last hold is released, whenever crew_dispatcher_free is called: a
 * deferred call may end after that. */
void crew_dispatcher_hold(const crew_dispatcher *dispatcher);
void crew_dispatcher_release(const crew_dispatcher *dispatcher);

/* Finds, binds and runs one call, on this thread; in every case the call is completed, or deferred. */
void crew_dispatch(const crew_dispatcher *dispatcher, crew_call *call);

#endif
