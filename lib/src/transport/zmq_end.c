/* The context, shared by all endpoints of the process, and what both ends do with their sockets. */
#include "transport/zmq_end.h"

#include "core/thread.h"
#include "transport/listen.h"
#include "transport/path.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    REBIND_MS = 500, /* a closed socket's address is free a little later */
    HEARTBEAT_S = 5,
    MISSED_MOST = 3, /* heartbeats, until a peer has gone */
    RECONNECT_MS = 50,
    RECONNECT_MOST_MS = 2000,
    TICK_MS = 20,
};

/* ---- the context, and the names bound in it ---- */

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

/* The last to leave ends it; by then nothing lingers there, but for want of memory. */
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

void *zmq_end_socket(int type)
{
    return zmq_socket(shared_context, type);
}

/* ---- the end ---- */

/* libzmq's address of one of a URL's hosts. */
crew_status zmq_end_address(const crew_url *url, size_t index, char *address, size_t room, crew_error *why)
{
    const char *scheme = crew_url_scheme(url) + strlen("zmq+"), *wants = NULL;
    const char *host = crew_url_host(url, index), *path = crew_url_path(url);
    int size = 0;
    if (strcmp(scheme, "ipc") == 0) {
        char file[PATH_MOST];
        crew_status status = path_of_url(url, file, why);
        if (status != CREW_OK)
            return status;
        size = snprintf(address, room, "ipc://%s", file);
    } else if (crew_url_user(url)) {
        wants = "asks for no user: ZeroMQ has none";
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

void zmq_end_set(void *socket, int option, int value)
{
    int result = zmq_setsockopt(socket, option, &value, sizeof value);
    (void)result; /* the options exist since libzmq 4.2, and the values are in range */
}

/* libzmq ends the process when it gets no descriptors for what it has begun; so it is not let begin without
 * some. */
static bool descriptors_are_left(void)
{
    enum { WANTED = 12 };
    int fds[WANTED], count = 0;
    while (count < WANTED && (fds[count] = eventfd(0, EFD_CLOEXEC)) >= 0)
        count++;
    bool enough = count == WANTED;
    while (count > 0)
        close(fds[--count]);
    return enough;
}

void zmq_end_beat(const struct zmq_end *end, bool heartbeats)
{
    int seconds = (int)crew_url_number(end->config->url, "heartbeat", HEARTBEAT_S);
    bool beats = heartbeats && seconds;
    if (!seconds)
        seconds = HEARTBEAT_S;
    zmq_end_set(end->socket, ZMQ_HEARTBEAT_IVL, beats ? seconds * 1000 : 0);
    if (beats)
        zmq_end_set(end->socket, ZMQ_HEARTBEAT_TIMEOUT, MISSED_MOST * seconds * 1000);
    zmq_end_set(end->socket, ZMQ_TCP_KEEPALIVE, 1);
    zmq_end_set(end->socket, ZMQ_TCP_KEEPALIVE_IDLE, seconds);
    zmq_end_set(end->socket, ZMQ_TCP_KEEPALIVE_INTVL, seconds);
    zmq_end_set(end->socket, ZMQ_TCP_KEEPALIVE_CNT, MISSED_MOST);
}

static crew_status make_socket(struct zmq_end *end, int type, crew_error *why)
{
    if (!descriptors_are_left())
        return crew_error_set(why, CREW_SYSTEM, "a ZeroMQ socket: %s", strerror(EMFILE));
    void *context = context_enter();
    end->socket = context ? zmq_socket(context, type) : NULL;
    if (!end->socket) {
        int error = errno;
        if (context)
            context_leave();
        return crew_error_set(why, CREW_SYSTEM, "a ZeroMQ socket: %s", zmq_strerror(error));
    }
    int64_t most = (int64_t)end->config->hard_bytes;
    int result = zmq_setsockopt(end->socket, ZMQ_MAXMSGSIZE, &most, sizeof most);
    (void)result;
    zmq_end_set(end->socket, ZMQ_LINGER, 0);
    zmq_end_set(end->socket, ZMQ_IPV6, strchr(end->address, '[') != NULL);
    /* None at a ROUTER: a peer that is held back is silent without being gone, and over one that goes
     * meanwhile libzmq 4.3 would end the process. A DEALER's answers are always read. */
    zmq_end_beat(end, type != ZMQ_ROUTER);
    if (end->connects) /* else it ends good connections of ZMTP 2; bound, it keeps strangers from staying */
        zmq_end_set(end->socket, ZMQ_HANDSHAKE_IVL, 0);
    zmq_end_set(end->socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    zmq_end_set(end->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MOST_MS);
    zmq_end_set(end->socket, ZMQ_CONNECT_TIMEOUT, (int)end->config->connect_timeout_ms);
    return CREW_OK;
}

const char *zmq_end_path(const struct zmq_end *end)
{
    return strncmp(end->address, "ipc://", 6) == 0 ? end->address + 6 : NULL;
}

/* The inode at an ipc address; 0 if there is none. */
static ino_t file_of(const struct zmq_end *end)
{
    const char *path = zmq_end_path(end);
    return path ? path_inode(path) : 0;
}

void *zmq_end_monitor(const struct zmq_end *end, int events)
{
    static atomic_uint count; /* a name that was used may still be bound for a moment */
    char name[64];
    void *monitor = zmq_end_socket(ZMQ_PAIR);
    (void)snprintf(name, sizeof name, "inproc://rpcrew-monitor-%u", atomic_fetch_add(&count, 1));
    if (!monitor)
        return NULL;
    zmq_end_set(monitor, ZMQ_LINGER, 0);
    if (zmq_connect(monitor, name) == 0 && zmq_socket_monitor(end->socket, name, events) == 0)
        return monitor;
    int error = errno;
    zmq_close(monitor); /* nothing is bound there */
    errno = error;
    return NULL;
}

/* Until the socket is gone, when all is sent or has lingered its time: then libzmq tells that its monitor has
 * stopped. The monitor's other end must not be closed before: libzmq's thread that ends
 * sockets would wait for ever to tell it. */
static bool is_gone(void *monitor, int timeout_ms)
{
    zmq_pollitem_t item = { .socket = monitor, .events = ZMQ_POLLIN };
    return zmq_poll(&item, 1, timeout_ms) > 0;
}

static void *await_the_end(void *monitor)
{
    while (!is_gone(monitor, -1))
        continue;
    zmq_close(monitor);
    context_leave();
    return NULL;
}

/* Waits for a socket that lingers, unless that is hurried: then a thread does, which outlives this end. */
static void linger(const struct zmq_end *end, void *monitor)
{
    pthread_t thread;
    bool gone = false;
    while (!gone && !crew_transport_is_hurried(end->config))
        gone = is_gone(monitor, TICK_MS);
    if (gone || crew_thread_start(&thread, "rpcrew-linger", await_the_end, monitor, NULL) != CREW_OK)
        (void)await_the_end(monitor);
    else
        (void)pthread_detach(thread);
}

void zmq_end_close(struct zmq_end *end, unsigned linger_ms)
{
    if (end->inproc && !end->connects && end->number)
        name_remove(end->number);
    end->number = 0;
    if (end->file) /* libzmq leaves it behind */
        path_remove(zmq_end_path(end), end->file);
    end->file = 0;
    void *monitor = linger_ms && !end->inproc ? zmq_end_monitor(end, ZMQ_EVENT_MONITOR_STOPPED) : NULL;
    zmq_end_set(end->socket, ZMQ_LINGER, (int)linger_ms);
    zmq_close(end->socket);
    end->socket = NULL;
    if (monitor)
        linger(end, monitor);
    else
        context_leave();
}

crew_status zmq_end_failed(const struct zmq_end *end, const char *what, crew_error *why)
{
    crew_status status = errno == EINVAL || errno == ENODEV ? CREW_BAD_ARGUMENT : CREW_SYSTEM;
    return crew_error_set(why, status, "%s %s: %s", what, end->address, zmq_strerror(errno));
}

/* An address of the name that is to be bound takes its place, of IPv4 if it has one. */
static crew_status resolve(struct zmq_end *end, crew_error *why)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *addresses = NULL;
    int error = getaddrinfo(crew_url_host(end->config->url, end->config->host), NULL, &hints, &addresses);
    if (error)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "binding %s: no interface of that name, nor a host: %s",
                              end->address, gai_strerror(error));
    const struct addrinfo *a = addresses;
    while (a->ai_family != AF_INET && a->ai_next)
        a = a->ai_next;
    zmq_end_use_address(end, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(addresses);
    return CREW_OK;
}

/* By the address that libzmq says, with its port: in numbers. */
static void note_reach(const struct zmq_end *end)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
    struct addrinfo *address = NULL;
    static const char tcp[] = "tcp://";
    const char *from = end->address + strlen(tcp), *port = strrchr(end->address, ':');
    char host[INET6_ADDRSTRLEN];
    if (strncmp(end->address, tcp, strlen(tcp)) != 0 || port < from)
        return;
    bool bracketed = *from == '[';
    (void)snprintf(host, sizeof host, "%.*s", (int)(port - from) - 2 * bracketed, from + bracketed);
    if (getaddrinfo(host, NULL, &hints, &address) != 0)
        return;
    listen_in_the_clear(end->config->url, address->ai_addr);
    freeaddrinfo(address);
}

crew_status zmq_end_bind(struct zmq_end *end, crew_error *why)
{
    bool resolved = false;
    const char *path = zmq_end_path(end); /* libzmq would replace whatever is there */
    crew_status status = path ? path_is_free(path, end->address, why) : CREW_OK;
    if (status != CREW_OK)
        return status;
    int64_t until = crew_now_ms() + REBIND_MS;
    while (zmq_bind(end->socket, end->address) != 0) {
        if (errno == ENODEV && !resolved) { /* libzmq takes numbers and interfaces */
            resolved = true;
            status = resolve(end, why);
            if (status != CREW_OK)
                return status;
            continue;
        }
        if (errno != EADDRINUSE || crew_now_ms() >= until)
            return zmq_end_failed(end, "binding", why);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    size_t size = sizeof end->address;
    int result = zmq_getsockopt(end->socket, ZMQ_LAST_ENDPOINT, end->address, &size);
    (void)result;
    note_reach(end);
    if (end->inproc)
        end->number = name_add(end->address);
    end->file = file_of(end);
    return end->inproc && !end->number ? crew_error_set(why, CREW_NO_MEMORY, "no memory") : CREW_OK;
}

/* An inproc end connects when there is something to connect to; the others leave that to libzmq. */
crew_status zmq_end_connect(struct zmq_end *end, crew_error *why)
{
    if (end->inproc) {
        uint64_t number = name_find(end->address, 0);
        if (!number)
            return CREW_OK;
        end->number = number;
    }
    return zmq_connect(end->socket, end->address) == 0 ? CREW_OK : zmq_end_failed(end, "connecting to", why);
}

/* Whether the binding that an inproc end is connected to has gone. */
bool zmq_end_lost(const struct zmq_end *end)
{
    return end->inproc && end->connects && end->number && !name_find(end->address, end->number);
}

crew_status zmq_end_open(struct zmq_end *end, const crew_transport_config *config, int type, const char *mode,
                         crew_error *why)
{
    const char *chosen = crew_url_option(config->url, "mode");
    *end = (struct zmq_end){ .config = config };
    end->connects = strcmp(chosen ? chosen : mode, "connect") == 0;
    end->inproc = strcmp(crew_url_scheme(config->url), "zmq+inproc") == 0;
    crew_status status = zmq_end_address(config->url, config->host, end->address, sizeof end->address, why);
    if (status == CREW_OK)
        status = make_socket(end, type, why);
    if (status != CREW_OK)
        return status;
    /* ZMQ_IMMEDIATE is not for callers: it would discard the answers that have arrived when a connection
     * ends. That nothing is sent without a peer is seen to by has_peer. */
    if (type == ZMQ_ROUTER)
        zmq_end_set(end->socket, ZMQ_ROUTER_MANDATORY, 1);
    return CREW_OK;
}

/* Waits for input, and for room to send if wanted. */
crew_status zmq_end_poll(zmq_pollitem_t *items, int count, int timeout_ms)
{
    if (zmq_poll(items, count, timeout_ms) < 0 && errno != EINTR)
        return CREW_SYSTEM;
    return CREW_OK;
}

bool zmq_end_make(zmq_msg_t *parts, const crew_string *frames, size_t count)
{
    size_t made = 0;
    for (; made < count && zmq_msg_init_size(&parts[made], frames[made].size) == 0; made++)
        if (frames[made].size)
            memcpy(zmq_msg_data(&parts[made]), frames[made].data, frames[made].size);
    if (made < count)
        zmq_end_fini(parts, made);
    return made == count;
}

int zmq_end_send_parts(void *socket, zmq_msg_t *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) /* only the first frame of a message can be refused */
        if (zmq_msg_send(&parts[i], socket, (i + 1 < count ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) < 0 && i == 0)
            return errno;
    return 0;
}

void zmq_end_fini(zmq_msg_t *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        zmq_msg_close(&parts[i]);
}

int zmq_end_send(void *socket, const crew_string *frames, size_t count)
{
    zmq_msg_t parts[ZMQ_END_ENVELOPE_MOST + 2];
    if (!zmq_end_make(parts, frames, count))
        return ENOMEM;
    int error = zmq_end_send_parts(socket, parts, count);
    zmq_end_fini(parts, count); /* those that were sent are empty now */
    return error;
}
