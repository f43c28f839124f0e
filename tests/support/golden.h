/* Golden files: requests, and the replies that they must get (tests/golden/README.md). */
#ifndef SUPPORT_GOLDEN_H
#define SUPPORT_GOLDEN_H

#include "support/test.h"

#include <rpcrew/impl/protocol.h>

enum { GOLDEN_REPLIES_MOST = 8 };

struct golden_case {
    unsigned line;
    crew_string request;
    bool exact;                               /* the one reply is these bytes; else they are JSON texts */
    crew_string replies[GOLDEN_REPLIES_MOST]; /* each a message, in order */
    size_t reply_count;
};

typedef void golden_visitor(void *context, const struct golden_case *one);

/* Visits the cases of a file in order; returns how many there are. */
size_t golden_each(const char *path, golden_visitor *visit, void *context);

/* Whether an answer is what the case wants, and nothing else; if not, says what is wrong. */
bool golden_is_right(const struct golden_case *one, const crew_protocol *protocol, crew_string answer);

#endif
