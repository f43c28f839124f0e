#include "transport/listen.h"

#include <rpcrew/log.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKLOG = 1024, FIRST_INHERITED = 3 };

static crew_status failed(const struct stream_worker *w, const char *what, int error, crew_error *why)
{
    return crew_error_set(why, CREW_SYSTEM, "%s %s: %s", what, crew_url_text(w->set.config->url),
                          strerror(error));
}

/* ---- TCP ---- */

/* 0, or errno. */
static int bind_address(const struct addrinfo *address, int *out)
{
    const int yes = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes); /* old connections keep no port */
    if (address->ai_family == AF_INET6)                               /* IPv4 has a socket of its own */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    *out = fd;
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return 0;
    int error = errno;
    close(fd);
    return error;
}

/* Whether a family that there is none of is the reason: then another one will do. */
static bool is_absent(int error)
{
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

void listen_in_the_clear(const crew_url *url, const struct sockaddr *address)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    bool is_here = address->sa_family == AF_INET6  ? IN6_IS_ADDR_LOOPBACK(&six->sin6_addr)
                   : address->sa_family == AF_INET ? ntohl(four->sin_addr.s_addr) >> 24 == 127
                                                   : true;
    if (!is_here)
        crew_log(CREW_LOG_WARN, "listens beyond this machine without TLS", "{s:s}", "endpoint",
                 crew_url_text(url));
}

crew_status listen_tcp(struct stream_worker *w, crew_error *why)
{
    const crew_url *url = w->set.config->url;
    const char *host = crew_url_host(url, 0);
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *addresses = NULL;
    char port[12];
    (void)snprintf(port, sizeof port, "%u", crew_url_port(url, 0) ? crew_url_port(url, 0) : w->default_port);
    int error = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &addresses);
    if (error)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "binding %s: %s", crew_url_text(url),
                              error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
    crew_status status = CREW_OK;
    int absent = 0;
    if (addresses && !w->set.tls)
        listen_in_the_clear(url, addresses->ai_addr);
    for (const struct addrinfo *a = addresses; a && status == CREW_OK; a = a->ai_next) {
        int fd = -1;
        error = bind_address(a, &fd);
        if (!error)
            status = stream_worker_listen(w, fd, why);
        else if (is_absent(error))
            absent = error;
        else
            status = failed(w, "binding", error, why);
    }
    freeaddrinfo(addresses);
    return status == CREW_OK && !w->listener_count ? failed(w, "binding", absent, why) : status;
}

/* ---- unix sockets ---- */

static bool read_mode(const char *text, mode_t *mode)
{
    char *end;
    unsigned long number = text ? strtoul(text, &end, 8) : 0;
    if (text && (!isdigit((unsigned char)*text) || *end || number > 0777))
        return false;
    *mode = (mode_t)number;
    return true;
}

/* With the directory locked. */
static crew_status bind_path(struct stream_worker *w, const char *path, mode_t mode, crew_error *why)
{
    struct sockaddr_un address;
    crew_status status = path_look(path, crew_url_text(w->set.config->url), why);
    if (status != CREW_OK)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(w, "binding", errno, why);
    if (mode) /* from the first moment on no more than that */
        (void)fchmod(fd, mode);
    if (path_inode(path))
        (void)unlink(path); /* nobody serves it */
    bool good = bind(fd, (const struct sockaddr *)&address, path_address(path, &address)) == 0 &&
                (!mode || *path == '@' || chmod(path, mode) == 0) && listen(fd, BACKLOG) == 0;
    if (!good) {
        status = failed(w, "binding", errno, why);
        close(fd);
        return status;
    }
    (void)snprintf(w->path, sizeof w->path, "%s", *path == '@' ? "" : path);
    w->inode = path_inode(path);
    return stream_worker_listen(w, fd, why);
}

crew_status listen_unix(struct stream_worker *w, crew_error *why)
{
    const crew_url *url = w->set.config->url;
    char path[PATH_MOST];
    mode_t mode;
    crew_status status = path_of_url(url, path, why);
    if (status == CREW_OK)
        status = path_is_free(path, crew_url_text(url), why);
    if (status != CREW_OK)
        return status;
    if (!read_mode(crew_url_option(url, "mode"), &mode))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': mode wants three octal digits, such as 660",
                              crew_url_text(url));
    int lock = path_lock(path);
    status = bind_path(w, path, mode, why);
    path_unlock(lock);
    return status;
}

/* ---- inherited ones ---- */

bool listen_inherits(const crew_url *url)
{
    return crew_url_option(url, "listen") != NULL;
}

/* The index-th of a list of names between colons. */
static crew_string name_at(const char *names, int index)
{
    for (; index && names; index--)
        names = (names = strchr(names, ':')) ? names + 1 : NULL;
    return names ? (crew_string){ names, strcspn(names, ":") } : (crew_string){ 0 };
}

/* How many descriptors are handed to this process. */
static int handed_over(void)
{
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    return count && pid && strtol(pid, NULL, 10) == (long)getpid() ? (int)strtol(count, NULL, 10) : 0;
}

/* A copy, so that it can be listened on again after it was closed. */
static crew_status inherit(struct stream_worker *w, int fd, crew_error *why)
{
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    socklen_t address_size = sizeof address;
    int listening = 0;
    socklen_t size = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': descriptor %d is no socket that listens",
                              crew_url_text(w->set.config->url), fd);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0 || fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK) != 0)
        return failed(w, "listening", errno, why);
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (!w->set.tls && getsockname(fd, (struct sockaddr *)&address, &address_size) == 0)
        listen_in_the_clear(w->set.config->url, (const struct sockaddr *)&address);
    return stream_worker_listen(w, copy, why);
}

crew_status listen_inherited(struct stream_worker *w, crew_error *why)
{
    const crew_url *url = w->set.config->url;
    const char *wanted = crew_url_option(url, "listen"), *names = getenv("LISTEN_FDNAMES");
    if (strncmp(wanted, "fd:", 3) != 0 || !wanted[3])
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': listen wants fd:NAME, or fd:3",
                              crew_url_text(url));
    crew_string name = crew_str(wanted + 3);
    if (crew_string_equal(name, crew_str("0"))) /* FastCGI's way */
        return inherit(w, 0, why);
    int count = handed_over();
    crew_status status = CREW_OK;
    for (int i = 0; i < count && status == CREW_OK; i++) {
        char number[12];
        (void)snprintf(number, sizeof number, "%d", FIRST_INHERITED + i);
        if (crew_string_equal(name, name_at(names, i)) || crew_string_equal(name, crew_str(number)))
            status = inherit(w, FIRST_INHERITED + i, why);
    }
    if (status == CREW_OK && !w->listener_count)
        status =
            crew_error_set(why, CREW_BAD_ARGUMENT,
                           "URL '%s': of %d descriptors that are handed over (LISTEN_FDS) none has that name",
                           crew_url_text(url), count);
    return status;
}
