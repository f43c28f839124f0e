/* What a client is: client.c starts calls and waits for them, outcome.c ends them, by what
 * answer.c reads in their answers. */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "client/outstanding.h"
#include "client/serving.h"
#include "core/metrics.h"
#include "io/endpoint.h"

#include <rpcrew/client.h>
#include <rpcrew/impl/protocol.h>
#include <rpcrew/observe.h>

/* One endpoint of a client, and the calls that are on it. A URL with several hosts that are peers of one
 * another makes several links, and calls are balanced over them. */
struct crew_link {
    struct crew_endpoint endpoint; /* first, so that one is found from the other */
    struct crew_due_heap due;      /* under the client's mutex; so is what a call's link is */
    bool up;                       /* it is open; its I/O thread's, as the next is */
    size_t observers_told;         /* of that */
    bool down;                     /* the last try to open it failed; under the mutex */
    bool absent;                   /* it has never been open, and could not be last time; under the mutex */
};

enum { CREW_CLIENT_OBSERVERS_MAX = 8 };

struct crew_client {
    crew_client_options options;
    const crew_protocol *protocol;
    char *prefix; /* owned */
    struct crew_link *links;
    size_t link_count;
    struct crew_serving serving;
    struct crew_back *back; /* crew_call_client's; NULL: a client of its own */

    struct crew_client_counts *counts; /* in options.metrics; NULL: nobody asked for them */
    crew_client_hooks observers[CREW_CLIENT_OBSERVERS_MAX];
    atomic_size_t observer_count;

    pthread_mutex_t mutex; /* of all below */
    bool closing;          /* nothing is started any more */
    struct crew_call_table table;
    unsigned budget_tenths; /* of resending: a call adds one, a resend takes ten */
    uint64_t calls, tally[CREW_CLIENT_COUNTS];
};

/* What errors and observers are told as the endpoint. */
static inline const char *crew_client_url(const crew_client *client)
{
    return crew_url_text(client->links[0].endpoint.url);
}

static inline void crew_client_gauge(const crew_client *client, enum crew_client_count what, int by)
{
    if (client->counts)
        atomic_fetch_add_explicit(&client->counts->counts[what], (uint64_t)(int64_t)by, memory_order_relaxed);
}

/* Under the mutex. */
static inline void crew_client_count(crew_client *client, enum crew_client_count what)
{
    client->tally[what]++;
    crew_client_gauge(client, what, 1);
}

enum { CREW_BUDGET_TENTHS_FIRST = 100, CREW_BUDGET_TENTHS_MOST = 1000 };

/* What the endpoints of clients call, on their I/O threads. */
extern const struct crew_endpoint_owner crew_client_owner;

/* The link for the next call: of those that are ready, or else of all, the one with the fewest calls; without
 * one of them (NULL: of all), and NULL if there is no other. Under the mutex. */
struct crew_link *crew_client_choose(const crew_client *client, const struct crew_link *but);

/* Whether a call's headers can go with it (crew_call_options.headers); *what says what is wrong. */
CREW_NODISCARD crew_status crew_client_check_headers(const crew_client *client, const crew_value *headers,
                                                     const char **what);

/* Of headers that are good. CREW_NO_MEMORY. */
/* Writes what goes before a request (reply): something where the endpoint says_with, else nothing. False
 * without memory. */
CREW_NODISCARD bool crew_client_write_with(const struct crew_endpoint *endpoint, crew_message *message);

CREW_NODISCARD crew_status crew_client_copy_headers(crew_arena *arena, const crew_value *headers,
                                                    const crew_value **copy);

/* crew_client_start_value's, and whether what finds no room will try again: no end of a call, then. */
struct crew_beginning {
    const char *method;
    const crew_value *params;
    const crew_call_options *options;
    crew_completion *on_done;
    void *context;
    uint32_t *id;
    bool waits_for_room;
};
CREW_NODISCARD crew_status crew_client_begin(crew_client *client, const struct crew_beginning *beginning,
                                             crew_error *why);

/* When a call that has just been handed over wants attention: its deadline, or, where the transport can find
 * out why nobody answers, some time before. */
int64_t crew_client_due(const struct crew_pending *call);

/* Fills in what every error of a call says: method, endpoint, what, and after how long. */
void crew_client_describe(const crew_client *client, const struct crew_pending *call, crew_status status,
                          crew_executed executed, const char *what, crew_error *why);

/* crew_call_client's: whether others still have it, who then free it; and the end of it. */
bool crew_client_is_shared(crew_client *client);
void crew_client_leave_back(crew_client *client);

void crew_pending_free(struct crew_pending *call);

#endif
