/* What a worker and a caller on RabbitMQ have in common beside the link. */
#ifndef TRANSPORT_AMQP_END_H
#define TRANSPORT_AMQP_END_H

#include "transport/amqp_link.h"

enum { AMQP_EVENTS_MOST = 1000 }; /* in one round */

enum { AMQP_FORBIDDEN = 403 }; /* the code of access-refused */

/* What the broker is known to take. A size that it has not been seen to take goes alone, on AMQP_LARGE: one
 * that is too large for the broker closes its channel, and would take others with it. Kept from one opening
 * to the next. */
struct amqp_sizes {
    size_t taken;    /* has been, or is small enough for any */
    size_t most;     /* the broker's limit, once it is known; 0: not yet */
    char words[200]; /* in which it said so */
    bool busy;       /* one is on its way, */
    size_t size;     /* of this size, */
    int64_t since_ms;
};

enum { AMQP_SMALL = 512, AMQP_LARGE_MS = 10000 };

/* At an opening. */
void amqp_sizes_open(struct amqp_sizes *sizes, const struct amqp_link *link);
/* One goes on its way. */
void amqp_sizes_begin(struct amqp_sizes *sizes, size_t size);
/* Whether the one on its way has been that for so long that the others are not to wait for it: then it is
 * given up, on the link too. */
bool amqp_sizes_give_up(struct amqp_sizes *sizes, struct amqp_link *link);
/* By AMQP_EVENT_LARGE and AMQP_EVENT_TOO_LARGE: the one on its way is through. */
void amqp_sizes_note(struct amqp_sizes *sizes, const struct amqp_event *e, const crew_error *why);
/* Another channel was closed: whether for a size, so that none is known to be taken any more. */
void amqp_sizes_note_loss(struct amqp_sizes *sizes, const char *words);

extern const struct crew_transport_ops crew_amqp_worker_ops, crew_amqp_caller_ops;

/* A loss is recv's to tell, which reads what has come before it. */
static inline crew_status amqp_leave_to_recv(crew_status status)
{
    return status == CREW_DISCONNECTED ? CREW_OK : status;
}

static inline crew_status amqp_lost(const crew_transport_config *config, const struct amqp_event *e,
                                    const crew_error *why)
{
    if (e->kind == AMQP_EVENT_CANCEL)
        return crew_error_set(config->lost, CREW_DISCONNECTED, "the broker cancelled the consumer");
    return crew_error_set(config->lost, CREW_DISCONNECTED, "%s", why->message);
}

#endif
