/* What a worker and a caller on RabbitMQ have in common beside the link. */
#ifndef TRANSPORT_AMQP_END_H
#define TRANSPORT_AMQP_END_H

#include "transport/amqp_link.h"

enum { AMQP_EVENTS_MOST = 1000 }; /* in one round */

#define AMQP_DIRECT_REPLY_TO "amq.rabbitmq.reply-to"

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
