/* tcp://host:port and tls://host:port: JSON-RPC and MessagePack-RPC over plain TCP, and over TLS. */
#include "transport/dial.h"
#include "transport/listen.h"
#include "transport/stream_caller.h"
#include "transport/stream_worker.h"
#include "transport/transports.h"

static bool is_secure(const crew_url *url)
{
    return strcmp(crew_url_scheme(url), "tls") == 0;
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_worker *w = state;
    crew_status status = stream_worker_open(w, config, why);
    if (status == CREW_OK && is_secure(config->url))
        status = (w->set.tls = tls_worker_new(config->url, why)) ? CREW_OK : why->status;
    if (status == CREW_OK)
        status = listen_inherits(config->url) ? listen_inherited(w, why) : listen_tcp(w, why);
    if (status != CREW_OK)
        stream_worker_close(w, 0, NULL);
    return status;
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_caller *c = state;
    struct tls *tls = NULL;
    unsigned port = crew_url_port(config->url, config->host);
    int fd = is_secure(config->url) ? tls_dial(config, port, NULL, &tls, why)
                                    : dial_tcp(crew_url_host(config->url, config->host), port,
                                               config->connect_timeout_ms, config->opening, why);
    return fd < 0 ? why->status : stream_caller_open(c, config, fd, fd, tls, why);
}

/* Callers balance over several hosts; a worker is at one. */
static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    bool inherits = server && listen_inherits(url);
    if (server && crew_url_host_count(url) != 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants one host",
                              crew_url_text(url));
    if (crew_url_user(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s has no users", crew_url_text(url),
                              crew_url_scheme(url));
    if (*crew_url_path(url) && strcmp(crew_url_path(url), "/") != 0)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s wants no path", crew_url_text(url),
                              crew_url_scheme(url));
    for (size_t i = 0; i < crew_url_host_count(url) && !inherits; i++)
        if (!*crew_url_host(url, i) || !crew_url_port(url, i))
            return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s wants host:port%s",
                                  crew_url_text(url), crew_url_scheme(url),
                                  server ? ", the host '*' for all" : "");
    return is_secure(url) ? tls_check(url, server, why) : CREW_OK;
}

#define OPTIONS \
    STREAM_FRAMING_OPTION, STREAM_WORKER_OPTIONS, STREAM_CALLER_OPTIONS, LISTEN_OPTIONS, KEEPALIVE_OPTION

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
    STREAM_WORKER_OPS(struct stream_worker, worker_open, stream_worker_close);
static const struct crew_transport_ops caller_ops = STREAM_CALLER_OPS(caller_open);

#define TCP_TRANSPORT(name, specs)         \
    {                                      \
        .scheme = (name),                  \
        .options = (specs),                \
        .hosts_are_peers = true,           \
        .carries = stream_framing_carries, \
        .check = check,                    \
        .server = &worker_ops,             \
        .client = &caller_ops,             \
    }

const crew_transport crew_tcp = TCP_TRANSPORT("tcp", options);
const crew_transport crew_tls = TCP_TRANSPORT("tls", secure_options);
