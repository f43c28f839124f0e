/* The tables of all protocols. */
#ifndef PROTOCOL_PROTOCOLS_H
#define PROTOCOL_PROTOCOLS_H

#include <rpcrew/impl/protocol.h>

extern const crew_protocol crew_jsonrpc; /* 2.0; answers 1.0 as well */
extern const crew_protocol crew_msgpackrpc;
extern const crew_protocol crew_jsonrpc1; /* the same, but calls in 1.0 */

#endif
