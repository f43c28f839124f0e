/* The floors of HTTP: "server" answers POSTs from a bare epoll loop with http_parser and jansson; "client"
 * calls by libcurl's multi interface, a connection a call.
 *
 * usage: floor_http server PORT | client URL CALLS_AT_A_TIME SECONDS */
#include "floor.h"

#include <curl/curl.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 64 << 10, BODY_MOST = 4096, EVENTS = 64, CONNECTIONS = 4096 };

/* ---- the server ---- */

struct connection {
    http_parser parser;
    char body[BODY_MOST];
    size_t size;
    char *out; /* of this reading */
    size_t out_size;
};

static char out[ROOM * 4];

static int on_body(http_parser *parser, const char *bytes, size_t size)
{
    struct connection *c = parser->data;
    if (size > BODY_MOST - c->size)
        floor_fail("a body that is too large");
    memcpy(c->body + c->size, bytes, size);
    c->size += size;
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct connection *c = parser->data;
    char *answer = floor_answer(c->body, c->size);
    c->out_size += (size_t)snprintf(c->out + c->out_size, sizeof out - c->out_size,
                                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                    "Content-Length: %zu\r\n\r\n%s",
                                    strlen(answer), answer);
    free(answer);
    c->size = 0;
    return 0;
}

static const http_parser_settings settings = { .on_body = on_body, .on_message_complete = on_complete };

static bool answer_all(int fd, struct connection *c)
{
    static char room[ROOM];
    ssize_t count = read(fd, room, sizeof room);
    if (count <= 0)
        return false;
    c->out = out;
    c->out_size = 0;
    if (http_parser_execute(&c->parser, &settings, room, (size_t)count) != (size_t)count)
        return false;
    return !c->out_size || write(fd, out, c->out_size) == (ssize_t)c->out_size;
}

static int listen_at(const char *port)
{
    const int yes = 1;
    const struct sockaddr_in address = { .sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                         .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0)
        floor_fail("cannot listen");
    puts("serving");
    (void)fflush(stdout);
    return fd;
}

static _Noreturn void serve(const char *port)
{
    static struct connection *connections[CONNECTIONS];
    const int yes = 1;
    int listener = listen_at(port), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS], event = { .events = EPOLLIN, .data = { .fd = listener } };
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                if (fd < 0 || fd >= CONNECTIONS) {
                    floor_fail("accept");
                    continue;
                }
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                event.data.fd = fd;
                connections[fd] = calloc(1, sizeof **connections);
                http_parser_init(&connections[fd]->parser, HTTP_REQUEST);
                connections[fd]->parser.data = connections[fd];
                (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            } else if (!answer_all(fd, connections[fd])) {
                free(connections[fd]);
                close(fd);
            }
        }
    }
}

/* ---- the client ---- */

struct transfer {
    CURL *easy;
    char *request;
    char answer[BODY_MOST];
    size_t size;
};

static size_t take(char *bytes, size_t size, size_t count, void *mine)
{
    struct transfer *t = mine;
    if (size * count > BODY_MOST - t->size)
        return 0;
    memcpy(t->answer + t->size, bytes, size * count);
    t->size += size * count;
    return size * count;
}

static void start(CURLM *multi, struct transfer *t)
{
    t->size = 0;
    (void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->request);
    (void)curl_multi_add_handle(multi, t->easy);
}

static int call(char **words)
{
    struct floor_client *client = floor_client_new(words[1], words[2]);
    unsigned lanes = floor_client_lanes(client);
    struct transfer *transfers = calloc(lanes, sizeof *transfers);
    CURLM *multi = curl_multi_init();
    struct curl_slist *fields = curl_slist_append(NULL, "Content-Type: application/json");
    bool more = true;
    (void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)lanes);
    for (unsigned i = 0; i < lanes; i++) {
        struct transfer *t = &transfers[i];
        t->easy = curl_easy_init();
        (void)curl_easy_setopt(t->easy, CURLOPT_URL, words[0]);
        (void)curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, fields);
        (void)curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take);
        (void)curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
        (void)curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
        t->request = floor_client_request(client);
        start(multi, t);
    }
    while (more) {
        int running, left;
        (void)curl_multi_perform(multi, &running);
        for (CURLMsg *m; (m = curl_multi_info_read(multi, &left));) {
            struct transfer *t;
            (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
            if (m->msg != CURLMSG_DONE || m->data.result != CURLE_OK)
                floor_fail(curl_easy_strerror(m->data.result));
            (void)curl_multi_remove_handle(multi, t->easy);
            free(t->request);
            more = floor_client_answer(client, t->answer, t->size);
            t->request = floor_client_request(client);
            if (t->request)
                start(multi, t);
        }
        if (more)
            (void)curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    return floor_client_end(client);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    if (argc == 3 && strcmp(argv[1], "server") == 0)
        serve(argv[2]);
    if (argc == 5 && strcmp(argv[1], "client") == 0)
        return call(argv + 2);
    floor_fail("usage: floor_http server PORT | client URL CALLS_AT_A_TIME SECONDS");
}
