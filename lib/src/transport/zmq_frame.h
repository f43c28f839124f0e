/* What rpcrew's own ends say to each other beside the body: a frame of its own before it, ZMQ_FRAME_MARK and
 * a MessagePack map, which a worker gives back with the answer as it does all of the envelope. Members that
 * are not known are passed over. Only peers that have shown themselves to be rpcrew's are sent one: a
 * worker's routing id, which callers are told with its answers, begins with ZMQ_FRAME_ID. */
#ifndef TRANSPORT_ZMQ_FRAME_H
#define TRANSPORT_ZMQ_FRAME_H

#include <rpcrew/impl/message.h>

#define ZMQ_FRAME_MARK "RPCREW2"
#define ZMQ_FRAME_ID   "rpcrew2."

enum { ZMQ_FRAME_MOST = 64, ZMQ_FRAME_ID_MOST = 32 };

struct zmq_frame {
    int64_t left_ms;          /* "left": that the call has, when it is sent; -1: not said */
    int64_t deadline_unix_ms; /* "deadline"; 0: not said */
};

/* Returns the size. */
size_t zmq_frame_write(const struct zmq_frame *frame, char bytes[ZMQ_FRAME_MOST]);

/* Whether it is one. */
bool zmq_frame_read(crew_string bytes, crew_arena *arena, struct zmq_frame *frame);

/* A routing id for a worker, new each time. Returns the size. */
size_t zmq_frame_new_id(char id[ZMQ_FRAME_ID_MOST]);

#endif
