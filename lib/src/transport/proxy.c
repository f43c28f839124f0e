#include "transport/proxy.h"

#include "core/base64.h"
#include "transport/dial.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_MOST = 16 << 10, DEFAULT_PORT = 3128 };

bool proxy_is_wanted(const crew_url *url)
{
    return crew_url_option(url, "proxy") != NULL;
}

crew_status proxy_check(const crew_url *url, crew_error *why)
{
    const char *text = crew_url_option(url, "proxy");
    crew_url *proxy = NULL;
    bool good = !text || (crew_url_parse(text, &proxy, NULL) == CREW_OK &&
                          strcmp(crew_url_scheme(proxy), "http") == 0 && crew_url_host_count(proxy) == 1 &&
                          *crew_url_host(proxy, 0));
    crew_url_free(proxy);
    return good ? CREW_OK
                : crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': proxy wants http://host:port, escaped",
                                 crew_url_text(url));
}

static void write_request(struct proxy *p, const crew_url *url, size_t host, unsigned port)
{
    const char *name = crew_url_host(url, host);
    const char *opens = strchr(name, ':') ? "[" : "", *closes = *opens ? "]" : "";
    crew_url *proxy = NULL;
    crew_buffer_printf(&p->request, "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n", opens, name, closes,
                       port, opens, name, closes, port);
    if (crew_url_parse(crew_url_option(url, "proxy"), &proxy, NULL) == CREW_OK && crew_url_user(proxy)) {
        crew_buffer pair = { 0 };
        const char *password = crew_url_password(proxy);
        crew_buffer_printf(&pair, "%s:%s", crew_url_user(proxy), password ? password : "");
        crew_buffer_text(&p->request, "Proxy-Authorization: Basic ");
        crew_base64_encode(crew_buffer_string(&pair), &p->request);
        crew_buffer_text(&p->request, "\r\n");
        crew_buffer_fini(&pair);
    }
    crew_url_free(proxy);
    crew_buffer_text(&p->request, "\r\n");
    http_begin(&p->answer, HTTP_RESPONSE, ANSWER_MOST, 0);
    p->asked = true;
}

static int fail(struct proxy *p, const char *what)
{
    (void)snprintf(p->why, sizeof p->why, "the proxy: %.120s", what);
    return -1;
}

/* The head of its answer, and no byte behind it. */
static int read_answer(struct proxy *p, int fd)
{
    for (;;) {
        char byte, words[120];
        size_t taken;
        ssize_t count = recv(fd, &byte, 1, MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (count <= 0)
            return fail(p, count ? strerror(errno) : "it closed the connection");
        enum http_event event = http_read(&p->answer, (crew_string){ &byte, 1 }, false, &taken);
        if (event == HTTP_BAD)
            return fail(p, p->answer.why);
        if (event != HTTP_HEAD_READ)
            continue;
        if (p->answer.status / 100 == 1 && p->answer.status != 101) { /* it says more */
            http_end(&p->answer);
            http_begin(&p->answer, HTTP_RESPONSE, ANSWER_MOST, 0);
            (void)http_read(&p->answer, (crew_string){ "", 0 }, false, &taken);
            continue;
        }
        (void)snprintf(words, sizeof words, "HTTP %u %.90s", p->answer.status, http_target(&p->answer).data);
        return p->answer.status / 100 == 2 ? 1 : fail(p, words);
    }
}

int proxy_greet(struct proxy *p, int fd, const crew_url *url, size_t host, unsigned port)
{
    if (!p->asked)
        write_request(p, url, host, port);
    if (p->request.failed)
        return fail(p, "no memory");
    while (p->written < p->request.size) {
        ssize_t count =
            send(fd, p->request.data + p->written, p->request.size - p->written, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : fail(p, strerror(errno));
        p->written += (size_t)count;
    }
    return read_answer(p, fd);
}

void proxy_end(struct proxy *p)
{
    crew_buffer_fini(&p->request);
    http_end(&p->answer);
}

/* Waits for the way to be open. */
static crew_status pass(int fd, const crew_transport_config *config, unsigned port, int64_t until_ms,
                        crew_error *why)
{
    struct proxy p = { .asked = false };
    crew_status status = CREW_OK;
    for (int how; status == CREW_OK && (how = proxy_greet(&p, fd, config->url, config->host, port)) != 1;) {
        struct pollfd item = { .fd = fd, .events = p.written < p.request.size ? POLLOUT : POLLIN };
        int64_t left = until_ms - crew_now_ms();
        if (how < 0)
            status = crew_error_set(why, CREW_NO_SERVICE, "%s: %s", crew_url_text(config->url), p.why);
        else if (left <= 0 || poll(&item, 1, (int)left) == 0)
            status = crew_error_set(why, CREW_NO_SERVICE, "%s: the proxy took too long",
                                    crew_url_text(config->url));
    }
    proxy_end(&p);
    return status;
}

int proxy_dial(const crew_transport_config *config, unsigned port, crew_error *why)
{
    int64_t until_ms = crew_now_ms() + config->connect_timeout_ms;
    crew_url *proxy = NULL;
    if (!proxy_is_wanted(config->url))
        return dial_tcp(crew_url_host(config->url, config->host), port, config->connect_timeout_ms,
                        config->opening, why);
    if (crew_url_parse(crew_url_option(config->url, "proxy"), &proxy, why) != CREW_OK)
        return -1;
    unsigned proxy_port = crew_url_port(proxy, 0);
    int fd = dial_tcp(crew_url_host(proxy, 0), proxy_port ? proxy_port : DEFAULT_PORT,
                      config->connect_timeout_ms, config->opening, why);
    crew_url_free(proxy);
    if (fd < 0 || pass(fd, config, port, until_ms, why) == CREW_OK)
        return fd;
    (void)crew_opening_waits_for(config->opening, -1);
    close(fd);
    return -1;
}
