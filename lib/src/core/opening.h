/* What lets an opening that blocks be ended from outside: rpcrew/impl/transport.h has the transport's side.
 */
#ifndef CORE_OPENING_H
#define CORE_OPENING_H

#include <rpcrew/impl/transport.h>

#include <pthread.h>

struct crew_opening {
    pthread_mutex_t mutex;
    int fd; /* a copy of the one that it waits for, which may be closed behind our back; -1: none */
    bool unwanted;
};

void crew_opening_init(struct crew_opening *opening);
void crew_opening_fini(struct crew_opening *opening);

/* Nobody wants it any more; it is not waited for again. Any thread. */
void crew_opening_end(struct crew_opening *opening);

#endif
