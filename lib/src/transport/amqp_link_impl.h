/* What a link is: amqp_open.c opens it, amqp_link.c reads and closes, amqp_out.c writes. These know
 * rabbitmq-c. */
#ifndef TRANSPORT_AMQP_LINK_IMPL_H
#define TRANSPORT_AMQP_LINK_IMPL_H

#include "transport/amqp_link.h"
#include "transport/rabbitmq_c.h"

enum { AMQP_LINK_FRAME_MOST = 1 << 20 }; /* that is read */

struct amqp_link {
    amqp_connection_state_t connection;
    crew_opening *opening; /* the config's */
    int fd;
    size_t host; /* of the URL's */
    bool tls;
    bool blocked; /* the broker has an alarm, and reads nothing until it says otherwise */
    unsigned connect_timeout_ms;
    int frame_max, heartbeat_s;
    int64_t last_in_ms, last_out_ms;
    size_t message_most;

    crew_buffer outbox;
    size_t sent; /* of the outbox */
    uint64_t queued, written;

    /* the content being assembled */
    enum amqp_event_kind content;
    unsigned content_channel;
    bool content_unwanted; /* it is for a channel that was given up */
    struct amqp_event event;
    uint64_t body_left;
    crew_buffer body;
    crew_arena texts;
    unsigned channel_max;
    bool large_open;    /* the channel of what may be too large */
    bool large_answers; /* direct replies to what is sent there come there */
    bool large_closing; /* by us: what comes before the answer to that is of what was given up */
    bool inquiry_open;  /* the channel of inquiries */
    bool inquiring;     /* an answer is on its way */
    bool close_answered;
    char reply_queue[256];
    char consumer_tag[256];
};

/* Into the outbox; false without memory, or if it cannot be encoded. */
bool amqp_link_append_method(struct amqp_link *link, unsigned channel, amqp_method_number_t id,
                             void *decoded);
void amqp_link_append_frame(struct amqp_link *link, int type, unsigned channel, const void *payload,
                            size_t size);

/* The headers as an object in the arena, without rpcrew's own; NULL if there are none. False without memory.
 */
bool amqp_link_headers(crew_arena *arena, const amqp_basic_properties_t *properties, const crew_value **out);

/* Drops the connection, if there is one. */
void amqp_link_disconnect(struct amqp_link *link);
/* And frees the link. */
void amqp_link_destroy(struct amqp_link *link);

amqp_bytes_t amqp_link_bytes(crew_string text);

/* The arguments that a queue is declared with, in entries. */
enum { AMQP_QUEUE_ARGUMENTS = 9 };
amqp_table_t amqp_link_arguments(const struct amqp_queue *queue,
                                 amqp_table_entry_t entries[AMQP_QUEUE_ARGUMENTS]);

#endif
