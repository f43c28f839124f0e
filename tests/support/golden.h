/* Golden files: cases of a request and the reply that it must get (tests/golden/README.md). */
#ifndef SUPPORT_GOLDEN_H
#define SUPPORT_GOLDEN_H

#include "support/test.h"

/* Answers a request; an empty answer is none. The answer is the caller's. */
typedef crew_bytes golden_answerer(void *context, crew_string request);

/* Runs all cases of golden/name; fails with all that differ. Returns how many there were. */
size_t golden_run(const char *name, golden_answerer *answer, void *context);

#endif
