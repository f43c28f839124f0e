/* What is told of a call's end. */
#ifndef SERVICE_ENDING_H
#define SERVICE_ENDING_H

#include "service/call.h"

#include <rpcrew/observe.h>

/* Room for an id as text, where it is none on the wire. */
enum { CREW_ID_TEXT = 24 };

/* What the call itself knows: all but endpoint ("") and what happened to its message. While it is being
 * completed; id lives as long as end. */
void crew_ending_of(const crew_call *call, crew_call_end *end, char id[CREW_ID_TEXT]);
/* What is to be read in it: of one that is not run. */
void crew_ending_of_wire(const crew_protocol *protocol, const crew_wire_call *wire, crew_call_end *end,
                         char id[CREW_ID_TEXT]);

/* Logs it, if it is worth a line: what handlers do wrong as errors, what callers do, and limits, as warnings,
 * a few in a while and how many were left out; with the level of single messages, every call. */
void crew_ending_log(const crew_call_end *end);

/* A handler has completed its call once more. */
void crew_ending_log_twice(const crew_call *call);

#endif
