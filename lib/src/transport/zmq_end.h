/* What the two ends have in common: the context, the socket, its address, and sending. */
#ifndef TRANSPORT_ZMQ_END_H
#define TRANSPORT_ZMQ_END_H

#include <rpcrew/impl/transport.h>

#include <sys/socket.h>
#include <sys/types.h>
#include <zmq.h>

enum {
    ZMQ_END_ADDRESS_MOST = 512,
    ZMQ_END_ENVELOPE_MOST = 32,  /* frames; proxies add one each */
    ZMQ_END_INPROC_TICK_MS = 20, /* libzmq tells nothing of inproc peers */
    ZMQ_END_SOURCE = 2,          /* ZMQ_SRCFD, which headers call deprecated, and nothing else tells */
};

struct zmq_end {
    const crew_transport_config *config;
    void *socket;
    char address[ZMQ_END_ADDRESS_MOST]; /* as libzmq has it; once bound, the real one */
    bool inproc, connects;
    ino_t file;      /* of the ipc socket that this end has bound; 0: none */
    uint64_t number; /* of the binding of an inproc name that this end made or is connected to */
};

/* libzmq's address of one of a URL's hosts. CREW_BAD_ARGUMENT. */
crew_status zmq_end_address(const crew_url *url, size_t index, char *address, size_t room, crew_error *why);

/* Makes the socket, neither bound nor connected; mode is what it does unless the URL says otherwise. */
crew_status zmq_end_open(struct zmq_end *end, const crew_transport_config *config, int type, const char *mode,
                         crew_error *why);
crew_status zmq_end_bind(struct zmq_end *end, crew_error *why);
/* An inproc end connects when there is something to connect to; the others leave that to libzmq. */
crew_status zmq_end_connect(struct zmq_end *end, crew_error *why);
void zmq_end_close(struct zmq_end *end, unsigned linger_ms);

/* Finds what this end is to connect to, as far as that is known without connecting: a path that may be
 * written to, a name's address, of several the one that answers. CREW_NO_SERVICE in words. For open, before
 * the socket is connected. */
crew_status zmq_end_reach(struct zmq_end *end, crew_error *why);

/* What notices a peer that has gone without a word: ZMTP's heartbeats, unless the URL says heartbeat=0, or
 * TCP's keepalive. */
void zmq_end_beat(const struct zmq_end *end, bool heartbeats);

/* Of an ipc address, NULL for others. It begins with '@' where it is an abstract name. */
const char *zmq_end_path(const struct zmq_end *end);

/* The end is at this one of its name's addresses. */
void zmq_end_use_address(struct zmq_end *end, const struct sockaddr *address, socklen_t size);

/* Whether the binding that an inproc end is connected to has gone. */
bool zmq_end_lost(const struct zmq_end *end);
void zmq_end_set(void *socket, int option, int value);
/* Sets *why by errno. */
crew_status zmq_end_failed(const struct zmq_end *end, const char *what, crew_error *why);
/* A socket of the same context. */
void *zmq_end_socket(int type);
/* What libzmq tells of the end's socket, as a socket to read it from; NULL with errno. That is closed when
 * the monitor has stopped. */
void *zmq_end_monitor(const struct zmq_end *end, int events);

crew_status zmq_end_poll(zmq_pollitem_t *items, int count, int timeout_ms);
/* Sends all frames as one message, or none: 0, or why not (EAGAIN, EHOSTUNREACH, ENOMEM). */
int zmq_end_send(void *socket, const crew_string *frames, size_t count);

/* The same in two steps, for what may have to be offered more than once. All memory is there before the first
 * goes, since a message that ends in the middle would go on with the next one. Parts that were not sent are
 * to be ended. */
bool zmq_end_make(zmq_msg_t *parts, const crew_string *frames, size_t count);
int zmq_end_send_parts(void *socket, zmq_msg_t *parts, size_t count);
void zmq_end_fini(zmq_msg_t *parts, size_t count);

extern const struct crew_transport_ops crew_zmq_worker_ops, crew_zmq_caller_ops;

#endif
