/* Who listens where a ZeroMQ socket is to connect to. libzmq would try for ever, whatever is there, and tells
 * neither that nothing is nor which version of its protocol is spoken. */
#include "transport/dial.h"
#include "transport/zmq_end.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SIGNATURE = 10, /* bytes, before the major version; the minor one follows from 3 on */
    GREETING = SIGNATURE + 2,
};

/* A connected socket that does not block, or -1 with *why; -1 without: somebody is there, and busy. */
static int reach_path(const struct zmq_end *end, crew_error *why)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = zmq_end_path(end);
    size_t size = strlen(path);
    if (size >= sizeof address.sun_path) {
        crew_error_set(why, CREW_BAD_ARGUMENT, "connecting to %s: the path is too long", end->address);
        return -1;
    }
    memcpy(address.sun_path, path, size + 1);
    if (*path == '@') /* an abstract name, as libzmq writes it */
        address.sun_path[0] = '\0';
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (*path != '@'));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = fd >= 0 && connect(fd, (const struct sockaddr *)&address, length) == 0 ? 0 : errno;
    if (!error)
        return fd;
    if (fd >= 0)
        close(fd);
    if (error != EAGAIN)
        crew_error_set(why, CREW_NO_SERVICE, "connecting to %s: %s", end->address, strerror(error));
    return -1;
}

/* The host's address becomes the one that has answered. */
static int reach_host(struct zmq_end *end, crew_error *why)
{
    const crew_transport_config *config = end->config;
    unsigned port = crew_url_port(config->url, config->host);
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    socklen_t size = sizeof address;
    char number[INET6_ADDRSTRLEN];
    int fd = dial_tcp(crew_url_host(config->url, config->host), port, config->connect_timeout_ms,
                      config->opening, why);
    bool known = fd >= 0 && getpeername(fd, (struct sockaddr *)&address, &size) == 0 &&
                 getnameinfo((const struct sockaddr *)&address, size, number, sizeof number, NULL, 0,
                             NI_NUMERICHOST) == 0;
    if (known && address.ss_family == AF_INET6) {
        (void)snprintf(end->address, sizeof end->address, "tcp://[%s]:%u", number, port);
        zmq_end_set(end->socket, ZMQ_IPV6, 1);
    } else if (known) {
        (void)snprintf(end->address, sizeof end->address, "tcp://%s:%u", number, port);
    }
    return fd;
}

/* Reads the peer's greeting, of which it sends the first part by itself and the rest when it has ours: how
 * many bytes have come. Without an end of ours it makes no connection of it. */
static size_t greet(int fd, unsigned char greeting[GREETING], int64_t until_ms)
{
    static const unsigned char ours[SIGNATURE + 1] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3 };
    size_t got = 0, want = GREETING;
    if (send(fd, ours, sizeof ours, MSG_NOSIGNAL) != (ssize_t)sizeof ours)
        return 0;
    for (int64_t left; got < want && (left = until_ms - crew_now_ms()) > 0;) {
        struct pollfd item = { .fd = fd, .events = POLLIN };
        if (poll(&item, 1, (int)left) <= 0)
            continue;
        ssize_t count = recv(fd, greeting + got, want - got, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
            return got;
        got += count > 0 ? (size_t)count : 0;
        if (greeting[0] != 0xff || (got > SIGNATURE && greeting[SIGNATURE] < 3))
            return got;
    }
    return got;
}

crew_status zmq_end_reach(struct zmq_end *end, crew_error *why)
{
    const crew_transport_config *config = end->config;
    unsigned char greeting[GREETING] = { 0 };
    int64_t until = crew_now_ms() + config->connect_timeout_ms;
    if (end->inproc)
        return CREW_OK;
    crew_error failure = { 0 };
    int fd = zmq_end_path(end) ? reach_path(end, &failure) : reach_host(end, &failure);
    if (fd < 0)
        return failure.status == CREW_OK ? CREW_OK
                                         : crew_error_set(why, failure.status, "%s", failure.message);
    size_t size = crew_opening_waits_for(config->opening, fd) ? greet(fd, greeting, until) : 0;
    (void)crew_opening_waits_for(config->opening, -1);
    close(fd);
    if (size <= SIGNATURE || greeting[0] != 0xff)
        return crew_error_set(why, CREW_NO_SERVICE, "connecting to %s: %s", end->address,
                              size ? "what is there does not speak ZeroMQ's protocol"
                                   : "it took the connection, and did not greet as ZeroMQ does");
    end->old = greeting[SIGNATURE] < 3;
    bool knows_ping = greeting[SIGNATURE] > 3 || (!end->old && greeting[SIGNATURE + 1] > 0); /* from 3.1 on */
    if (!knows_ping && !crew_url_option(config->url, "heartbeat"))
        zmq_end_beat(end, false);
    return CREW_OK;
}
