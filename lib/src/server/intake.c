#include "server/intake.h"

#include <malloc.h>

/* What a text takes at most while it is decoded (docs/values.md). */
enum { DECODED_TIMES = 18 };

/* Calls of one peer that may be taken beyond the room that there is. */
enum { RESERVE_EACH = 8 };

/* Memory is tidied after so many bytes, and then so long without any, or so long with. */
enum { TIDY_BYTES = 16 << 20, TIDY_MS = 1000, TIDY_MOST_MS = 10000 };

int crew_intake_due(struct crew_endpoint *endpoint)
{
    if (!endpoint->tidy_at_ms)
        return -1;
    int64_t left = endpoint->tidy_at_ms - crew_now_ms();
    if (left > 0)
        return (int)left;
    endpoint->tidy_at_ms = endpoint->tidy_by_ms = 0;
    endpoint->tidy_again = endpoint->passed_bytes > TIDY_BYTES;
    endpoint->passed_bytes = 0;
    (void)malloc_trim(0);
    return -1;
}

void crew_intake_passed(struct crew_endpoint *endpoint, size_t bytes)
{
    endpoint->passed_bytes += bytes;
    if (endpoint->passed_bytes <= TIDY_BYTES && !endpoint->tidy_again)
        return;
    int64_t now = crew_now_ms();
    if (!endpoint->tidy_by_ms)
        endpoint->tidy_by_ms = now + TIDY_MOST_MS;
    endpoint->tidy_at_ms = now + TIDY_MS < endpoint->tidy_by_ms ? now + TIDY_MS : endpoint->tidy_by_ms;
}

static size_t left_of(const atomic_size_t *used, size_t most)
{
    size_t taken = atomic_load_explicit(used, memory_order_relaxed);
    return taken < most ? most - taken : 0;
}

crew_room crew_intake_room(struct crew_endpoint *endpoint)
{
    size_t most = endpoint->options.in_flight_max;
    size_t bytes = left_of(&endpoint->bytes, endpoint->options.in_flight_bytes);
    crew_room room = { .messages = left_of(&endpoint->calls, most),
                       .bytes = (bytes + DECODED_TIMES - 1) / DECODED_TIMES,
                       .reserve = left_of(&endpoint->in_flight, 2 * most) };
    room.reserve -= room.messages < room.reserve ? room.messages : room.reserve;
    room.each =
        room.reserve > (most + 1) / 2 ? RESERVE_EACH : 1; /* half of it is for those who have nothing yet */
    return room;
}

void crew_intake_charge(struct crew_endpoint *endpoint, crew_message *m)
{
    if (!m->peer) {
        m->peer = crew_peer_hold(endpoint->peer);
        atomic_fetch_add(&m->peer->in_flight, 1);
    } /* else its transport has counted it, by crew_room_take */
    m->calls = 1;
    m->charged = m->body.size * DECODED_TIMES;
    atomic_fetch_add(&endpoint->in_flight, 1);
    atomic_fetch_add(&endpoint->calls, 1);
    atomic_fetch_add(&endpoint->bytes, m->charged);
}

void crew_intake_discharge(struct crew_endpoint *endpoint, const crew_message *m)
{
    atomic_fetch_sub(&endpoint->in_flight, 1);
    atomic_fetch_sub(&endpoint->calls, m->calls);
    atomic_fetch_sub(&endpoint->bytes, m->charged);
    atomic_fetch_sub(&m->peer->in_flight, m->calls);
}

void crew_intake_charge_decoded(struct crew_endpoint *endpoint, crew_message *message,
                                const struct crew_job *job)
{
    size_t more = message->peer->shared ? 0 : job->wire.count - 1; /* of many callers each has a message */
    size_t bytes = message->body.size + crew_arena_size(&message->arena),
           most = endpoint->options.in_flight_bytes;
    atomic_fetch_add(&endpoint->calls, more);
    atomic_fetch_add(&message->peer->in_flight, more);
    size_t before = atomic_fetch_add(&endpoint->bytes, bytes - message->charged); /* may wrap, and back */
    size_t now = before + bytes - message->charged;
    message->calls += (uint32_t)more;
    message->charged = bytes;
    if (before >= most && now < most) /* there is room again for what waits in the socket */
        crew_queue_wake(&endpoint->queue);
}

void crew_intake_pass_over(struct crew_endpoint *endpoint, crew_peer *peer)
{
    crew_list one = { 0 };
    crew_message *m = crew_message_take(endpoint->messages);
    if (!m) {
        atomic_fetch_sub(&peer->in_flight, 1);
        return;
    }
    m->kind = CREW_SETTLE_DONE;
    m->endpoint = endpoint;
    m->epoch = endpoint->epoch;
    m->peer = crew_peer_hold(peer);
    crew_intake_charge(endpoint, m);
    crew_list_append(&one, m);
    crew_endpoint_push(endpoint, &one);
}
