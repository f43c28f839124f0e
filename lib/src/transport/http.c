/* http://host:port/path and ws://host:port/path, and https and wss: JSON-RPC and MessagePack-RPC by POST and
 * over WebSocket. A worker serves both at one port, whichever its URL names. */
#include "transport/dial.h"
#include "transport/http_caller.h"
#include "transport/http_head.h"
#include "transport/http_session.h"
#include "transport/listen.h"
#include "transport/stream_worker.h"
#include "transport/transports.h"
#include "transport/ws_caller.h"

enum { IDLE_TIMEOUT_MS = 30000 };

struct worker {
    struct stream_worker streams; /* first: its operations are the worker's */
    struct http_shared shared;
};

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    stream_worker_close(&w->streams, linger_ms, unsent);
    http_shared_fini(&w->shared);
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    crew_status status = stream_worker_open(&w->streams, config, why);
    w->shared = (struct http_shared){ .config = config };
    http_rules_read(&w->shared.rules, config->url, config->limits.message_bytes);
    w->streams.set.session = &stream_http;
    w->streams.set.shared = &w->shared;
    w->streams.default_port = http_port(config->url, 0);
    w->streams.set.idle_ms = (unsigned)crew_url_number(config->url, "idle_timeout_ms", IDLE_TIMEOUT_MS);
    if (status != CREW_OK)
        return status;
    if (http_is_secure(config->url))
        status = (w->streams.set.tls = tls_worker_new(config->url, why)) ? CREW_OK : why->status;
    if (status == CREW_OK)
        status =
            listen_inherits(config->url) ? listen_inherited(&w->streams, why) : listen_tcp(&w->streams, why);
    if (status != CREW_OK)
        worker_close(w, 0, NULL);
    return status;
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    bool inherits = server && listen_inherits(url);
    if (server && crew_url_host_count(url) != 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants one host",
                              crew_url_text(url));
    if (server && crew_url_user(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "URL '%s': a worker has no users: a wrapper can look at "
                              "the header authorization",
                              crew_url_text(url));
    for (size_t i = 0; i < crew_url_host_count(url) && !inherits; i++)
        if (!*crew_url_host(url, i))
            return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': wants a host%s", crew_url_text(url),
                                  server ? ", '*' for all" : "");
    crew_status status = server ? CREW_OK : proxy_check(url, why);
    return status == CREW_OK && http_is_secure(url) ? tls_check(url, server, why) : status;
}

#define OPTIONS                                                                                            \
    STREAM_WORKER_OPTIONS, HTTP_RULES_OPTIONS, HTTP_CALLER_OPTIONS, STREAM_CALLER_OPTIONS, LISTEN_OPTIONS, \
        KEEPALIVE_OPTION,                                                                                  \
        { "idle_timeout_ms", NULL, 1, 86400000,                                                            \
          "worker: how long nothing may be said over a connection; a WebSocket is asked by a ping" }

static const crew_url_option_spec options[] = {
    OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const crew_url_option_spec secure_options[] = {
    OPTIONS,
    TLS_OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops =
    STREAM_WORKER_OPS(struct worker, worker_open, worker_close);

#define HTTP_TRANSPORT(name, caller, specs) \
    {                                       \
        .scheme = (name),                   \
        .options = (specs),                 \
        .carries_types = true,              \
        .hosts_are_peers = true,            \
        .check = check,                     \
        .server = &worker_ops,              \
        .client = &(caller),                \
    }

const crew_transport crew_http = HTTP_TRANSPORT("http", http_caller_ops, options);
const crew_transport crew_https = HTTP_TRANSPORT("https", http_caller_ops, secure_options);
const crew_transport crew_ws = HTTP_TRANSPORT("ws", ws_caller_ops, options);
const crew_transport crew_wss = HTTP_TRANSPORT("wss", ws_caller_ops, secure_options);
