/* One connection to a RabbitMQ broker (AMQP 0-9-1), as workers and callers need it: the one place that knows
 * rabbitmq-c.
 *
 * After login and topology rabbitmq-c only reads. All that is sent goes through an outbox of our own, encoded
 * by rabbitmq-c's codecs and written without blocking: rabbitmq-c's own calls would block without limit while
 * the broker has an alarm, and send each frame by itself. */
#ifndef TRANSPORT_AMQP_LINK_H
#define TRANSPORT_AMQP_LINK_H

#include <rpcrew/impl/transport.h>

struct amqp_link;

/* What the broker sends, decoded. Strings and body are borrowed until the next event. */
enum amqp_event_kind {
    AMQP_EVENT_NONE,
    AMQP_EVENT_DELIVER, /* tag, and the properties */
    AMQP_EVENT_RETURN,  /* the properties of what could not be routed */
    AMQP_EVENT_ACK,     /* tag, multiple: confirms */
    AMQP_EVENT_NACK,
    AMQP_EVENT_QUEUE,     /* what an inquiry found */
    AMQP_EVENT_CANCEL,    /* the consumer is gone */
    AMQP_EVENT_CANCELLED, /* as we wanted; no more comes */
    AMQP_EVENT_LARGE,     /* the one on the channel for those was taken (ack) or not */
    AMQP_EVENT_TOO_LARGE, /* it is beyond the broker's limit, and the channel closed; why says it */
    AMQP_EVENT_LOST       /* the connection or channel is; why says it */
};

struct amqp_event {
    enum amqp_event_kind kind;
    uint64_t tag;
    bool multiple, redelivered, taken;
    bool incomplete; /* there was no memory for all of it */
    bool large;      /* a delivery, or a return, on AMQP_LARGE */
    unsigned code;   /* of a loss that the broker has words for; 0: it has none */
    bool exists;     /* an inquiry's queue; and what waits in it, and who consumes it */
    uint32_t messages, consumers;
    crew_string content_type, correlation_id, reply_to, expiration, message_id, type; /* data NULL: absent */
    const crew_value *headers; /* a delivery's, without rpcrew's own; NULL: none */
    int64_t deadline_unix_ms;  /* the header rpcrew-deadline; 0: absent */
    int64_t timeout_ms;        /* the header rpcrew-timeout; -1: absent */
    crew_string body;
};

struct amqp_publish {
    unsigned channel;
    const char *exchange;
    crew_string routing_key;
    crew_string content_type, correlation_id, reply_to; /* data NULL: left out */
    int64_t expiration_ms;                              /* below 0: none */
    int64_t deadline_unix_ms;                           /* 0: none */
    const crew_value *headers;                          /* an object of strings; NULL: none */
    bool mandatory, persistent;
    crew_string body;
};

/* A queue, with the url whose options say how it is declared. */
struct amqp_queue {
    const char *name;
    const crew_url *url;
};

/* exchange NULL: there is none. */
struct amqp_binding {
    const char *exchange, *key;
};

#define AMQP_DIRECT_REPLY_TO "amq.rabbitmq.reply-to"

/* RabbitMQ's words for its limit: message size N is larger than configured max size M. */
#define AMQP_MAX_SIZE "max size "

enum { AMQP_CALLS = 1, AMQP_CONFIRMS = 2, AMQP_INQUIRIES = 3, AMQP_LARGE = 4 }; /* the channels */

/* Connects and logs in, to the first of the URL's hosts that takes us, or to that one (host NULL: any); opens
 * the channel of calls, and confirm_channel (0: none), the same or another, with confirms; the same, if there
 * is no other. Blocks up to the config's connect_timeout_ms a host. CREW_NO_SERVICE: refused or not found,
 * also the vhost or the login. */
crew_status amqp_link_open(struct amqp_link **link, const crew_transport_config *config, const size_t *host,
                           unsigned confirm_channel, crew_error *why);
size_t amqp_link_host(const struct amqp_link *link);
/* Flushes and closes in order, for linger_ms at most, then drops the socket. Returns amqp_link_written of the
 * end. */
uint64_t amqp_link_close(struct amqp_link *link, unsigned linger_ms);

/* Topology, while opening: these block up to connect_timeout_ms. queue is the name, or for an exclusive queue
 * gets one (in the link's memory). CREW_BAD_ARGUMENT with the broker's words, such as which argument differs.
 */
crew_status amqp_link_declare(struct amqp_link *link, const struct amqp_queue *queue, bool passive,
                              crew_error *why);
crew_status amqp_link_declare_exclusive(struct amqp_link *link, const char **queue, crew_error *why);
/* The queue to an exchange, by a key. */
crew_status amqp_link_bind(struct amqp_link *link, const char *queue, const struct amqp_binding *binding,
                           crew_error *why);
/* CREW_NO_SERVICE if there is no such exchange. */
crew_status amqp_link_check_exchange(struct amqp_link *link, const char *exchange, crew_error *why);
crew_status amqp_link_consume(struct amqp_link *link, const char *queue, unsigned prefetch, bool no_ack,
                              crew_error *why);

/* Whether this user may write to the default exchange, where answers go: asks by publishing there what nobody
 * takes. CREW_NO_SERVICE with the broker's words. *alarm: it says nothing now, and the link is of no more
 * use. While opening, before anything is consumed. */
crew_status amqp_link_check_answers(struct amqp_link *link, bool *alarm, crew_error *why);

/* Whether the broker allows a connection that many channels. */
bool amqp_link_has(const struct amqp_link *link, unsigned channel);

/* Into the outbox; false without memory. On AMQP_LARGE, which there must be, what is published is confirmed
 * by AMQP_EVENT_LARGE, or refused by AMQP_EVENT_TOO_LARGE, which costs nothing else; one at a time. */
bool amqp_link_publish(struct amqp_link *link, const struct amqp_publish *publish);
bool amqp_link_ack(struct amqp_link *link, uint64_t tag);
bool amqp_link_reject(struct amqp_link *link, uint64_t tag, bool requeue);
/* told: AMQP_EVENT_CANCELLED comes when it is done. */
bool amqp_link_cancel(struct amqp_link *link, bool told);
/* After the broker has cancelled the consumer: declares the queue, if declare, binds it, if there is a
 * binding, and consumes it again. */
bool amqp_link_consume_again(struct amqp_link *link, const struct amqp_queue *queue, bool declare,
                             const struct amqp_binding *binding);
/* Direct reply-to answers over the channel that asked: AMQP_LARGE consumes them too, from its opening to its
 * close. */
void amqp_link_answer_directly(struct amqp_link *link);
/* What is on its way on AMQP_LARGE is told of no more. */
bool amqp_link_close_large(struct amqp_link *link);
/* Asks how the queue is (AMQP_EVENT_QUEUE), unless that was asked and not answered yet, or there is no
 * channel for it. */
bool amqp_link_inquire(struct amqp_link *link, const char *queue);

unsigned amqp_link_heartbeat_ms(const struct amqp_link *link); /* as agreed; 0: none */

/* Whether the broker has an alarm, and reads nothing. */
bool amqp_link_is_blocked(const struct amqp_link *link);
/* Whether what is put into the outbox now may be written at once: nothing waits there, no alarm. */
bool amqp_link_writable(const struct amqp_link *link);
/* All bytes ever put into the outbox, and how many of them are written. */
uint64_t amqp_link_queued(const struct amqp_link *link);
uint64_t amqp_link_written(const struct amqp_link *link);

/* Writes what the socket takes; nothing while the broker has an alarm. CREW_DISCONNECTED. */
crew_status amqp_link_flush(struct amqp_link *link);
/* Until there is something to read or to write, wake_fd is readable, a heartbeat is due, or time is over. */
crew_status amqp_link_wait(struct amqp_link *link, int wake_fd, int timeout_ms);
/* The same for two; other may be NULL, and how it is, is told when it is read. */
crew_status amqp_link_wait_for_two(struct amqp_link *link, struct amqp_link *other, int wake_fd,
                                   int timeout_ms);
/* The next event; AMQP_EVENT_NONE when there is nothing more to read. Drives heartbeats. */
struct amqp_event amqp_link_next(struct amqp_link *link, crew_error *why);

#endif
