/* The tables of all protocols. */
#ifndef PROTOCOL_PROTOCOLS_H
#define PROTOCOL_PROTOCOLS_H

#include <rpcrew/impl/protocol.h>

extern const crew_protocol crew_jsonrpc; /* 2.0; answers 1.0 as well */
extern const crew_protocol crew_msgpackrpc;
extern const crew_protocol crew_jsonrpc1; /* the same, but calls in 1.0 */

/* Ends an encoding that began where out had the size before: what failed is taken back. */
static inline crew_status crew_encoding_end(crew_buffer *out, size_t before, crew_status status)
{
    if (status == CREW_OK && out->failed)
        status = CREW_NO_MEMORY;
    if (status != CREW_OK)
        out->size = before;
    return status;
}

#endif
