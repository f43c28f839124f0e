/* Connections that carry messages in a stream of bytes, and the set of those that an endpoint has: what its
 * two ends (stream_worker.c, stream_caller.c) have in common. Only the endpoint's I/O thread touches them.
 *
 * epoll tells each change once (EPOLLET), and what it told is kept in the stream, in a round of those that
 * may give something: so a thousand idle connections cost a round nothing, and one that is held back, since
 * there is no room for what it sends, wakes nobody. An idle connection holds no buffer. */
#ifndef TRANSPORT_STREAM_H
#define TRANSPORT_STREAM_H

#include "transport/stream_framing.h"
#include "transport/tls.h"

#include <rpcrew/impl/transport.h>

struct stream;
struct stream_set;

/* What is spoken over a connection: how messages are found in its bytes, and put there. */
struct stream_session {
    /* Worker: whether what comes next may ask nothing of the core, so that a little of it is read also when
     * there is no room. NULL: it never does. */
    bool (*looks_ahead)(const struct stream *stream);
    /* Looks at what was read and not taken, and takes what is no message (stream_skip). Sets stream->partial
     * if a message has begun and not ended. */
    enum stream_found (*find)(struct stream *stream, struct stream_span *span);
    /* Takes what was found into a message: body and content_type, and what else came with it. */
    crew_status (*take)(struct stream *stream, const struct stream_span *span, crew_message *message);
    /* Appends a message to the output; CREW_NO_MEMORY: nothing is. */
    crew_status (*put)(struct stream *stream, const char *content_type, crew_string body);
    /* Worker: takes a settled message, whose answer is put when its turn is. What has been put, or never will
     * be, is appended to done, with number: where, of queued_bytes, its answer ends, if it has one.
     * CREW_NO_MEMORY: the message is the caller's still, and what the connection says next is not to be
     * trusted. */
    crew_status (*answer)(struct stream *stream, crew_message *message, crew_list *done);
    /* Worker: says that it is about to close the connection. NULL: there is no word for that. */
    void (*leave)(struct stream *stream);
    /* Worker: nothing has been said for idle_ms; whether the connection stays all the same. NULL: it does
     * not. */
    bool (*stays)(struct stream *stream);
    /* Worker: nobody reads any more: what it keeps of answers goes, and none is given to it. NULL: it keeps
     * none. */
    void (*drop)(struct stream *stream);
    /* Frees its state; NULL: it has none. */
    void (*end)(struct stream *stream);
};

/* The one of stream_framing.h. */
extern const struct stream_session stream_plain;

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
    struct stream_set *set;
    struct stream_source input_source, output_source;
    int in, out;     /* descriptors; the same one for a socket */
    struct tls *tls; /* over it; NULL: none */
    bool in_is_socket, out_is_socket;
    bool readable, writable;
    bool is_local; /* a unix socket, which tells of room for more whenever its reader has taken something: */
    bool watches_room; /* so it is asked only while something waits for that */
    bool hangs_up;     /* its end has been told of, and may be behind what can be read */
    bool ended;        /* nothing more will be read, */
    bool refused;      /* since we do not want it */
    bool gone;         /* and nothing that is written would be */
    bool unconfirmed;  /* something was written, and may not have arrived; of TCP */
    bool in_round;     /* of the set's */
    int error;         /* errno of what ended it; 0: the other end did */
    const struct stream_session *session;
    void *state;                   /* the session's */
    struct stream_framing framing; /* stream_plain's */
    enum stream_kind writes;       /* too: that of what we write; UNKNOWN: by what is read, then by type */
    bool late;                     /* the message has taken too long to come */
    bool partial;                  /* a message has begun and not ended */
    bool waits;                    /* for answers, before more is found: they are owed in order */
    const char *why;               /* of rubbish: in words */
    size_t kept;                   /* bytes that the session has of what was read, */
    size_t kept_answers;           /* and of answers whose turn has not come */
    crew_buffer input;             /* what was read and not taken, from taken on */
    size_t taken;
    enum stream_found found; /* what was found there, and not taken; MORE: nothing */
    struct stream_span span; /* where it is */
    int64_t begun_at_ms;     /* when the message that has not ended began; 0: there is none */
    int64_t used_at_ms;      /* when something was last read, or all was written; where idle_ms is set */
    crew_buffer output;      /* what is to be written, from written on */
    size_t written;
    size_t output_before;                 /* stream_output */
    uint64_t queued_bytes, written_bytes; /* ever */
    int64_t unheard_since_ms; /* when that was first found to be sent again and again; 0: it is not */
    int64_t stuck_at_ms;      /* since when nothing could be written; 0: nothing waits */
    crew_list messages; /* that are told of when they are written; number: where, of queued_bytes, they begin,
                           or, of answers, end */
    /* the worker's */
    crew_peer *peer;
    uint64_t number; /* that no other has had */
    int64_t close_by_ms;
    bool named;   /* it is, if it can be */
    bool closing; /* shut down for writing: what still comes is thrown away, so that it resets nothing */
};

enum { STREAM_READ_BYTES = 64 << 10, STREAM_TICK_MS = 250 };

/* All zero, but for epoll, which is -1 when it is not open. */
struct stream_set {
    const crew_transport_config *config;
    const struct stream_session *session; /* of new streams */
    void *shared;                         /* what that one's states have in common; the opener's */
    struct tls_context *tls;              /* of those that are accepted, the set's; NULL: none */
    int epoll, wake_fd;
    struct stream *streams;
    size_t count;
    struct stream *round, **round_end;
    size_t round_count;
    char *room;                       /* STREAM_READ_BYTES that are read into */
    crew_buffer spare;                /* of an output that was written */
    size_t input_bytes, output_bytes; /* of all streams' buffers, and what their sessions keep */
    unsigned idle_ms;                 /* how long nothing may be said over a connection; 0: for ever */
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

/* A message, or the greeting before the first, has begun. */
void stream_begin(struct stream *stream);
/* Reads once, most bytes at most, if there may be something; false: there is nothing until epoll tells of it,
 * or it has ended. */
bool stream_read(struct stream *stream, size_t most);

/* The next message of what was read, if there is a whole one; the same one until it is taken. */
enum stream_found stream_peek(struct stream *stream, struct stream_span *span);
/* Takes what was found there into a message; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status stream_take(struct stream *stream, const struct stream_span *span,
                                       crew_message *message);
/* Nothing more of it is read, and what was is dropped: it ends when what it is owed has been written. */
void stream_refuse(struct stream *stream);
/* Whether anything was read and not taken. */
static inline bool stream_has_input(const struct stream *stream)
{
    return stream->input.size > stream->taken;
}

/* Sessions: what was read and not taken; so many of its bytes are taken; keeps so many more bytes of what was
 * read, or fewer; the same of answers. */
static inline crew_string stream_input(const struct stream *stream)
{
    crew_string none = { "", 0 };
    crew_string some = { stream->input.data, stream->input.size - stream->taken };
    if (!some.size)
        return none;
    some.data += stream->taken;
    return some;
}
void stream_skip(struct stream *stream, size_t bytes);
void stream_keep(struct stream *stream, size_t bytes);
void stream_keep_answers(struct stream *stream, size_t bytes);
/* The output, for a session to append to; ends with stream_queued, which says whether that went well. */
crew_buffer *stream_output(struct stream *stream);
CREW_NODISCARD crew_status stream_queued(struct stream *stream);

/* Appends a message to what is to be written; CREW_NO_MEMORY: nothing is. */
CREW_NODISCARD crew_status stream_queue(struct stream *stream, const char *content_type, crew_string body);
/* Writes what can be written. */
void stream_flush(struct stream *stream);
static inline size_t stream_unwritten(const struct stream *stream)
{
    return stream->output.size - stream->written;
}
/* What it is owed: that, and what the session keeps, and TLS. */
static inline size_t stream_owed(const struct stream *stream)
{
    return stream_unwritten(stream) + stream->kept_answers + (stream->tls && tls_sealed(stream->tls));
}

/* It is closing: no more is written, and the other end reads its end. */
void stream_shut(struct stream *stream);
/* Throws away what comes: unread, it would make closing a reset, which takes what is on its way with it. */
void stream_discard(const struct stream *stream);
/* For each tick: whether the other end's kernel has confirmed nothing at all, for so long, of what it was
 * sent and was sent again. One that only does not read confirms that it is there. */
bool stream_is_unheard(struct stream *stream, unsigned most_ms);
/* Bytes that the other end's kernel has not confirmed; 0 if that is not known. */
int stream_unconfirmed(const struct stream *stream);

/* Takes back what is queued beyond so many bytes ever. */
void stream_unqueue(struct stream *stream, uint64_t queued_bytes);

/* What ended it, in words: borrowed until the next call. */
const char *stream_words(const struct stream *stream, char words[200]);

#endif
