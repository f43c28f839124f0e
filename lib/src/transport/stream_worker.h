/* A worker's end of streams: each connection is a peer. What differs between transports is where connections
 * come from, which their open says. */
#ifndef TRANSPORT_STREAM_WORKER_H
#define TRANSPORT_STREAM_WORKER_H

#include "transport/path.h"
#include "transport/stream.h"

enum { STREAM_LISTENERS_MOST = 16 };

struct stream_worker {
    struct stream_set set;
    int listeners[STREAM_LISTENERS_MOST];
    size_t listener_count;
    struct stream_source waiting; /* at the listeners, to be accepted */
    bool held;                    /* nobody is accepted: there are no descriptors, or too many connections */
    bool told_held;
    int64_t accept_at_ms; /* when that is tried again */
    char path[PATH_MOST]; /* of a unix socket that was bound */
    ino_t inode;
    unsigned default_port;
    bool sole; /* it has one connection, whose end is its own */
    unsigned send_timeout_ms, receive_timeout_ms, keepalive_ms;
    size_t connections, send_bytes;
    crew_list fresh; /* answers that were queued and not looked after yet */
};

/* Begins with no connections. On failure nothing stays open. */
CREW_NODISCARD crew_status stream_worker_open(struct stream_worker *worker,
                                              const crew_transport_config *config, crew_error *why);
/* Takes a listening socket, which does not block; it is the worker's from then on, also on failure. */
CREW_NODISCARD crew_status stream_worker_listen(struct stream_worker *worker, int fd, crew_error *why);
/* Takes a connection, as stream_new does. */
CREW_NODISCARD crew_status stream_worker_adopt(struct stream_worker *worker, int in, int out,
                                               crew_error *why);

crew_status stream_worker_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room);
crew_status stream_worker_send(void *state, crew_list *messages);
crew_status stream_worker_recv(void *state, crew_list *messages, crew_room *room);
void stream_worker_unlisten(void *state);
bool stream_worker_pending(const void *state);
void stream_worker_close(void *state, unsigned linger_ms, crew_list *unsent);

/* Of a state that begins with a struct stream_worker. */
#define STREAM_WORKER_OPS(state, opener, closer) \
    { .size = sizeof(state),                     \
      .open = (opener),                          \
      .wait = stream_worker_wait,                \
      .send = stream_worker_send,                \
      .recv = stream_worker_recv,                \
      .unlisten = stream_worker_unlisten,        \
      .pending = stream_worker_pending,          \
      .close = (closer) }

/* Options of every worker of streams. */
#define STREAM_WORKER_OPTIONS                                                                \
    { "connections", NULL, 1, 1 << 20, "worker: at the same time" },                         \
        { "send_timeout_ms", NULL, 1, 3600000,                                               \
          "worker: how long answers wait for a peer that does not read" },                   \
        { "send_bytes", NULL, 1, 1 << 30, "worker: bytes of answers that wait for a peer" }, \
        { "receive_timeout_ms", NULL, 1, 3600000, "worker: how long a message may take to come" }

#endif
