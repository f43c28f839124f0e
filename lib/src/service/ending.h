/* What is told of a call's end. */
#ifndef SERVICE_ENDING_H
#define SERVICE_ENDING_H

#include "service/call.h"

#include <rpcrew/observe.h>

/* What the call itself knows: all but endpoint ("") and what happened to its message. While it is being
 * completed. */
void crew_ending_of(const crew_call *call, crew_call_end *end);

/* Logs it, if it is worth a line: what handlers do wrong as errors, what callers do, and limits, as warnings,
 * a few in a while and how many were left out; with the level of single messages, every call. */
void crew_ending_log(const crew_call_end *end);

/* A handler has completed its call once more. */
void crew_ending_log_twice(const crew_call *call);

/* Of CLOCK_MONOTONIC. */
int64_t crew_now_ns(void);

#endif
