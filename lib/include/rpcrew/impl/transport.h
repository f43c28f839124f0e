/* The contract of a transport: messages in and out, nothing of RPC.
 *
 * A transport is two of these tables, one for workers and one for clients, listed in
 * lib/src/transport/registry.c. Whoever keeps the rules below has one; tests/conformance/transport.c has a
 * case for each of them.
 *
 * Threads. One thread at a time calls the operations of a state, which is .size bytes, all zero before the
 * first open: the endpoint's I/O thread, but for open, which has a thread of its own, so that deadlines are
 * kept while a host does not answer, and leaves config->messages alone. Signals are blocked in both. Nothing
 * but open and close may block, and those no longer than they are told: else heartbeats, deadlines and all
 * other calls of the endpoint wait (amqps alone may block in writing, up to connect_timeout_ms: its library
 * writes no other way).
 *
 * Life of a state:
 *   open  (wait | send | recv)*  [unlisten (…)*  pause (…)*]  close, and then perhaps open again.
 * What it keeps from one opening to the next is its own affair; close leaves nothing that needs freeing.
 *
 * 1. open is eager or lazy. An eager one returns when there is a peer (a kernel that has taken the connection
 * is enough), or says CREW_NO_SERVICE; a lazy one (lazy_open) returns before that, and ready says later when
 * there is. CREW_NO_SERVICE (refused, not found) and CREW_DISCONNECTED may be mended by trying again, which
 * the core does; other statuses may not. On failure nothing stays open, and *why says what was tried. The
 * socket that it waits for it shows (crew_opening_waits_for), so that it ends early when nobody wants it any
 * more: else its thread would outlive the client or server that was freed.
 * 2. Ownership. send takes messages off the front of the list; those that it leaves stay the caller's. recv
 * and close append messages, which are the caller's then. A message's mine is the transport's while it has
 * the message, and of a worker's request until it is settled. Giving or freeing a message releases its hold
 * of its peer.
 * 3. A client's request counts as WRITTEN from the first byte of it that will go without our doing: handed to
 * the kernel, or to a library that sends by itself. Until then it can be given back, and its call is told
 * 'not executed'. One of which a part is out is WRITTEN at the next recv, before its rest is: the rest is the
 * transport's to send. What close gives back it does not send: a request that is told as not executed and
 * arrives would run twice.
 * 4. Each request that send has taken is told exactly once, with its body still in it: recv gives it back as
 *    CREW_EVENT_WRITTEN, UNROUTABLE, REFUSED, TOO_LARGE or (one_way) CONFIRMED, which is as sure as the
 * transport can be that it was handed over; or close gives it back as unsent, if it was not begun. After
 * WRITTEN the others may follow, as messages of their own with nothing but the correlation, which is the
 * client's for one call. What is never told leaves its call to its deadline; events that close still has it
 * frees, since by then the calls have ended.
 * 5. recv alone reports a loss, after it has given all that had come by then; wait and send leave it to the
 * next recv. They may return other failures (CREW_NO_MEMORY, CREW_SYSTEM); after those, too, a client's recv
 * is called once more before close. So an answer that has arrived is never lost to the news that its
 * connection was.
 * 6. After another status than CREW_OK the opening is over: the core closes, and opens again after a while.
 *    CREW_DISCONNECTED is the one for a lost connection. config->lost takes words on why: they reach the log,
 * and the callers whose calls end by it. CREW_CLOSED,
 * a worker's alone: that was all, and it is not opened again.
 * 7. recv takes room for each message and its bytes (crew_room_take; for events too, if only so that a round
 * ends), and leaves the rest for the next time. It is called after each wait, also without room. wait may
 * write what waits to be written, and does not return for requests that there is no room for: else it would
 * spin.
 * 8. A worker's transport that can tell its peers apart makes a crew_peer for each and gives its requests a
 * hold of it (impl/peer.h); then what one sends or leaves unread is held against that one only. One that can
 * stop reading a peer does so when there is no room; one that cannot reads on and keeps a bounded number.
 * That a peer has gone is noticed also without room to read it, and told (crew_transport_gone). A client's
 * that has several behind one opening, and can tell them apart, does the same: WRITTEN has a hold of whom the
 * request went to, whose in_flight was added to, each reply one of whom it is from; that one has gone is told
 * when all that it had answered has been given.
 * 9. Answers that a peer does not read wait with the transport, counted in bytes against that peer alone, and
 * delay nobody else; their messages are settled, and no longer count as in flight. Past a time in which it
 * reads nothing, or a number of bytes (options of the transport's, with defaults), they are dropped: on a
 * stream with the connection, since half an answer is none. What becomes of each answer that send is given is
 * told once (crew_transport_answered): that it was written, in the sense of 3, or why it never will be; at
 * the close at the latest.
 * 10. A drain has three steps: unlisten (no new peers; those that the kernel has taken already are there),
 * pause (nothing more is taken from those that there are; what has come and was not given out goes back, or
 * is given out as long as the drain lasts, by requeue), close. A transport that cannot stop taking has no
 * pause: what comes is still given, to be refused in words. What is given back goes behind the news that no
 * more is taken: else it would come again.
 * 11. A body of more than config->limits.message_bytes is given to the core all the same, which answers it
 * with an error, or ends its call; one of more than config->hard_bytes may cost its sender the connection,
 * and nobody else anything. Besides: deadline_ms is crew_now_ms's clock, and how it travels, if it does, is
 * the transport's affair; the core drops what has expired. check is called when the url's options are known
 * to be the transport's and the common ones.
 * 12. wait's wake_fd is the same one from open to close.
 */
#ifndef RPCREW_IMPL_TRANSPORT_H
#define RPCREW_IMPL_TRANSPORT_H

#include <rpcrew/impl/message.h>
#include <rpcrew/url.h>

/* An opening under way, as open sees it. */
typedef struct crew_opening crew_opening;

/* For open: it is about to wait for this socket, which is shut down, by shutdown(2), when nobody wants the
 * opening any more; -1: for none. False: nobody wants it already, and it
 * should fail at once. opening may be NULL. */
CREW_API bool crew_opening_waits_for(crew_opening *opening, int fd);

/* What open is given. Borrowed until close; messages is for the I/O thread only. */
typedef struct crew_transport_config {
    crew_url *url;                          /* checked, options and all */
    size_t host;                            /* client: which of the url's hosts, if hosts_are_peers */
    bool brief;                             /* client: few calls are to be expected */
    const struct crew_callbacks *callbacks; /* worker: crew_server_listen_with's; NULL for all else */
    unsigned in_flight_max;      /* worker: requests that recv has given and that are not settled, at most;
                                    twice as many where peers are told apart */
    unsigned connect_timeout_ms; /* open's */
    crew_limits limits;          /* none is zero */
    size_t hard_bytes;           /* a message of more may cost its sender the connection */
    crew_error *lost;            /* where wait, send and recv may say why the connection is over */
    crew_opening *opening;       /* open's own; NULL: it is never ended early */
    struct crew_queue *queue; /* the endpoint's: what wakes wait; for a task that opens a further connection
                                 (core/task.h) */
    /* NULL: nobody asks; but for gone, a worker's. By crew_transport_answered, _gone and _shrink */
    void (*answered)(void *context, const crew_message *message, crew_status status);
    void (*gone)(void *context, crew_peer *peer);
    bool (*too_large)(void *context, crew_message *message);
    bool (*hurried)(void *context); /* by crew_transport_is_hurried */
    /* worker: by crew_transport_report */
    unsigned (*report)(void *context, const char *name, const char **content_type, crew_buffer *out);
    void *context;
    crew_message_pool *messages; /* where new messages come from and those that are finished go to */
} crew_transport_config;

/* Tells what became of a settled message's answer, if it has one: CREW_OK, it was written; CREW_DISCONNECTED,
 * its peer has gone; CREW_TIMEOUT, its peer does not read; CREW_LIMIT, too much waits for that already;
 * CREW_NO_MEMORY. The message is the caller's still; nothing of it needs to be there any more but its kind
 * and the core's own. */
static inline void crew_transport_answered(const crew_transport_config *config, const crew_message *message,
                                           crew_status status)
{
    if (config->answered && message->kind == CREW_SETTLE_REPLY)
        config->answered(config->context, message, status);
}

/* An answer turns out to be too large for whoever carries it: puts an error in its place, which is then to be
 * sent. False: it cannot. */
static inline bool crew_transport_shrink(const crew_transport_config *config, crew_message *message)
{
    return config->too_large && config->too_large(config->context, message);
}

/* For a close that lingers: whether it is to end now, since the drain is over, or the worker was told to stop
 * once more. */
static inline bool crew_transport_is_hurried(const crew_transport_config *config)
{
    return config->hurried && config->hurried(config->context);
}

/* Appends what the worker says of itself ("metrics", "healthz", "readyz"), for a transport with HTTP's GET,
 * and returns HTTP's status; 0: it says nothing. *content_type is for the process's life. */
static inline unsigned crew_transport_report(const crew_transport_config *config, const char *name,
                                             const char **content_type, crew_buffer *out)
{
    return config->report ? config->report(config->context, name, content_type, out) : 0;
}

/* Tells that a peer has gone, as soon as it is known: its calls that have not begun are not run any more, and
 * those that run are told. If the same one comes again, it is another peer. */
static inline void crew_transport_gone(const crew_transport_config *config, crew_peer *peer)
{
    if (!atomic_exchange(&peer->gone, true) && config->gone)
        config->gone(config->context, peer);
}

/* Tells that nothing more comes from a peer, who may still read its answers: whoever waits for one of its own
 * waits in vain. */
static inline void crew_transport_mute(const crew_transport_config *config, crew_peer *peer)
{
    if (!atomic_exchange(&peer->mute, true) && atomic_load(&peer->called) && config->gone)
        config->gone(config->context, peer);
}

/* What one recv may give: so that a round ends, however much there is. A message may overshoot the bytes;
 * with either at 0 nothing more is given, but for what a worker has in reserve. */
typedef struct crew_room {
    size_t messages;
    size_t bytes;   /* of bodies */
    size_t reserve; /* small requests beyond, of peers that have fewer in flight than each */
    size_t each;
} crew_room;

/* small: in bytes; in flight of a peer whose answer is waited for, since that may be behind its requests. */
enum { CREW_RESERVE_BYTES = 64 << 10, CREW_EXPECTED_MOST = 256 };

/* Whether small messages of the peer are taken without room, lest those who wait for its answer wait for
 * ever. */
static inline bool crew_peer_is_expected(const crew_peer *peer)
{
    return peer && atomic_load(&peer->expects) && atomic_load(&peer->in_flight) < CREW_EXPECTED_MOST;
}

static inline bool crew_room_is_left(const crew_room *room)
{
    return room->messages && room->bytes;
}

/* Takes room for a message; false: there is none. peer: whose in_flight it then counts for; NULL: a client's,
 * or a transport's that knows no peers. */
static inline bool crew_room_take(crew_room *room, crew_peer *peer, size_t bytes)
{
    if (crew_room_is_left(room)) {
        room->messages--;
        room->bytes -= bytes < room->bytes ? bytes : room->bytes;
    } else if (peer && room->reserve && bytes <= CREW_RESERVE_BYTES &&
               atomic_load(&peer->in_flight) < room->each) {
        room->reserve--;
    } else if (bytes > CREW_RESERVE_BYTES || !crew_peer_is_expected(peer)) {
        return false;
    }
    if (peer)
        atomic_fetch_add(&peer->in_flight, 1);
    return true;
}

struct crew_transport_ops {
    size_t size; /* of the state */

    /* Worker: when it takes CREW_SETTLE_REQUEUE, if it does. NULL: never. Any thread. */
    crew_requeue (*requeue)(const crew_url *url);
    bool both_call; /* client: its peer may call as well: such messages come as replies do, and their answers
                       are given to send as CREW_SETTLE_REPLY, to be written and not told of */
    bool carries_headers; /* client: what is in a message's headers goes with it */
    bool has_with;  /* client: a request may have another message before it, in reply, which goes with it */
    bool brokered;  /* client: its peer is a broker, whose coming back is waited for */
    bool lazy_open; /* client: open returns before any peer is there; what is never written had no service */

    /* Connects or binds; blocks up to connect_timeout_ms (rule 1). */
    crew_status (*open)(void *state, const crew_transport_config *config, crew_error *why);

    /* Returns when recv may have something to give, when wake_fd is readable (the caller reads it), when
     * something of the transport's own is due, or after timeout_ms (-1: none). It may return early, but not
     * again and again without cause. Without room, waiting requests are no cause. */
    crew_status (*wait)(void *state, int wake_fd, int timeout_ms, const crew_room *room);

    /* Worker: takes all settlements, of requests that this opening gave, sends the answers, and gives the
     * messages to config->messages when they are done with (9). A settlement whose peer has gone is dropped.
     * Where a peer takes_calls, also takes calls to it (CREW_MESSAGE_REQUEST, in body), which are written in
     * their order, and not told of. Client: takes requests, as many as can be written now; while it leaves
     * some, ready is false (3, 4). Writes all there is in as few system calls as can be. */
    crew_status (*send)(void *state, crew_list *messages);

    /* Worker: appends requests, with body, mine, content_type, deadline_ms, one_way, headers, origin and
     * key set, as far as there are any, and peer, if it knows several. Client: appends events and replies.
     * Also drives what the transport itself has to do: heartbeats, acknowledgements (5, 7). */
    crew_status (*recv)(void *state, crew_list *messages, crew_room *room);

    /* Worker: takes no new peers from now on; those that there are go on. NULL: it never takes any by itself,
     * as a broker's consumer, or cannot stop that without losing the others. */
    void (*unlisten)(void *state);

    /* Worker: takes no new requests from now on. Those that it holds and has not handed out go back, if that
     * is CREW_REQUEUE_FIRST, or are given by recv, as are those that were on their way; pending until then.
     * Never undone. NULL if it cannot: recv gives all that comes, which is answered 'overloaded, not
     * executed'. */
    void (*pause)(void *state);

    /* Flushes what send was given, for linger_ms at most, or until it is hurried, which is to be noticed
     * within a second, then closes. Client: appends to unsent the requests that were never written, in order;
     * worker: unsent is NULL. */
    void (*close)(void *state, unsigned linger_ms, crew_list *unsent);

    /* Worker: whether answers still wait for their peers, or requests are still to be given after pause, so
     * that a drain waits for them. NULL: never. */
    bool (*pending)(const void *state);

    /* Client: whether there is a peer that takes requests now; until then, send is not called. NULL: always.
     */
    bool (*ready)(const void *state);

    /* Client, with has_with: whether the worker has shown itself to be one of ours. NULL: it never does. */
    bool (*is_ours)(const void *state);

    /* Client: why calls may go unanswered, in words that live until the next operation, or NULL: nothing is
     * known. Asks the peer anew, too, so that the next time it is known: called some time before the deadline
     * of a call that nobody has answered, and at it. NULL: nothing is ever known. */
    const char *(*silence)(void *state);
};

typedef struct crew_transport {
    const char *scheme;
    const crew_url_option_spec *options; /* beyond the common ones; NULL: none */
    bool hosts_are_peers;                /* each host of a client's url is an endpoint of its own */
    /* Client: whether messages of a content type can be carried there. NULL: all, as they are bytes to it. */
    bool (*carries)(const crew_url *url, const char *content_type);
    bool carries_types; /* content types travel; else a message's first bytes tell its protocol */
    bool hidden;        /* its URLs are made by the library: not listed */
    bool redelivers;    /* requests that a worker leaves unsettled are given to the next one */
    /* Whether a url's parts are what this transport wants; CREW_BAD_ARGUMENT with *why, CREW_UNSUPPORTED for
     * an end that it does not have (its table is NULL). Any thread. */
    crew_status (*check)(const crew_url *url, bool server, crew_error *why);
    const struct crew_transport_ops *server, *client;
} crew_transport;

/* NULL if no transport has this scheme. Any thread. */
CREW_API const crew_transport *crew_transport_find(const char *scheme);
/* The i-th, NULL past the end. */
CREW_API const crew_transport *crew_transport_at(size_t index);

#endif
