/* The table of methods, by name: what a dispatcher is made of. It knows no calls. */
#ifndef SERVICE_TABLE_H
#define SERVICE_TABLE_H

#include "service/entry.h"

#include <rpcrew/dispatcher.h>

struct crew_dispatcher {
    struct holds *holds;
    crew_arena arena;
    struct crew_entry **slots; /* open addressing; a power of two, at most half full */
    size_t slot_count, count;
    struct crew_entry *first, *last; /* in the order of adding */
    crew_wrapper *wrapper;
    void *wrapper_context;
};

/* Without methods; crew_dispatcher_free frees it. */
CREW_NODISCARD crew_status crew_methods_new(crew_dispatcher **table);

/* crew_dispatcher_add, also for names that are the protocol's. */
CREW_NODISCARD crew_status crew_methods_add(crew_dispatcher *table, const char *prefix,
                                            const crew_service *service, void *context, bool ours,
                                            crew_error *why);

/* NULL if no method has this name. */
struct crew_entry *crew_methods_find(const crew_dispatcher *table, crew_string name);

/* Whether all methods that are not the protocol's are of services that compute, and there are some. */
bool crew_methods_compute(const crew_dispatcher *table);

/* What a service's error is called in descriptions: its name behind the service's prefix, whose characters
 * that no JSON Pointer or name wants are _. data is NULL without memory. */
crew_string crew_error_key(crew_arena *arena, const struct crew_entry *entry,
                           const crew_service_error *error);

/* The table stays until the last hold is released, whenever crew_dispatcher_free is called: a deferred call
 * may end after that. */
void crew_dispatcher_hold(const crew_dispatcher *dispatcher);
void crew_dispatcher_release(const crew_dispatcher *dispatcher);

#endif
