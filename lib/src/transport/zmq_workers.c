#include "transport/zmq_workers.h"

#include <stdlib.h>

struct zmq_worker *zmq_workers_find(const struct zmq_workers *workers, crew_string id)
{
    struct zmq_worker *worker = workers->first;
    while (worker && (worker->id_size != id.size || memcmp(worker->id, id.data, id.size) != 0))
        worker = worker->next;
    return worker;
}

bool zmq_workers_add(struct zmq_workers *workers, crew_string id, int fd)
{
    struct zmq_worker *worker = fd >= 0 && id.size <= ZMQ_WORKER_ID_MOST ? calloc(1, sizeof *worker) : NULL;
    crew_peer *peer = worker ? crew_peer_new(worker) : NULL;
    if (!peer) {
        free(worker);
        return false;
    }
    memcpy(worker->id, id.data, id.size);
    worker->id_size = id.size;
    worker->peer = peer;
    worker->fd = fd;
    worker->next = workers->first;
    workers->first = worker;
    return true;
}

void zmq_workers_end(struct zmq_workers *workers, int fd)
{
    for (struct zmq_worker *worker = workers->first; worker; worker = worker->next)
        if (worker->fd == fd) {
            worker->fd = -1;
            workers->some_ended = true;
        }
}

static void end(struct zmq_worker *worker)
{
    worker->peer->mine = NULL;
    crew_peer_release(worker->peer);
    free(worker);
}

void zmq_workers_tidy(struct zmq_workers *workers, const crew_transport_config *config)
{
    if (!workers->some_ended)
        return;
    workers->some_ended = false;
    for (struct zmq_worker **at = &workers->first, *worker; (worker = *at);) {
        if (worker->fd >= 0) {
            at = &worker->next;
            continue;
        }
        *at = worker->next;
        crew_transport_gone(config, worker->peer);
        end(worker);
    }
}

struct zmq_worker *zmq_workers_choose(const struct zmq_workers *workers)
{
    struct zmq_worker *best = NULL;
    for (struct zmq_worker *worker = workers->first; worker; worker = worker->next)
        if (worker->fd >= 0 && !worker->full &&
            (!best || atomic_load(&worker->peer->in_flight) < atomic_load(&best->peer->in_flight)))
            best = worker;
    return best;
}

bool zmq_workers_some(const struct zmq_workers *workers)
{
    const struct zmq_worker *worker = workers->first;
    while (worker && worker->fd < 0)
        worker = worker->next;
    return worker != NULL;
}

void zmq_workers_retry(struct zmq_workers *workers)
{
    for (struct zmq_worker *worker = workers->first; worker; worker = worker->next)
        worker->full = false;
}

void zmq_workers_fini(struct zmq_workers *workers)
{
    for (struct zmq_worker *worker = workers->first, *next; worker; worker = next) {
        next = worker->next;
        end(worker);
    }
    *workers = (struct zmq_workers){ .first = NULL };
}
