/* A worker and a caller at a broker that does what a script says: what the tests of both have in common. */
#ifndef SUPPORT_SCRIPTED_H
#define SUPPORT_SCRIPTED_H

#include "support/fake_broker.h"
#include "support/handlers.h"
#include "support/test.h"

#include <rpcrew/server.h>

#define QUEUE "q"

extern struct fake_broker *broker;
extern char url[200]; /* of the queue at the broker */
extern crew_server *server;
extern crew_client *client;
extern crew_error why;

/* The service has add, echo, thrice (its param three times), pass and until_cancelled. */
int scripted_setup(void **state);
int scripted_teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, scripted_setup, scripted_teardown)

void start_broker(const struct fake_options *options);
void serve(const crew_server_options *options);
void connect_client(void);
/* A request that nobody waits for the answer of. */
void put(const char *method, unsigned id);
void drop(struct fake_connection *connection, void *context);

/* Each opening of the worker asks first whether it may answer: without those. */
unsigned answers_published(void);

/* For eventually(). */
bool has_redelivered(void *count); /* a uint64_t */
bool has_published(void *count);   /* an unsigned, those of answers_published and the others */
bool is_empty(void *unused);       /* the queue, and nothing is unacknowledged */

#endif
