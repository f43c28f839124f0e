/* A caller's end of streams: one connection. What differs between transports is how it is made, which their
 * open says. */
#ifndef TRANSPORT_STREAM_CALLER_H
#define TRANSPORT_STREAM_CALLER_H

#include "transport/stream.h"

struct stream_caller {
    struct stream_set set;
    struct stream *stream;
    bool is_ours; /* the worker has said that it is rpcrew's */
    unsigned keepalive_ms;
    crew_list events;      /* requests that have been written, for recv to tell of */
    crew_list unconfirmed; /* news of one-way ones that have begun, for when they are out: number */
};

/* Begins with the connection of stream_new, and TLS on it (NULL: none), which is the caller's from then on.
 * On failure nothing stays open. */
CREW_NODISCARD crew_status stream_caller_open(struct stream_caller *caller,
                                              const crew_transport_config *config, int in, int out,
                                              struct tls *tls, crew_error *why);

crew_status stream_caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room);
crew_status stream_caller_send(void *state, crew_list *messages);
crew_status stream_caller_recv(void *state, crew_list *messages, crew_room *room);
bool stream_caller_ready(const void *state);
bool stream_caller_is_ours(const void *state);
void stream_caller_close(void *state, unsigned linger_ms, crew_list *unsent);

#define STREAM_CALLER_OPTIONS     \
    { "peer", "rpcrew|any", 0, 0, \
      "caller: rpcrew: the worker is one of ours, and is told deadlines and headers (rpc.with)" }

#define STREAM_CALLER_OPS(opener)           \
    { .size = sizeof(struct stream_caller), \
      .both_call = true,                    \
      .has_with = true,                     \
      .open = (opener),                     \
      .wait = stream_caller_wait,           \
      .send = stream_caller_send,           \
      .recv = stream_caller_recv,           \
      .ready = stream_caller_ready,         \
      .is_ours = stream_caller_is_ours,     \
      .close = stream_caller_close }

#endif
