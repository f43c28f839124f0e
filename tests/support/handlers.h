/* Handlers of tests, and the gate that some of them stand at. */
#ifndef SUPPORT_HANDLERS_H
#define SUPPORT_HANDLERS_H

#include "support/gate.h"

#include <rpcrew/service.h>

#include <stdatomic.h>

extern struct gate gate;

crew_status add(crew_call *call);  /* a:int b:int */
crew_status echo(crew_call *call); /* value:any */
/* Answers 1 when the gate lets it through. */
crew_status pass(crew_call *call);
/* At the gate, and then until it is told that nobody waits for it: was_raised is 1 then, -1 if it was not. */
crew_status until_cancelled(crew_call *call);
extern atomic_int was_raised;

#endif
