/* The peers of a ROUTER, by their routing ids: what is theirs and cannot go on yet waits with them. */
#ifndef TRANSPORT_ZMQ_PEERS_H
#define TRANSPORT_ZMQ_PEERS_H

#include <rpcrew/impl/transport.h>

enum { ZMQ_PEERS_SLOTS = 256, ZMQ_PEER_ID_MOST = 255 };

struct zmq_peer {
    struct zmq_peer *next; /* in its slot */
    crew_peer *core;
    crew_list parked;  /* requests that have come and there is no room for */
    crew_list waiting; /* answers, in order, that it has not read those before of */
    size_t parked_bytes, waiting_bytes;
    int64_t last_ms;                          /* when its last request came, */
    uint64_t connection;                      /* and over which; 0: not known */
    int64_t since_ms;                         /* that it has read nothing, while answers wait */
    bool full;                                /* answers wait, or have been lost lately */
    struct zmq_peer *next_parked, *next_full; /* in the rounds of those that have some */
    bool in_round;                            /* of parked ones */
    size_t id_size;
    char id[ZMQ_PEER_ID_MOST];
};

/* All zero is empty. */
struct zmq_peers {
    struct zmq_peer *slots[ZMQ_PEERS_SLOTS];
    size_t count, tidy_at;
    struct zmq_peer *parked, *last_parked, *full;
    size_t parked_count, parked_bytes, waiting_bytes;
};

/* The peer with an id, made if need be; NULL without memory. */
struct zmq_peer *zmq_peers_find(struct zmq_peers *peers, crew_string id);

/* It has gone: what was parked of it is dropped, and whoever comes with its id is another one. */
void zmq_peers_gone(struct zmq_peers *peers, struct zmq_peer *peer, const crew_transport_config *config);

/* Whether peers other than this one (NULL: than one of them) have requests taken or parked; or have had some
 * of late, if that is asked. */
bool zmq_peers_others_are_active(const struct zmq_peers *peers, const struct zmq_peer *peer, bool lately);

/* Behind the others of that peer. */
void zmq_peers_park(struct zmq_peers *peers, struct zmq_peer *peer, crew_message *request);
/* Gives out what is parked, a request of each peer in turn, as far as there is room; none of peers that have
 * more than held_bytes of answers to read. */
void zmq_peers_give(struct zmq_peers *peers, crew_list *messages, crew_room *room, size_t held_bytes);

/* Forgets peers that have nothing here and nothing in flight, when there are many. */
void zmq_peers_tidy(struct zmq_peers *peers, const crew_transport_config *config);

/* Frees it all; those that messages still hold know that they have gone. */
void zmq_peers_fini(struct zmq_peers *peers, const crew_transport_config *config);

#endif
