/* Routing ids to peers. libzmq says nothing of who comes and goes behind a ROUTER, so a peer is made when a
 * request comes, and forgotten some time after its last one was answered. */
#include "transport/zmq_peers.h"

#include <stdlib.h>

enum { KEPT_MOST = 1024, LATELY_MS = 1000 };

static size_t slot_of(crew_string id)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < id.size; i++)
        hash = (hash ^ (unsigned char)id.data[i]) * 16777619U;
    return (hash ^ hash >> 16) % ZMQ_PEERS_SLOTS;
}

struct zmq_peer *zmq_peers_find(struct zmq_peers *peers, crew_string id)
{
    struct zmq_peer **slot = &peers->slots[slot_of(id)], *peer = *slot;
    while (peer && (peer->id_size != id.size || memcmp(peer->id, id.data, id.size) != 0))
        peer = peer->next;
    if (peer && atomic_load(&peer->core->gone)) { /* and another has come in its place */
        crew_peer *fresh = crew_peer_new(peer);
        if (!fresh)
            return NULL;
        crew_peer_release(peer->core);
        peer->core = fresh;
    }
    if (peer || id.size > ZMQ_PEER_ID_MOST)
        return peer;
    peer = calloc(1, sizeof *peer);
    crew_peer *core = peer ? crew_peer_new(peer) : NULL;
    if (!core) {
        free(peer);
        return NULL;
    }
    memcpy(peer->id, id.data, id.size);
    peer->id_size = id.size;
    peer->core = core;
    peer->next = *slot;
    *slot = peer;
    peers->count++;
    return peer;
}

void zmq_peers_gone(struct zmq_peers *peers, struct zmq_peer *peer, const crew_transport_config *config)
{
    for (crew_message *m; (m = crew_list_take(&peer->parked)); crew_message_give(config->messages, m)) {
        peers->parked_count--;
        peers->parked_bytes -= m->body.size;
    }
    peer->parked_bytes = 0;
    peer->core->mine = NULL;
    crew_transport_gone(config, peer->core);
}

bool zmq_peers_others_are_active(const struct zmq_peers *peers, const struct zmq_peer *peer, bool lately)
{
    int64_t since = lately ? crew_now_ms() - LATELY_MS : INT64_MAX;
    for (size_t i = 0; i < ZMQ_PEERS_SLOTS; i++)
        for (const struct zmq_peer *other = peers->slots[i]; other; other = other->next) {
            bool active =
                other->parked.count || atomic_load(&other->core->in_flight) || other->last_ms > since;
            if (active && peer && other != peer)
                return true;
            if (active && !peer)
                peer = other;
        }
    return false;
}

static void push_parked(struct zmq_peers *peers, struct zmq_peer *peer)
{
    if (peer->in_round)
        return;
    peer->in_round = true;
    peer->next_parked = NULL;
    if (peers->parked)
        peers->last_parked->next_parked = peer;
    else
        peers->parked = peer;
    peers->last_parked = peer;
}

void zmq_peers_park(struct zmq_peers *peers, struct zmq_peer *peer, crew_message *request)
{
    peers->parked_count++;
    peers->parked_bytes += request->body.size;
    peer->parked_bytes += request->body.size;
    push_parked(peers, peer);
    crew_list_append(&peer->parked, request);
}

void zmq_peers_give(struct zmq_peers *peers, crew_list *messages, crew_room *room, size_t held_bytes)
{
    struct zmq_peer *round = peers->parked, *next;
    bool more = round != NULL;
    while (more) { /* rounds, until one gives nothing */
        more = false;
        round = peers->parked;
        peers->parked = peers->last_parked = NULL;
        for (; round; round = next) {
            next = round->next_parked;
            round->in_round = false;
            crew_message *m = round->parked.head;
            if (m && round->waiting_bytes <= held_bytes && crew_room_take(room, round->core, m->body.size)) {
                more = true;
                peers->parked_count--;
                peers->parked_bytes -= m->body.size;
                round->parked_bytes -= m->body.size;
                crew_list_append(messages, crew_list_take(&round->parked));
            }
            if (round->parked.count)
                push_parked(peers, round);
        }
        more = more && peers->parked;
    }
}

static bool is_idle(const struct zmq_peer *peer)
{
    return !peer->full && !peer->in_round && !peer->parked.count && atomic_load(&peer->core->holds) == 1;
}

static void end(struct zmq_peer *peer, const crew_transport_config *config)
{
    crew_list_free(&peer->parked);
    peer->core->mine = NULL;
    crew_transport_gone(config, peer->core);
    crew_peer_release(peer->core);
    free(peer);
}

void zmq_peers_tidy(struct zmq_peers *peers, const crew_transport_config *config)
{
    if (peers->count <= KEPT_MOST || peers->count < peers->tidy_at)
        return;
    for (size_t i = 0; i < ZMQ_PEERS_SLOTS; i++)
        for (struct zmq_peer **at = &peers->slots[i], *peer; (peer = *at);) {
            if (!is_idle(peer)) {
                at = &peer->next;
                continue;
            }
            *at = peer->next;
            peers->count--;
            end(peer, config);
        }
    peers->tidy_at = 2 * peers->count; /* so that looking at all of them pays */
}

void zmq_peers_fini(struct zmq_peers *peers, const crew_transport_config *config)
{
    for (size_t i = 0; i < ZMQ_PEERS_SLOTS; i++)
        for (struct zmq_peer *peer = peers->slots[i], *next; peer; peer = next) {
            next = peer->next;
            end(peer, config);
        }
    *peers = (struct zmq_peers){ .count = 0 };
}
