/* Connections that carry messages in a stream of bytes, and the set of those that an endpoint has: what its
 * two ends (stream_worker.c, stream_caller.c) have in common. Only the endpoint's I/O thread touches them.
 *
 * epoll tells each change once (EPOLLET), and what it told is kept in the stream, in a round of those that
 * may give something: so a thousand idle connections cost a round nothing, and one that is held back, since
 * there is no room for what it sends, wakes nobody. An idle connection holds no buffer. */
#ifndef TRANSPORT_STREAM_H
#define TRANSPORT_STREAM_H

#include "transport/stream_framing.h"

#include <rpcrew/impl/transport.h>

struct stream_set;

/* What an event of epoll's is of: a stream's descriptor, or, without a stream, another one that is watched.
 */
struct stream_source {
    struct stream *stream;
    bool is_output; /* the one that is only written to */
    bool ready;     /* another one's: it has been told of */
};

struct stream {
    struct stream *next, **at; /* of the set's */
    struct stream *next_round;
    bool in_round;
    struct stream_set *set;
    struct stream_source input_source, output_source;
    int in, out; /* descriptors; the same one for a socket */
    bool in_is_socket, out_is_socket;
    bool readable, writable;
    bool hangs_up; /* its end has been told of, and may be behind what can be read */
    bool ended;    /* nothing more will be read, */
    bool refused;  /* since we do not want it */
    bool gone;     /* and nothing that is written would be */
    int error;     /* errno of what ended it; 0: the other end did */
    struct stream_framing framing;
    enum stream_kind writes; /* the framing of what we write; UNKNOWN: by what is read, then by type */
    crew_buffer input;       /* what was read and not taken, from taken on */
    size_t taken;
    enum stream_found found; /* what was found there, and not taken; MORE: nothing */
    struct stream_span span; /* where it is */
    int64_t begun_at_ms;     /* when the message that has not ended began; 0: there is none */
    crew_buffer output;      /* what is to be written, from written on */
    size_t written;
    uint64_t queued_bytes, written_bytes; /* ever */
    int64_t stuck_at_ms;                  /* since when nothing could be written; 0: nothing waits */
    crew_list messages; /* that are told of when they are written; number: where, of queued_bytes, they begin,
                           or, of answers, end */
    /* the worker's */
    crew_peer *peer;
    uint64_t number; /* that no other has had */
    bool closing;    /* shut down for writing: what still comes is thrown away, so that it resets nothing */
    int64_t close_by_ms;
};

enum { STREAM_READ_BYTES = 64 << 10, STREAM_TICK_MS = 250 };

/* All zero, but for epoll, which is -1 when it is not open. */
struct stream_set {
    const crew_transport_config *config;
    int epoll, wake_fd;
    struct stream *streams;
    size_t count;
    struct stream *round, **round_end;
    size_t round_count;
    char *room;                       /* STREAM_READ_BYTES that are read into */
    crew_buffer spare;                /* of an output that was written */
    size_t input_bytes, output_bytes; /* of all streams' buffers */
    int64_t tick_at_ms;               /* when all are looked at for what takes too long; 0: none wants that */
    uint64_t last_number;
};

CREW_NODISCARD crew_status stream_set_open(struct stream_set *set, const crew_transport_config *config,
                                           crew_error *why);
void stream_set_close(struct stream_set *set);

/* Watches another descriptor, level-triggered. */
CREW_NODISCARD crew_status stream_set_watch(struct stream_set *set, int fd, struct stream_source *source,
                                            crew_error *why);
void stream_set_unwatch(struct stream_set *set, int fd);

/* Waits as a transport's wait does, at most until the next tick. */
crew_status stream_set_wait(struct stream_set *set, int wake_fd, int timeout_ms);

/* Whether it is time to look at all streams for what takes too long. */
bool stream_set_ticks(struct stream_set *set);

/* Puts it at the end of the round. */
void stream_wants_a_turn(struct stream *stream);
/* Takes the first out of the round; NULL: it is empty. */
struct stream *stream_set_turn(struct stream_set *set);

/* A stream over connected descriptors, which do not block, or are files: they are the stream's from
 * then on, also on failure (NULL, with *why). */
struct stream *stream_new(struct stream_set *set, int in, int out, crew_error *why);
/* Closes and frees it; its messages must have been taken. */
void stream_free(struct stream *stream);

/* Reads once, if there may be something; false: there is nothing until epoll tells of it, or it has ended. */
bool stream_read(struct stream *stream);

/* The next message of what was read, if there is a whole one; the same one until it is taken. */
enum stream_found stream_peek(struct stream *stream, struct stream_span *span);
/* Takes what was found there, its body copied to *body; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status stream_take(struct stream *stream, const struct stream_span *span,
                                       crew_buffer *body);
/* Whether anything was read and not taken. */
static inline bool stream_has_input(const struct stream *stream)
{
    return stream->input.size > stream->taken;
}

/* Appends a message to what is to be written; CREW_NO_MEMORY: nothing is. */
CREW_NODISCARD crew_status stream_queue(struct stream *stream, const char *content_type, crew_string body);
/* Writes what can be written. */
void stream_flush(struct stream *stream);
static inline size_t stream_unwritten(const struct stream *stream)
{
    return stream->output.size - stream->written;
}

/* It is closing: no more is written, and the other end reads its end. */
void stream_shut(struct stream *stream);
/* Bytes that the other end's kernel has not confirmed; 0 if that is not known. */
int stream_unconfirmed(const struct stream *stream);

/* Takes back what is queued beyond so many bytes ever. */
void stream_unqueue(struct stream *stream, uint64_t queued_bytes);

/* What ended it, in words: borrowed until the next call. */
const char *stream_words(const struct stream *stream, char words[200]);

#endif
