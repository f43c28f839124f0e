/* tcp://host:port: JSON-RPC and MessagePack-RPC over plain TCP. */
#include "transport/dial.h"
#include "transport/listen.h"
#include "transport/stream_caller.h"
#include "transport/stream_worker.h"
#include "transport/transports.h"

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct stream_worker *w = state;
    crew_status status = stream_worker_open(w, config, why);
    if (status == CREW_OK)
        status = listen_inherits(config->url) ? listen_inherited(w, why) : listen_tcp(w, why);
    if (status != CREW_OK)
        stream_worker_close(w, 0, NULL);
    return status;
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    const char *host = crew_url_host(config->url, config->host);
    int fd = dial_tcp(host, crew_url_port(config->url, config->host), config->connect_timeout_ms,
                      config->opening, why);
    return fd < 0 ? why->status : stream_caller_open(state, config, fd, fd, why);
}

/* Callers balance over several hosts; a worker is at one. */
static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    bool inherits = server && listen_inherits(url);
    if (server && crew_url_host_count(url) != 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants one host",
                              crew_url_text(url));
    if (crew_url_user(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': tcp has no users", crew_url_text(url));
    if (*crew_url_path(url) && strcmp(crew_url_path(url), "/") != 0)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': tcp wants no path", crew_url_text(url));
    for (size_t i = 0; i < crew_url_host_count(url) && !inherits; i++)
        if (!*crew_url_host(url, i) || !crew_url_port(url, i))
            return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': tcp wants host:port%s",
                                  crew_url_text(url), server ? ", the host '*' for all" : "");
    return CREW_OK;
}

static const crew_url_option_spec options[] = {
    STREAM_FRAMING_OPTION,
    STREAM_WORKER_OPTIONS,
    LISTEN_OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops = STREAM_WORKER_OPS(worker_open);
static const struct crew_transport_ops caller_ops = STREAM_CALLER_OPS(caller_open);

const crew_transport crew_tcp = { .scheme = "tcp",
                                  .options = options,
                                  .hosts_are_peers = true,
                                  .carries = stream_framing_carries,
                                  .check = check,
                                  .server = &worker_ops,
                                  .client = &caller_ops };
