/* The requests that a server has taken and not settled, to be found by who sent them: those that nobody wants
 * any more are told so, and a copy of one that still runs is known. */
#ifndef SERVER_IN_FLIGHT_H
#define SERVER_IN_FLIGHT_H

#include "service/job.h"

#include <pthread.h>

struct crew_in_flight {
    pthread_mutex_t mutex;
    crew_message *first;
};

void crew_in_flight_init(struct crew_in_flight *all);
/* None is left by then. */
void crew_in_flight_fini(struct crew_in_flight *all);

/* From when they are taken until they are settled. Any thread. */
void crew_in_flight_add(struct crew_in_flight *all, const crew_list *messages);
/* Returns its heir, or NULL. */
crew_message *crew_in_flight_remove(struct crew_in_flight *all, crew_message *message);

/* It is decoded: from now on its calls are known. If it was cancelled before, they are. */
void crew_in_flight_begin(struct crew_in_flight *all, crew_message *message, struct crew_job *job);

/* Cancels what came in at an endpoint from an origin: all of it (id NULL), or of what is decoded the calls
 * with an id, as its protocol wrote it. Returns how many messages that was something of. Any thread. */
size_t crew_in_flight_cancel(struct crew_in_flight *all, const void *endpoint, crew_string origin,
                             const crew_string *id);

/* A message that has come again, and is a copy of one that an earlier opening of its endpoint took and that
 * is still here, becomes its heir: it is not started, and gets that one's answer. Looks among the latest
 * 1,000, so that it costs little where all comes again. *before is an heir of an opening that is over, if
 * there was one: whose answer would go nowhere. False: there is no such copy. */
bool crew_in_flight_inherit(struct crew_in_flight *all, crew_message *heir, crew_message **before);

/* An endpoint's connection is lost: the heirs wait in vain, and what runs for them is told so. */
void crew_in_flight_disinherit(struct crew_in_flight *all, const void *endpoint);

#endif
