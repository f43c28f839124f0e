/* Answers whose address may cost the connection that they are published on, by their requester's doing: they
 * go on a connection of their own, which is opened when the first is there, without waiting for it. They are
 * confirmed; when that connection ends, those that were not are published again, one at a time, until the one
 * that the broker will not have is found. */
#ifndef TRANSPORT_AMQP_APART_H
#define TRANSPORT_AMQP_APART_H

#include "transport/amqp_end.h"

struct amqp_way; /* an opening under way, and what it has opened */

/* All zero, but for the config, is none yet. */
struct amqp_apart {
    const crew_transport_config *config;
    size_t host;  /* of the URL's: the one that the worker's own connection is to */
    bool bounded; /* how many there can be: else the prefetch bounds it */
    struct amqp_way *way;
    struct amqp_link *link; /* NULL: it is not open */
    crew_list waiting, sent, through;
    size_t bytes;       /* of all of them */
    uint64_t published; /* on this link */
    size_t suspects;    /* of those at the front of waiting: one has cost a connection */
    unsigned losses;    /* one after the other, of the same one alone */
    unsigned failures;  /* to open, since it was open */
    int64_t retry_at_ms;
    int64_t heard_ms; /* when an alarm ended */
    char words[200];  /* of the broker, on the last one that it would not have, */
    unsigned code;    /* and its code */
};

/* Takes an answer; false: there are too many, and it stays the caller's. */
bool amqp_apart_take(struct amqp_apart *apart, crew_message *m);

/* The next answer that is through, NULL: none. *fate is CREW_OK (it was taken), CREW_DISCONNECTED (it will
 * not be, and words say why), CREW_LIMIT (it is too large, as words say), CREW_NO_SERVICE (there is no
 * further connection to be had). Opens, publishes and reads as well. */
crew_message *amqp_apart_next(struct amqp_apart *apart, crew_status *fate);

/* When it wants that at the latest, beside when its link has something: milliseconds, or -1. */
int amqp_apart_due(const struct amqp_apart *apart);

static inline bool amqp_apart_is_busy(const struct amqp_apart *apart)
{
    return apart->waiting.count || apart->sent.count || apart->through.count;
}

/* Ends the connection; what is not through moves to left. */
void amqp_apart_close(struct amqp_apart *apart, unsigned linger_ms, crew_list *left);

#endif
