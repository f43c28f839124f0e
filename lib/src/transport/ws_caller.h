/* WebSocket as a caller speaks it: one connection, many calls. */
#ifndef TRANSPORT_WS_CALLER_H
#define TRANSPORT_WS_CALLER_H

#include "transport/stream_caller.h"

extern const struct crew_transport_ops ws_caller_ops;

#endif
