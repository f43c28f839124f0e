/* A method in a table, as its calls know it. */
#ifndef SERVICE_ENTRY_H
#define SERVICE_ENTRY_H

#include "service/signature.h"

#include <rpcrew/service.h>

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
    bool ours; /* the protocol's own: rpc.… */
    struct crew_signature signature;
    struct crew_declared result;
    bool returns_null;
    atomic_uint running; /* calls at the moment, for max_concurrency */
};

#endif
