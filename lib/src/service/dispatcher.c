/* The dispatcher that programs make: a table that begins with the protocol's own methods. */
#include "service/discover.h"
#include "service/table.h"

crew_status crew_dispatcher_new(crew_dispatcher **dispatcher)
{
    crew_dispatcher *made = NULL;
    crew_status status = crew_methods_new(&made);
    if (status == CREW_OK)
        status = crew_methods_add(made, "", &crew_rpc_service, NULL, true, NULL);
    if (status != CREW_OK) {
        crew_dispatcher_free(made);
        return status;
    }
    for (struct crew_entry *entry = made->first; entry; entry = entry->next)
        entry->context = made->first; /* from which it finds all others */
    *dispatcher = made;
    return CREW_OK;
}

crew_status crew_dispatcher_add(crew_dispatcher *dispatcher, const char *prefix, const crew_service *service,
                                void *context, crew_error *why)
{
    return crew_methods_add(dispatcher, prefix, service, context, false, why);
}

void crew_dispatcher_wrap(crew_dispatcher *dispatcher, crew_wrapper *wrapper, void *context)
{
    dispatcher->wrapper = wrapper;
    dispatcher->wrapper_context = context;
}
