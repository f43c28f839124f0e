/* The methods that every dispatcher has. */
#ifndef SERVICE_DISCOVER_H
#define SERVICE_DISCOVER_H

#include <rpcrew/service.h>

/* The context of its methods is the table's first entry. */
extern const crew_service crew_rpc_service;

#endif
