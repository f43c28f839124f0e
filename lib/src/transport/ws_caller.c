/* Opening asks the service to go on as WebSocket, and then the connection is a stream like others. */
#include "transport/ws_caller.h"

#include "transport/http_head.h"
#include "transport/proxy.h"
#include "transport/ws_session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_MOST = 16 << 10 };

/* Waits for the socket, while somebody wants it; false: it has taken too long. */
static bool await(int fd, short events, int64_t until_ms)
{
    struct pollfd item = { .fd = fd, .events = events };
    int64_t left = until_ms - crew_now_ms();
    return left > 0 && poll(&item, 1, (int)left) > 0;
}

static crew_status failed(const crew_transport_config *config, const char *what, crew_error *why)
{
    return crew_error_set(why, CREW_NO_SERVICE, "%s: %s", crew_url_text(config->url), what);
}

/* A connection that shakes hands. */
struct hand {
    int fd;
    struct tls *tls; /* NULL: none */
    int64_t until_ms;
};

static crew_status send_all(const struct hand *h, crew_string bytes, const crew_transport_config *config,
                            crew_error *why)
{
    while (bytes.size || (h->tls && tls_sealed(h->tls))) {
        ssize_t count = h->tls ? tls_write(h->tls, bytes.data, bytes.size)
                               : send(h->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN && errno != EINTR)
            return failed(config, strerror(errno), why);
        if (count < 0 && !await(h->fd, POLLOUT, h->until_ms))
            return failed(config, "it took too long", why);
        if (count > 0)
            bytes = (crew_string){ bytes.data + count, bytes.size - (size_t)count };
    }
    return CREW_OK;
}

/* Reads the head of the answer, and no byte behind it: the rest is not ours. */
static crew_status read_answer(const struct hand *h, struct http_message *m,
                               const crew_transport_config *config, crew_error *why)
{
    enum http_event event = HTTP_MORE;
    while (event == HTTP_MORE) {
        char byte;
        size_t taken;
        ssize_t count = h->tls ? tls_read(h->tls, &byte, 1) : recv(h->fd, &byte, 1, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!await(h->fd, POLLIN, h->until_ms))
                return failed(config, "it took too long", why);
            continue;
        }
        if (count <= 0)
            return failed(config, count ? strerror(errno) : "the other end closed the connection", why);
        event = http_read(m, (crew_string){ &byte, 1 }, false, &taken);
    }
    return event == HTTP_BAD ? failed(config, m->why, why) : CREW_OK;
}

static crew_status check_answer(const struct http_message *m, const char *key,
                                const crew_transport_config *config, crew_error *why)
{
    char accept[WS_ACCEPT_SIZE + 1], words[160];
    const char *upgrade = http_field(m, "upgrade"), *accepted = http_field(m, "sec-websocket-accept");
    ws_accept_key(key, accept);
    (void)snprintf(words, sizeof words, "HTTP %u %.100s: it does not go on as WebSocket", m->status,
                   http_target(m).data);
    if (m->status != 101)
        return failed(config, words, why);
    if (!upgrade || strcasecmp(upgrade, "websocket") != 0 || !accepted || strcmp(accepted, accept) != 0 ||
        http_field(m, "sec-websocket-extensions"))
        return failed(config, "its answer is none of WebSocket's", why);
    return CREW_OK;
}

/* ours: whether it is a worker of ours that answers, as it says. */
static crew_status shake_hands(const struct hand *h, const crew_transport_config *config, bool *ours,
                               crew_error *why)
{
    char key[WS_KEY_SIZE + 1];
    crew_buffer request = { 0 };
    struct http_message answer;
    if (!ws_make_key(key))
        return crew_error_set(why, CREW_SYSTEM, "getrandom: %s", strerror(errno));
    crew_buffer_text(&request, "GET");
    http_write_head(config->url, config->host, &request);
    crew_status status = http_write_credentials(config->url, &request, why);
    crew_buffer_printf(&request,
                       "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: %s\r\n\r\n",
                       key);
    if (status == CREW_OK && request.failed)
        status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (status == CREW_OK)
        status = send_all(h, crew_buffer_string(&request), config, why);
    http_begin(&answer, HTTP_RESPONSE, ANSWER_MOST, 0);
    if (status == CREW_OK)
        status = read_answer(h, &answer, config, why);
    if (status == CREW_OK)
        status = check_answer(&answer, key, config, why);
    *ours = status == CREW_OK && http_field(&answer, "rpcrew");
    http_end(&answer);
    crew_buffer_fini(&request);
    return status;
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_caller *c = state;
    struct hand h = { .until_ms = crew_now_ms() + config->connect_timeout_ms };
    unsigned port = http_port(config->url, config->host);
    h.fd = http_is_secure(config->url) ? tls_dial(config, port, TLS_ALPN_HTTP, &h.tls, why)
                                       : proxy_dial(config, port, why);
    if (h.fd < 0)
        return why->status;
    bool ours = false;
    crew_status status = shake_hands(&h, config, &ours, why);
    if (status != CREW_OK) {
        (void)crew_opening_waits_for(config->opening, -1);
        tls_free(h.tls);
        close(h.fd);
        return status;
    }
    status = stream_caller_open(c, config, h.fd, h.fd, h.tls, why);
    c->is_ours = ours;
    if (status != CREW_OK || ws_begin(c->stream, true) == CREW_OK)
        return status;
    stream_caller_close(c, 0, NULL);
    return crew_error_set(why, CREW_NO_MEMORY, "no memory");
}

const struct crew_transport_ops ws_caller_ops = STREAM_CALLER_OPS(caller_open);
