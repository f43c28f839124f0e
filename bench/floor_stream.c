/* The floors of streams. "server" and "client": JSON in lines through a bare epoll loop and the same codec,
 * which answers in its loop. "echo" and "ping": the bytes alone, one message at a time, with blocking reads:
 * what the machine's sockets do.
 *
 * usage: floor_stream server|echo ADDRESS | client|ping ADDRESS CALLS_AT_A_TIME SECONDS
 *        ADDRESS: a port of 127.0.0.1, or a path */
#include "floor.h"

#include "load.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 1 << 20, EVENTS = 64 };

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
};

static int open_socket(const char *text, union address *address, socklen_t *size)
{
    memset(address, 0, sizeof *address);
    if (*text == '/') {
        address->un.sun_family = AF_UNIX;
        (void)snprintf(address->un.sun_path, sizeof address->un.sun_path, "%s", text);
        *size = sizeof address->un;
    } else {
        address->in.sin_family = AF_INET;
        address->in.sin_port = htons((uint16_t)strtoul(text, NULL, 10));
        address->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *size = sizeof address->in;
    }
    int fd = socket(address->any.sa_family, SOCK_STREAM, 0);
    if (fd < 0)
        floor_fail("socket");
    return fd;
}

static void set_up(int fd)
{
    const int yes = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static int listen_at(const char *text)
{
    union address address;
    socklen_t size;
    const int yes = 1;
    int fd = open_socket(text, &address, &size);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, &address.any, size) != 0 || listen(fd, 64) != 0)
        floor_fail("cannot listen");
    puts("serving");
    (void)fflush(stdout);
    return fd;
}

static int connect_to(const char *text)
{
    union address address;
    socklen_t size;
    int fd = open_socket(text, &address, &size);
    if (connect(fd, &address.any, size) != 0)
        floor_fail("cannot connect");
    set_up(fd);
    return fd;
}

static void write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t count = write(fd, bytes, size);
        if (count <= 0)
            floor_fail("write");
        bytes += count;
        size -= (size_t)count;
    }
}

/* What is read and is no whole line yet. */
struct lines {
    size_t size;
    char bytes[ROOM];
};

/* Appends what comes; false: the end. */
static bool fill(int fd, struct lines *lines)
{
    if (lines->size >= ROOM)
        return false;
    ssize_t count = read(fd, lines->bytes + lines->size, ROOM - lines->size);
    lines->size += count > 0 ? (size_t)count : 0;
    return count > 0;
}

/* The next line, from *at on; its size with the newline, 0: there is none. */
static size_t next_line(const struct lines *lines, size_t at)
{
    const char *newline = memchr(lines->bytes + at, '\n', lines->size - at);
    return newline ? (size_t)(newline - lines->bytes) + 1 - at : 0;
}

static void keep_rest(struct lines *lines, size_t at)
{
    memmove(lines->bytes, lines->bytes + at, lines->size - at);
    lines->size -= at;
}

static bool answer_lines(int fd, struct lines *lines)
{
    static char out[ROOM];
    size_t at = 0, size = 0;
    if (!fill(fd, lines))
        return false;
    for (size_t line; (line = next_line(lines, at)); at += line) {
        char *answer = floor_answer(lines->bytes + at, line);
        size += (size_t)snprintf(out + size, ROOM - size, "%s\n", answer);
        free(answer);
    }
    keep_rest(lines, at);
    write_all(fd, out, size);
    return true;
}

static _Noreturn void serve(const char *text)
{
    static struct lines *connections[1024];
    int listener = listen_at(text), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS], event = { .events = EPOLLIN, .data = { .fd = listener } };
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                if (fd < 0 || fd >= 1024) {
                    floor_fail("accept");
                    continue;
                }
                set_up(fd);
                event.data.fd = fd;
                connections[fd] = calloc(1, sizeof **connections);
                (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            } else if (!answer_lines(fd, connections[fd])) {
                free(connections[fd]);
                close(fd);
            }
        }
    }
}

static int call(char **words)
{
    static struct lines lines;
    static char out[ROOM];
    struct floor_client *client = floor_client_new(words[1], words[2]);
    int fd = connect_to(words[0]);
    for (bool more = true; more;) {
        size_t size = 0, at = 0;
        for (char *request; (request = floor_client_request(client)); free(request))
            size += (size_t)snprintf(out + size, ROOM - size, "%s\n", request);
        write_all(fd, out, size);
        if (!fill(fd, &lines))
            floor_fail("read");
        for (size_t line; (line = next_line(&lines, at)); at += line)
            more = floor_client_answer(client, lines.bytes + at, line);
        keep_rest(&lines, at);
    }
    return floor_client_end(client);
}

static _Noreturn void echo(const char *text)
{
    char bytes[4096];
    int listener = listen_at(text);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        set_up(fd);
        for (ssize_t count; (count = read(fd, bytes, sizeof bytes)) > 0;)
            write_all(fd, bytes, (size_t)count);
        close(fd);
    }
}

static int ping(char **words)
{
    static struct latencies latencies;
    char bytes[64] = { 0 };
    int fd = connect_to(words[0]);
    int64_t start = load_now_ns(), end = start + (int64_t)(strtod(words[2], NULL) * 1e9), now = start;
    while (now < end) {
        write_all(fd, bytes, sizeof bytes);
        if (read(fd, bytes, sizeof bytes) <= 0)
            floor_fail("read");
        int64_t after = load_now_ns();
        latencies_add(&latencies, (uint64_t)(after - now) / 1000);
        now = after;
    }
    struct failures none = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    struct load_summary summary = { .failures = &none,
                                    .seconds = (double)(now - start) / 1e9,
                                    .latencies = &latencies };
    load_print(&summary, true, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "server") == 0)
        serve(argv[2]);
    if (argc == 3 && strcmp(argv[1], "echo") == 0)
        echo(argv[2]);
    if (argc == 5 && strcmp(argv[1], "client") == 0)
        return call(argv + 2);
    if (argc == 5 && strcmp(argv[1], "ping") == 0)
        return ping(argv + 2);
    floor_fail("usage: floor_stream server|echo ADDRESS | client|ping ADDRESS CALLS_AT_A_TIME SECONDS");
}
