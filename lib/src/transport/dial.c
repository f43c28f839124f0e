/* The addresses of a name by turns, so that one that swallows packets does not take the time of the others.
 */
#include "transport/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEEPALIVE_MS = 20000 };

/* 0, or errno. */
static int await_connection(int fd, int64_t until_ms)
{
    struct pollfd item = { .fd = fd, .events = POLLOUT };
    int error = ETIMEDOUT;
    socklen_t size = sizeof error;
    for (int64_t left; (left = until_ms - crew_now_ms()) >= 0;) {
        int ready = poll(&item, 1, (int)left);
        if (ready > 0)
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
        if (ready < 0 && errno != EINTR)
            return errno;
    }
    return ETIMEDOUT;
}

unsigned dial_keepalive_ms(const crew_url *url)
{
    return (unsigned)crew_url_number(url, "keepalive_ms", KEEPALIVE_MS);
}

void dial_keep_alive(int fd, unsigned ms)
{
    enum { PROBES = 3 };
    const int yes = 1, probes = PROBES, idle_s = (int)(ms / 2000), interval_s = (int)(ms / 2000 / PROBES);
    const int after_s = interval_s ? interval_s : 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes); /* of no use to unix sockets */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &after_s, sizeof after_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

bool dial_met_itself(int fd)
{
    const struct linger reset = { .l_onoff = 1 };
    struct sockaddr_storage own, peer;
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    memset(&own, 0, sizeof own);
    memset(&peer, 0, sizeof peer);
    if (getsockname(fd, (struct sockaddr *)&own, &own_size) != 0 ||
        getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0 || own.ss_family == AF_UNIX ||
        own_size != peer_size || memcmp(&own, &peer, own_size) != 0)
        return false;
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return true;
}

/* 0, or errno; *wanted is false once nobody wants it any more. */
static int connect_address(const struct addrinfo *address, int64_t until_ms, crew_opening *opening, int *out,
                           bool *wanted)
{
    const int yes = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    dial_keep_alive(fd, KEEPALIVE_MS);
    int error = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    *wanted = crew_opening_waits_for(opening, fd);
    if (error == EINPROGRESS && *wanted)
        error = await_connection(fd, until_ms);
    if (!error && dial_met_itself(fd))
        error = ECONNREFUSED;
    if (!error) {
        *out = fd;
        return 0;
    }
    *wanted = crew_opening_waits_for(opening, -1);
    close(fd);
    return error;
}

int dial_tcp(const char *host, unsigned port, unsigned timeout_ms, crew_opening *opening, crew_error *why)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *addresses = NULL;
    char service[12];
    int64_t end_ms = crew_now_ms() + timeout_ms;
    bool is_v6 = strchr(host, ':') != NULL;
    const char *opens = is_v6 ? "[" : "", *closes = is_v6 ? "]" : "";
    (void)snprintf(service, sizeof service, "%u", port);
    bool wanted = crew_opening_waits_for(opening, -1);
    int error = wanted ? getaddrinfo(host, service, &hints, &addresses) : EAI_AGAIN;
    if (error) {
        crew_error_set(why, CREW_NO_SERVICE, "connecting to %s%s%s:%u: %s", opens, host, closes, port,
                       error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
        return -1;
    }
    int fd = -1;
    int64_t left = 0;
    for (const struct addrinfo *a = addresses; a; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = addresses; a && fd < 0 && wanted; a = a->ai_next, left--) {
        int64_t now = crew_now_ms();
        error = connect_address(a, now + (end_ms - now) / left, opening, &fd, &wanted);
    }
    freeaddrinfo(addresses);
    if (fd < 0)
        crew_error_set(why, error == EMFILE || error == ENFILE ? CREW_SYSTEM : CREW_NO_SERVICE,
                       "connecting to %s%s%s:%u: %s", opens, host, closes, port, strerror(error));
    return fd;
}
