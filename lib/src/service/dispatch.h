/* Dispatch knows both tables and calls. */
#ifndef SERVICE_DISPATCH_H
#define SERVICE_DISPATCH_H

#include "service/call.h"
#include "service/table.h"

/* Finds, binds and runs one call, on this thread; in every case the call is completed, or deferred. */
void crew_dispatch(const crew_dispatcher *dispatcher, crew_call *call);

#endif
