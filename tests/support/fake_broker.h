/* A broker of AMQP 0-9-1 that does what a script says: for what a real one does once a year, or in another
 * version. Without a script it is a small one that works: queues in memory, the default exchange (other names
 * are taken for it), prefetch, acks, confirms, returns, direct reply-to. Frames as in
 * https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, section 4.2. */
#ifndef SUPPORT_FAKE_BROKER_H
#define SUPPORT_FAKE_BROKER_H

#include "transport/rabbitmq_c.h"

#include <stdbool.h>
#include <stddef.h>

struct fake_broker;
struct fake_connection;

/* A method that has come; of a publish, all of it. Borrowed for the time of the script. */
struct fake_event {
    struct fake_broker *broker;
    struct fake_connection *connection;
    unsigned channel;
    amqp_method_number_t method;
    const void *decoded;                       /* amqp_…_t of the method */
    const amqp_basic_properties_t *properties; /* of a publish, as its body is */
    amqp_bytes_t body;
    unsigned count; /* how many of that method have come, this one included */
};

/* Sees each method before the broker; true: it has dealt with it, and the broker does nothing. On the
 * broker's thread, under its lock. */
typedef bool fake_script(void *context, const struct fake_event *event);

struct fake_options {
    fake_script *script;
    void *context;
    unsigned channel_max, frame_max, heartbeat_s; /* 0: 2047, 131072, 60 */
    size_t max_message_size;                      /* 0: none; a publish of more closes its channel with 406 */
    const char *version;                          /* NULL: "4.0.5" */
    const char *const *capabilities;              /* NULL at the end; NULL: RabbitMQ's */
};

/* Listens on a free port of 127.0.0.1. options may be NULL. Fails the test if it cannot. */
struct fake_broker *fake_start(const struct fake_options *options);
/* Drops the connections, and frees it. */
void fake_stop(struct fake_broker *broker);
/* amqp://127.0.0.1:port/, the broker's. */
const char *fake_url(const struct fake_broker *broker);

/* ---- from a test's thread ---- */

/* How many of a method have come. */
unsigned fake_count(struct fake_broker *broker, amqp_method_number_t method);
/* Messages that wait in a queue, and those that are with its consumers; 0 if there is none. */
size_t fake_ready(struct fake_broker *broker, const char *queue);
size_t fake_unacked(struct fake_broker *broker, const char *queue);
/* Puts a message into a queue, which is made if need be. */
void fake_put(struct fake_broker *broker, const char *queue, const amqp_basic_properties_t *properties,
              const char *body);
void fake_put_bytes(struct fake_broker *broker, const char *queue, const amqp_basic_properties_t *properties,
                    amqp_bytes_t body);
/* Runs something for each connection that has logged in, on this thread, under the broker's lock. */
void fake_each(struct fake_broker *broker, void (*what)(struct fake_connection *connection, void *context),
               void *context);

/* ---- in a script, or in fake_each ---- */

void fake_send(struct fake_connection *connection, unsigned channel, amqp_method_number_t method,
               void *decoded);
void fake_send_content(struct fake_connection *connection, unsigned channel, amqp_method_number_t method,
                       void *decoded, amqp_basic_properties_t *properties, amqp_bytes_t body);
void fake_send_bytes(struct fake_connection *connection, const void *bytes, size_t size);
/* As after an error: what was unacknowledged there waits in its queue again. */
void fake_close_channel(struct fake_connection *connection, unsigned channel, unsigned code,
                        const char *text);
void fake_close_connection(struct fake_connection *connection, unsigned code, const char *text);
/* Ends it without a word, when what was sent is out. */
void fake_drop(struct fake_connection *connection);
/* What comes is not looked at, until it is again. */
void fake_ignore(struct fake_connection *connection, bool ignore);
/* Has the broker do what it would have done without the script, later or once more. Not of a publish. */
void fake_proceed(const struct fake_event *event);

/* Whether bytes are this text. */
bool fake_is(amqp_bytes_t bytes, const char *text);

#endif
