/* The workers of a caller that is bound and knows them (peers=known): its socket is a ROUTER, and a worker's
 * greeting, ZMQ_PROBE_ROUTER's empty message, says that it is there. */
#ifndef TRANSPORT_ZMQ_WORKERS_H
#define TRANSPORT_ZMQ_WORKERS_H

#include "transport/zmq_end.h"

enum { ZMQ_WORKER_ID_MOST = 255 };

struct zmq_worker {
    struct zmq_worker *next;
    crew_peer *peer; /* whose in_flight counts the calls that were written to it */
    int fd;          /* its connection, by which its end is told; -1: it has ended */
    bool full;       /* its queue is, as far as is known */
    size_t id_size;
    char id[ZMQ_WORKER_ID_MOST];
};

/* All zero is empty. */
struct zmq_workers {
    struct zmq_worker *first;
    bool some_ended;
};

/* NULL: it has not greeted. */
struct zmq_worker *zmq_workers_find(const struct zmq_workers *workers, crew_string id);
/* It has greeted, over that connection; false without memory, or if libzmq does not tell which. */
bool zmq_workers_add(struct zmq_workers *workers, crew_string id, int fd);
/* A connection has ended: a worker's, perhaps, of which answers may still be to be read. */
void zmq_workers_end(struct zmq_workers *workers, int fd);
/* There is nothing more to read: those that have ended are told of, and gone. */
void zmq_workers_tidy(struct zmq_workers *workers, const crew_transport_config *config);

/* The one with the fewest calls that has room; NULL: there is none. */
struct zmq_worker *zmq_workers_choose(const struct zmq_workers *workers);
/* Any that has not ended. */
bool zmq_workers_some(const struct zmq_workers *workers);
/* They are offered something again. */
void zmq_workers_retry(struct zmq_workers *workers);

void zmq_workers_fini(struct zmq_workers *workers);

#endif
