/* One call in both protocols has the same outcome, whoever answers. */
#ifndef FUZZ_TWINS_H
#define FUZZ_TWINS_H

#include "fuzz.h"

#include <rpcrew/dispatcher.h>
#include <rpcrew/impl/protocol.h>

/* Answers a request; the caller's, empty if there is no answer. */
typedef crew_bytes twins_answerer(crew_string request, const char *content_type);

/* The service that answers: echo, and add with declared params. The process's own. */
const crew_dispatcher *twins_dispatcher(void);

/* If the bytes are a JSON array or object, calls both methods with it as params, in both protocols. */
void twins_check(crew_string params, twins_answerer *answer);

#endif
