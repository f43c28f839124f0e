/* What the floors share: the call, written and read with jansson alone, and the client's book of latencies.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A floor is one program, `server URL…` or `client URL… CALLS_AT_A_TIME SECONDS`; ends the program with what
 * went wrong. */
_Noreturn void floor_fail(const char *what);

/* The answer to a request, as a server writes it; to be freed with free. */
char *floor_answer(const char *request, size_t size);

/* The client: keeps so many calls under way for so long, then prints what `rpcrew bench --json` prints. */
struct floor_client;
struct floor_client *floor_client_new(const char *calls_at_a_time, const char *seconds);
unsigned floor_client_lanes(const struct floor_client *client);
/* The next request, for which there must be a lane; NULL when the time is over. To be freed with free. */
char *floor_client_request(struct floor_client *client);
/* Takes an answer in; false when it was the last one. */
bool floor_client_answer(struct floor_client *client, const char *answer, size_t size);
/* Prints the figures. */
int floor_client_end(struct floor_client *client);

#endif
