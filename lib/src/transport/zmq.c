/* zmq+tcp://host:port, zmq+ipc:///path, zmq+inproc://name: ZeroMQ, as the guide has it.
 *
 * A worker is a ROUTER: what it receives is [identity, …envelope…, body], and the answer goes back behind the
 * same frames. A caller is a DEALER that sends REQ's envelope, ["", body]; answers are matched by the
 * protocol's id. With headers=yes a caller puts a frame with its deadline before the body, which workers echo
 * as envelope.
 *
 * ROUTER is told to report peers that are gone or full instead of dropping in silence: answers for a full
 * peer wait, each still counted against the room for requests, and are lost only after send_timeout_ms. */
#include "transport/transports.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    ADDRESS_MOST = 512,
    ENVELOPE_MOST = 32,    /* frames; proxies add one each */
    ENVELOPE_BYTES = 4096, /* of all of them */
    RETRY_MS = 5,          /* for answers to full peers */
    FULL_PEERS_MOST = 64,
    SEND_TIMEOUT_MS = 1000,
    REBIND_MS = 500, /* a closed socket's address is free a little later */
    INPROC_TICK_MS = 20,
    HEARTBEAT_MS = 5000,
    HEARTBEAT_LOST_MS = 15000,
    RECONNECT_MS = 50,
    RECONNECT_MOST_MS = 2000,
};

static const int64_t DEADLINE_MOST_MS = (int64_t)365 * 24 * 3600 * 1000;

static const char header_mark[] = "RPCREW1 ";

/* ---- the context, shared by all endpoints of the process, and the names bound in it ---- */

/* inproc sockets neither report nor mend a lost peer, so we keep account of who is bound. Nobody else has our
 * context, so the account is complete. */
struct bound_name {
    struct bound_name *next;
    uint64_t number;
    char name[];
};

static pthread_mutex_t context_mutex = PTHREAD_MUTEX_INITIALIZER;
static void *shared_context;
static unsigned context_uses;
static struct bound_name *bound_names;
static uint64_t last_number;

static void *context_enter(void)
{
    pthread_mutex_lock(&context_mutex);
    if (!shared_context)
        shared_context = zmq_ctx_new();
    if (shared_context && context_uses == 0) /* libzmq's default is 1023 */
        (void)zmq_ctx_set(shared_context, ZMQ_MAX_SOCKETS, zmq_ctx_get(shared_context, ZMQ_SOCKET_LIMIT));
    context_uses += shared_context != NULL;
    void *context = shared_context;
    pthread_mutex_unlock(&context_mutex);
    return context;
}

/* The last to leave waits for what still lingers. */
static void context_leave(void)
{
    pthread_mutex_lock(&context_mutex);
    void *last = --context_uses == 0 ? shared_context : NULL;
    if (last)
        shared_context = NULL;
    pthread_mutex_unlock(&context_mutex);
    while (last && zmq_ctx_term(last) != 0 && errno == EINTR)
        continue;
}

/* 0 without memory. */
static uint64_t name_add(const char *name)
{
    size_t size = strlen(name) + 1;
    struct bound_name *bound = malloc(sizeof *bound + size);
    if (!bound)
        return 0;
    memcpy(bound->name, name, size);
    pthread_mutex_lock(&context_mutex);
    uint64_t number = bound->number = ++last_number;
    bound->next = bound_names;
    bound_names = bound;
    pthread_mutex_unlock(&context_mutex);
    return number;
}

static void name_remove(uint64_t number)
{
    pthread_mutex_lock(&context_mutex);
    struct bound_name **at = &bound_names;
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    struct bound_name *bound = *at;
    if (bound)
        *at = bound->next;
    pthread_mutex_unlock(&context_mutex);
    free(bound);
}

/* The newest binding of a name, or that with a number, if it is still there; 0: none. */
static uint64_t name_find(const char *name, uint64_t number)
{
    pthread_mutex_lock(&context_mutex);
    const struct bound_name *bound = bound_names;
    while (bound && (strcmp(bound->name, name) != 0 || (number && bound->number != number)))
        bound = bound->next;
    uint64_t found = bound ? bound->number : 0;
    pthread_mutex_unlock(&context_mutex);
    return found;
}

/* ---- both ends ---- */

struct end {
    const crew_transport_config *config;
    void *socket;
    char address[ADDRESS_MOST]; /* as libzmq has it; once bound, the real one */
    bool inproc, connects;
    uint64_t number; /* of the binding of an inproc name that this end made or is connected to */
};

/* libzmq's address of one of a URL's hosts. */
static crew_status make_address(const crew_url *url, size_t index, char *address, size_t room,
                                crew_error *why)
{
    const char *scheme = crew_url_scheme(url) + strlen("zmq+"), *wants = NULL;
    const char *host = crew_url_host(url, index), *path = crew_url_path(url);
    int size = 0;
    if (strcmp(scheme, "ipc") == 0) {
        wants = *host || !*path ? "wants zmq+ipc:///path" : NULL;
        size = snprintf(address, room, "ipc://%s", path);
    } else if (strcmp(scheme, "inproc") == 0) {
        wants = !*host || *path ? "wants zmq+inproc://name" : NULL;
        size = snprintf(address, room, "inproc://%s", host);
    } else {
        if (!*host || !crew_url_port(url, index) || (*path && strcmp(path, "/") != 0))
            wants = "wants zmq+tcp://host:port, with * for all addresses of a worker";
        bool v6 = strchr(host, ':') != NULL;
        size = snprintf(address, room, v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", host, crew_url_port(url, index));
    }
    if (!wants && (size_t)size >= room)
        wants = "is too long";
    return wants ? crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s", crew_url_text(url), wants)
                 : CREW_OK;
}

/* Callers balance over several hosts; a worker is at one. */
static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    char address[ADDRESS_MOST];
    if (server && crew_url_host_count(url) != 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants one host",
                              crew_url_text(url));
    if (crew_url_user(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': ZeroMQ asks for no user",
                              crew_url_text(url));
    crew_status status = CREW_OK;
    for (size_t i = 0; i < crew_url_host_count(url) && status == CREW_OK; i++)
        status = make_address(url, i, address, sizeof address, why);
    return status;
}

static void set_int(void *socket, int option, int value)
{
    int result = zmq_setsockopt(socket, option, &value, sizeof value);
    (void)result; /* the options exist since libzmq 4.2, and the values are in range */
}

static crew_status make_socket(struct end *end, int type, crew_error *why)
{
    void *context = context_enter();
    end->socket = context ? zmq_socket(context, type) : NULL;
    if (!end->socket) {
        int error = errno;
        if (context)
            context_leave();
        return crew_error_set(why, CREW_SYSTEM, "a ZeroMQ socket: %s", zmq_strerror(error));
    }
    /* A message beyond the limit is answered with an error; one far beyond it costs its sender the
     * connection. */
    int64_t most = (int64_t)end->config->limits.message_bytes * 4 + 65536;
    int result = zmq_setsockopt(end->socket, ZMQ_MAXMSGSIZE, &most, sizeof most);
    (void)result;
    set_int(end->socket, ZMQ_LINGER, 0);
    set_int(end->socket, ZMQ_IPV6, strchr(end->address, '[') != NULL);
    set_int(end->socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(end->socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_LOST_MS);
    set_int(end->socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(end->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MOST_MS);
    set_int(end->socket, ZMQ_CONNECT_TIMEOUT, (int)end->config->connect_timeout_ms);
    return CREW_OK;
}

static void close_socket(struct end *end, unsigned linger_ms)
{
    if (end->inproc && !end->connects && end->number)
        name_remove(end->number);
    end->number = 0;
    set_int(end->socket, ZMQ_LINGER, (int)linger_ms);
    zmq_close(end->socket);
    end->socket = NULL;
    context_leave();
}

static crew_status failed(const struct end *end, const char *what, crew_error *why)
{
    crew_status status = errno == EINVAL || errno == ENODEV ? CREW_BAD_ARGUMENT : CREW_SYSTEM;
    return crew_error_set(why, status, "%s %s: %s", what, end->address, zmq_strerror(errno));
}

/* libzmq would replace whatever is at an ipc path: what is no socket, and a socket that somebody serves. */
static crew_status check_path(const struct end *end, crew_error *why)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = end->address + strlen("ipc://");
    struct stat file;
    if (strncmp(end->address, "ipc://", 6) != 0 || lstat(path, &file) != 0)
        return CREW_OK;
    if (!S_ISSOCK(file.st_mode))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "binding %s: there is something that is no socket",
                              end->address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool served = false;
    if (fd >= 0 && strlen(path) < sizeof address.sun_path) {
        memcpy(address.sun_path, path, strlen(path) + 1);
        served = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    }
    if (fd >= 0)
        close(fd);
    return served ? crew_error_set(why, CREW_SYSTEM, "binding %s: %s", end->address, strerror(EADDRINUSE))
                  : CREW_OK;
}

static crew_status bind_socket(struct end *end, crew_error *why)
{
    int64_t until = crew_now_ms() + REBIND_MS;
    crew_status status = check_path(end, why);
    while (status == CREW_SYSTEM && crew_now_ms() < until) {
        (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        status = check_path(end, why);
    }
    if (status != CREW_OK)
        return status;
    while (zmq_bind(end->socket, end->address) != 0) {
        if (errno != EADDRINUSE || crew_now_ms() >= until)
            return failed(end, "binding", why);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    size_t size = sizeof end->address;
    int result = zmq_getsockopt(end->socket, ZMQ_LAST_ENDPOINT, end->address, &size);
    (void)result;
    if (end->inproc)
        end->number = name_add(end->address);
    return end->inproc && !end->number ? crew_error_set(why, CREW_NO_MEMORY, "no memory") : CREW_OK;
}

/* An inproc end connects when there is something to connect to; the others leave that to libzmq. */
static crew_status connect_socket(struct end *end, crew_error *why)
{
    if (end->inproc) {
        uint64_t number = name_find(end->address, 0);
        if (!number)
            return CREW_OK;
        end->number = number;
    }
    return zmq_connect(end->socket, end->address) == 0 ? CREW_OK : failed(end, "connecting to", why);
}

/* Whether the binding that an inproc end is connected to has gone. */
static bool inproc_lost(const struct end *end)
{
    return end->inproc && end->connects && end->number && !name_find(end->address, end->number);
}

static crew_status open_end(struct end *end, const crew_transport_config *config, int type, const char *mode,
                            crew_error *why)
{
    const char *chosen = crew_url_option(config->url, "mode");
    *end = (struct end){ .config = config };
    end->connects = strcmp(chosen ? chosen : mode, "connect") == 0;
    end->inproc = strcmp(crew_url_scheme(config->url), "zmq+inproc") == 0;
    crew_status status = make_address(config->url, config->host, end->address, sizeof end->address, why);
    if (status == CREW_OK)
        status = make_socket(end, type, why);
    if (status != CREW_OK)
        return status;
    /* ZMQ_IMMEDIATE is not for callers: it would discard the answers that have arrived when a connection
     * ends. That nothing is sent without a peer is seen to by has_peer. */
    if (type == ZMQ_ROUTER)
        set_int(end->socket, ZMQ_ROUTER_MANDATORY, 1);
    return CREW_OK;
}

/* Waits for input, and for room to send if wanted. */
static crew_status poll_all(zmq_pollitem_t *items, int count, int timeout_ms)
{
    if (zmq_poll(items, count, timeout_ms) < 0 && errno != EINTR)
        return CREW_SYSTEM;
    return CREW_OK;
}

/* Sends all frames as one message, or none: 0, or why not (EAGAIN, EHOSTUNREACH, ENOMEM). All memory is there
 * before the first goes, since a message that ends in the middle would go on with the next one. */
static int send_frames(void *socket, const crew_string *frames, size_t count)
{
    zmq_msg_t parts[ENVELOPE_MOST + 2];
    size_t made = 0, sent = 0;
    for (; made < count && zmq_msg_init_size(&parts[made], frames[made].size) == 0; made++)
        if (frames[made].size)
            memcpy(zmq_msg_data(&parts[made]), frames[made].data, frames[made].size);
    int error = made == count ? 0 : ENOMEM;
    for (; !error && sent < count; sent++) {
        int more = sent + 1 < count ? ZMQ_SNDMORE : 0;
        if (zmq_msg_send(&parts[sent], socket, more | ZMQ_DONTWAIT) < 0 && sent == 0) {
            error = errno; /* only the first frame of a message can be refused */
            break;
        }
    }
    for (size_t i = sent; i < made; i++)
        zmq_msg_close(&parts[i]);
    return error;
}

static bool more_frames(void *socket)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) == 0 && more;
}

/* ---- worker ---- */

struct route {
    size_t count;
    crew_string frames[];
};

/* A peer that does not read: its answers, in order. */
struct full_peer {
    struct full_peer *next;
    int64_t since_ms;
    crew_list waiting;
    crew_string identity;
    char bytes[256]; /* identities have at most 255 */
};

struct worker {
    struct end end;
    bool settle_empty;
    unsigned send_timeout_ms;
    struct full_peer *full;
    size_t full_count, waiting_count;
};

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ 0 };
    crew_status status = open_end(&w->end, config, ZMQ_ROUTER, "bind", why);
    if (status != CREW_OK)
        return status;
    w->settle_empty = crew_url_option_is(config->url, "settle", "empty");
    w->send_timeout_ms = (unsigned)crew_url_number(config->url, "send_timeout_ms", SEND_TIMEOUT_MS);
    set_int(w->end.socket, ZMQ_SNDHWM, (int)crew_url_number(config->url, "send_queue", 1000));
    status = w->end.connects ? connect_socket(&w->end, why) : bind_socket(&w->end, why);
    if (status != CREW_OK)
        close_socket(&w->end, 0);
    return status;
}

static crew_status worker_wait(void *state, int wake_fd, int timeout_ms, size_t room)
{
    struct worker *w = state;
    bool take = room > w->waiting_count;
    int tick_ms = w->waiting_count ? RETRY_MS : w->end.inproc && w->end.connects ? INPROC_TICK_MS : -1;
    if (tick_ms >= 0 && (timeout_ms < 0 || timeout_ms > tick_ms))
        timeout_ms = tick_ms;
    zmq_pollitem_t items[] = { { .fd = wake_fd, .events = ZMQ_POLLIN },
                               { .socket = w->end.socket, .events = ZMQ_POLLIN } };
    return poll_all(items, take ? 2 : 1, timeout_ms);
}

/* Receives one message's frames; NULL when there is none, or it was not worth keeping (*again is true then).
 */
static crew_message *receive_request(struct worker *w, bool *again)
{
    void *socket = w->end.socket;
    crew_string frames[ENVELOPE_MOST];
    crew_message *m = crew_message_take(w->end.config->messages);
    size_t count = 0, bytes = 0;
    bool good = m != NULL;
    zmq_msg_t part;
    zmq_msg_init(&part);
    *again = false;
    for (bool more = true; more;) {
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            good = false;
            break;
        }
        *again = true;
        more = zmq_msg_more(&part) != 0;
        crew_string frame = { zmq_msg_data(&part), zmq_msg_size(&part) };
        if (!more && good)
            crew_buffer_append(&m->body, frame.data, frame.size);
        bytes += more ? frame.size : 0;
        good = good && (!more || (count < ENVELOPE_MOST && bytes <= ENVELOPE_BYTES));
        if (more && good)
            frames[count++] = crew_arena_string(&m->arena, frame);
    }
    zmq_msg_close(&part);
    struct route *route = good && count && !m->body.failed
                              ? crew_arena_alloc(&m->arena, sizeof *route + count * sizeof *frames)
                              : NULL;
    for (size_t i = 0; route && i < count; i++) {
        route->frames[i] = frames[i];
        if (!frames[i].data)
            route = NULL;
    }
    if (!route) {
        crew_message_give(w->end.config->messages, m);
        return NULL;
    }
    route->count = count;
    m->kind = CREW_MESSAGE_REQUEST;
    m->route = route;
    return m;
}

/* A caller's deadline comes in Unix milliseconds, and becomes one of our clock. */
static void read_header(crew_message *m)
{
    const struct route *route = m->route;
    crew_string header = route->frames[route->count - 1];
    size_t mark = sizeof header_mark - 1;
    if (header.size <= mark || header.size > mark + 20 || memcmp(header.data, header_mark, mark) != 0)
        return;
    int64_t deadline = strtoll(header.data + mark, NULL, 10);
    int64_t unix_ms = crew_unix_ms();
    if (deadline > 0) { /* and not so far away that sums overflow */
        int64_t left = deadline - unix_ms < DEADLINE_MOST_MS ? deadline - unix_ms : DEADLINE_MOST_MS;
        m->deadline_ms = crew_now_ms() + left;
    }
}

/* EAGAIN: the peer is full; 0: sent; else it is gone, or there is no memory. */
static int send_answer(const struct worker *w, const crew_message *m)
{
    const struct route *route = m->route;
    crew_string frames[ENVELOPE_MOST + 1];
    memcpy(frames, route->frames, route->count * sizeof *frames);
    frames[route->count] = crew_buffer_string(&m->reply);
    if (m->kind == CREW_SETTLE_DONE)
        frames[route->count].size = 0;
    return send_frames(w->end.socket, frames, route->count + 1);
}

static struct full_peer **find_full(struct worker *w, crew_string identity)
{
    struct full_peer **at = &w->full;
    while (*at && !crew_string_equal((*at)->identity, identity))
        at = &(*at)->next;
    return at;
}

static void drop(struct worker *w, crew_message *m)
{
    crew_message_give(w->end.config->messages, m);
}

static void drop_waiting(struct worker *w, struct full_peer *peer)
{
    w->waiting_count -= peer->waiting.count;
    for (crew_message *m; (m = crew_list_take(&peer->waiting));)
        drop(w, m);
}

static void forget(struct worker *w, struct full_peer **at)
{
    struct full_peer *peer = *at;
    drop_waiting(w, peer);
    *at = peer->next;
    w->full_count--;
    free(peer);
}

/* Lets an answer wait for a full peer. One that has been full for too long gets nothing kept any more. */
static void keep_waiting(struct worker *w, crew_message *m)
{
    crew_string identity = ((const struct route *)m->route)->frames[0];
    struct full_peer *peer = *find_full(w, identity);
    if (!peer && w->full_count < FULL_PEERS_MOST && identity.size <= sizeof peer->bytes &&
        (peer = calloc(1, sizeof *peer))) {
        memcpy(peer->bytes, identity.data, identity.size);
        peer->identity = (crew_string){ peer->bytes, identity.size };
        peer->since_ms = crew_now_ms();
        peer->next = w->full;
        w->full = peer;
        w->full_count++;
    }
    if (!peer || crew_now_ms() - peer->since_ms >= w->send_timeout_ms) {
        drop(w, m);
        return;
    }
    crew_list_append(&peer->waiting, m);
    w->waiting_count++;
}

/* Tries again what waits for full peers. */
static void retry_waiting(struct worker *w)
{
    for (struct full_peer **at = &w->full; *at;) {
        struct full_peer *peer = *at;
        bool had = peer->waiting.head != NULL;
        int error = 0;
        while (peer->waiting.head && (error = send_answer(w, peer->waiting.head)) != EAGAIN) {
            drop(w, crew_list_take(&peer->waiting)); /* sent, or its peer is gone */
            w->waiting_count--;
            peer->since_ms = crew_now_ms();
        }
        if (error == EAGAIN && crew_now_ms() - peer->since_ms >= w->send_timeout_ms)
            drop_waiting(w, peer);
        /* A peer known to be full is remembered for a while, so that it cannot hold up the others again. */
        bool stale = crew_now_ms() - peer->since_ms >= 10 * (int64_t)w->send_timeout_ms;
        if ((had && error != EAGAIN) || stale)
            forget(w, at);
        else
            at = &peer->next;
    }
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    for (crew_message *m; (m = crew_list_take(messages));) {
        bool speaks = m->kind == CREW_SETTLE_REPLY || (m->kind == CREW_SETTLE_DONE && w->settle_empty);
        struct full_peer **full = NULL;
        if (w->full && speaks)
            full = find_full(w, ((const struct route *)m->route)->frames[0]);
        bool in_turn = full && *full && (*full)->waiting.count;
        int error = 0;
        if (speaks)
            error = in_turn ? EAGAIN : send_answer(w, m);
        if (error == EAGAIN) {
            keep_waiting(w, m);
            continue;
        }
        drop(w, m); /* sent, or its peer is gone */
        if (full && *full)
            forget(w, full);
    }
    return CREW_OK;
}

static bool worker_pending(const void *state)
{
    return ((const struct worker *)state)->waiting_count > 0;
}

static crew_status worker_recv(void *state, crew_list *messages, size_t room)
{
    struct worker *w = state;
    if (inproc_lost(&w->end))
        return CREW_DISCONNECTED;
    if (w->end.inproc && w->end.connects && !w->end.number)
        (void)connect_socket(&w->end, NULL);
    if (w->full)
        retry_waiting(w);
    room = room > w->waiting_count ? room - w->waiting_count : 0;
    for (bool again = true; room && again;) {
        crew_message *m = receive_request(w, &again);
        if (!m)
            continue;
        read_header(m);
        crew_list_append(messages, m);
        room--;
    }
    return CREW_OK;
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    (void)unsent;
    while (w->full)
        forget(w, &w->full);
    close_socket(&w->end, linger_ms);
}

/* ---- caller ---- */

struct caller {
    struct end end;
    void *monitor;
    bool headers;
    unsigned peers;    /* connections with their handshake done */
    unsigned failures; /* handshakes that failed, and whose end is still to be told */
    bool lost;
    crew_list waiting; /* not written yet */
    crew_list events;
};

enum {
    HANDSHAKE_FAILED = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
};

static crew_status start_monitor(struct caller *c, crew_error *why)
{
    static atomic_uint count; /* a name that was used may still be bound for a moment */
    char address[64];
    (void)snprintf(address, sizeof address, "inproc://rpcrew-monitor-%u", atomic_fetch_add(&count, 1));
    int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED | ZMQ_EVENT_DISCONNECTED;
    if (zmq_socket_monitor(c->end.socket, address, events) != 0)
        return failed(&c->end, "monitoring", why);
    c->monitor = zmq_socket(shared_context, ZMQ_PAIR);
    if (!c->monitor)
        return failed(&c->end, "monitoring", why);
    set_int(c->monitor, ZMQ_LINGER, 0);
    return zmq_connect(c->monitor, address) == 0 ? CREW_OK : failed(&c->end, "monitoring", why);
}

static void close_caller(struct caller *c, unsigned linger_ms)
{
    int result = zmq_socket_monitor(c->end.socket, NULL, 0);
    (void)result;
    if (c->monitor)
        zmq_close(c->monitor);
    c->monitor = NULL;
    close_socket(&c->end, linger_ms);
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    *c = (struct caller){ 0 };
    crew_status status = open_end(&c->end, config, ZMQ_DEALER, "connect", why);
    if (status != CREW_OK)
        return status;
    c->headers = crew_url_option_is(config->url, "headers", "yes");
    status = start_monitor(c, why);
    if (status == CREW_OK)
        status = c->end.connects ? connect_socket(&c->end, why) : bind_socket(&c->end, why);
    if (status != CREW_OK)
        close_caller(c, 0);
    return status;
}

/* Whether there is somebody to send to. */
static bool has_peer(const struct caller *c)
{
    if (c->end.inproc) /* nothing is heard of its peers */
        return !c->end.connects || c->end.number;
    return c->peers > 0 && !c->lost;
}

static crew_status caller_wait(void *state, int wake_fd, int timeout_ms, size_t room)
{
    struct caller *c = state;
    (void)room;
    bool tick = c->end.inproc && c->end.connects;
    if (tick && (timeout_ms < 0 || timeout_ms > INPROC_TICK_MS))
        timeout_ms = INPROC_TICK_MS;
    if (c->events.count)
        timeout_ms = 0;
    short events = (short)(c->waiting.count && has_peer(c) ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN);
    zmq_pollitem_t items[] = { { .fd = wake_fd, .events = ZMQ_POLLIN },
                               { .socket = c->end.socket, .events = events },
                               { .socket = c->monitor, .events = ZMQ_POLLIN } };
    return poll_all(items, 3, timeout_ms);
}

static bool write_request(const struct caller *c, const crew_message *m)
{
    char header[64];
    crew_string frames[3] = { crew_str("") };
    size_t count = 1;
    if (c->headers && m->deadline_ms) {
        int64_t unix_ms = crew_unix_ms() + m->deadline_ms - crew_now_ms();
        (void)snprintf(header, sizeof header, "%s%lld", header_mark, (long long)unix_ms);
        frames[count++] = crew_str(header);
    }
    frames[count++] = crew_buffer_string(&m->body);
    return has_peer(c) && send_frames(c->end.socket, frames, count) == 0;
}

/* Writes what waits, as far as it goes. */
static void flush_waiting(struct caller *c)
{
    int64_t now = c->waiting.count ? crew_now_ms() : 0;
    while (c->waiting.head) {
        crew_message *m = c->waiting.head;
        bool late = m->deadline_ms && m->deadline_ms <= now;
        if (!late && !write_request(c, m))
            return;
        (void)crew_list_take(&c->waiting);
        if (late) {
            crew_message_give(c->end.config->messages, m);
            continue;
        }
        m->kind = m->one_way ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
        crew_list_append(&c->events, m);
    }
}

/* The next answer: the last frame of a message. Empty ones, with which REP answers notifications, are passed
 * over. NULL when there is none. */
static crew_message *receive_answer(struct caller *c)
{
    for (;;) {
        crew_message *m = NULL;
        zmq_msg_t part;
        zmq_msg_init(&part);
        bool got = zmq_msg_recv(&part, c->end.socket, ZMQ_DONTWAIT) >= 0;
        while (got && zmq_msg_more(&part))
            got = zmq_msg_recv(&part, c->end.socket, ZMQ_DONTWAIT) >= 0;
        if (got && zmq_msg_size(&part) && (m = crew_message_take(c->end.config->messages))) {
            m->kind = CREW_EVENT_REPLY;
            crew_buffer_append(&m->body, zmq_msg_data(&part), zmq_msg_size(&part));
        }
        zmq_msg_close(&part);
        if (m || !got)
            return m;
    }
}

/* Reads what the monitor tells: [event and value, address]. */
static void read_monitor(struct caller *c)
{
    unsigned char event[6];
    while (zmq_recv(c->monitor, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        uint16_t what;
        memcpy(&what, event, sizeof what);
        while (more_frames(c->monitor))
            if (zmq_recv(c->monitor, event, 0, ZMQ_DONTWAIT) < 0)
                break;
        if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            c->peers++;
        else if (what & HANDSHAKE_FAILED)
            c->failures++;
        else if (what == ZMQ_EVENT_DISCONNECTED && c->failures)
            c->failures--;
        else if (what == ZMQ_EVENT_DISCONNECTED && c->peers && --c->peers == 0)
            c->lost = true;
    }
}

static crew_status caller_send(void *state, crew_list *messages)
{
    struct caller *c = state;
    crew_list_move(&c->waiting, messages);
    read_monitor(c);
    flush_waiting(c);
    return CREW_OK;
}

static crew_status caller_recv(void *state, crew_list *messages, size_t room)
{
    struct caller *c = state;
    (void)room;
    read_monitor(c);
    bool lost = c->lost || inproc_lost(&c->end);
    if (c->end.inproc && c->end.connects && !c->end.number)
        (void)connect_socket(&c->end, NULL);
    if (!lost)
        flush_waiting(c);
    crew_list_move(messages, &c->events);
    for (crew_message *m; (m = receive_answer(c));)
        crew_list_append(messages, m); /* what came before the loss counts */
    return lost ? CREW_DISCONNECTED : CREW_OK;
}

/* Not while something waits: what is behind a full peer is better kept where it can be cancelled. */
static bool caller_ready(const void *state)
{
    const struct caller *c = state;
    return has_peer(c) && !c->waiting.count;
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    crew_list_move(unsent, &c->waiting);
    crew_list_free(&c->events);
    close_caller(c, linger_ms);
}

/* ---- the tables ---- */

static const crew_url_option_spec options[] = {
    { "mode", "bind|connect", 0, 0, "worker: bind, caller: connect, unless it says otherwise" },
    { "settle", "none|empty", 0, 0, "worker: answers notifications with an empty body, for REQ callers" },
    { "headers", "yes|no", 0, 0, "caller: sends its deadline in a frame before the body" },
    { "send_timeout_ms", NULL, 1, 3600000, "worker: how long answers wait for a peer that does not read" },
    { "send_queue", NULL, 1, 1 << 20, "worker: answers that libzmq queues for a peer" },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops = {
    .size = sizeof(struct worker),
    .open = worker_open,
    .wait = worker_wait,
    .send = worker_send,
    .recv = worker_recv,
    /* no pause: zmq_unbind would take the connections of the callers that still wait for answers */
    .close = worker_close,
    .pending = worker_pending,
};

static const struct crew_transport_ops caller_ops = {
    .size = sizeof(struct caller),
    .lazy_open = true,
    .open = caller_open,
    .wait = caller_wait,
    .send = caller_send,
    .recv = caller_recv,
    .close = caller_close,
    .ready = caller_ready,
};

const crew_transport crew_zmq_tcp = { .scheme = "zmq+tcp",
                                      .options = options,
                                      .hosts_are_peers = true,
                                      .check = check,
                                      .server = &worker_ops,
                                      .client = &caller_ops };
const crew_transport crew_zmq_ipc = { .scheme = "zmq+ipc",
                                      .options = options,
                                      .hosts_are_peers = true,
                                      .check = check,
                                      .server = &worker_ops,
                                      .client = &caller_ops };
const crew_transport crew_zmq_inproc = { .scheme = "zmq+inproc",
                                         .options = options,
                                         .hosts_are_peers = true,
                                         .check = check,
                                         .server = &worker_ops,
                                         .client = &caller_ops };
