/* zmq+tcp://host:port, zmq+ipc:///path, zmq+inproc://name: ZeroMQ, as the guide has it. The worker is in
 * zmq_worker.c, the caller in zmq_caller.c. */
#include "transport/transports.h"
#include "transport/zmq_end.h"

/* Callers balance over several hosts; a worker is at one. */
static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    char address[ZMQ_END_ADDRESS_MOST];
    if (server && crew_url_host_count(url) != 1)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants one host",
                              crew_url_text(url));
    crew_status status = CREW_OK;
    bool binds = crew_url_option_is(url, "mode", "bind"),
         connects = crew_url_option_is(url, "mode", "connect");
    if (crew_url_option_is(url, "peers", "known") &&
        (!(server ? connects : binds) || strcmp(crew_url_scheme(url), "zmq+inproc") == 0))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': peers=known wants mode=%s, over tcp or ipc",
                              crew_url_text(url), server ? "connect" : "bind");
    for (size_t i = 0; i < crew_url_host_count(url) && status == CREW_OK; i++)
        status = zmq_end_address(url, i, address, sizeof address, why);
    return status;
}

static const crew_url_option_spec options[] = {
    { "mode", "bind|connect", 0, 0, "worker: bind, caller: connect, unless it says otherwise" },
    { "settle", "none|empty", 0, 0, "worker: answers notifications with an empty body, for REQ callers" },
    { "headers", "yes|no", 0, 0,
      "caller: a frame with its deadline before the body; else to workers of ours" },
    { "heartbeat", NULL, 0, 3600,
      "seconds; caller: of ZMTP's heartbeats, 0: TCP's keepalive does; worker: of that" },
    { "peers", "any|known", 0, 0, "bound caller, connecting workers: they greet, and it tells them apart" },
    { "send_timeout_ms", NULL, 1, 3600000, "worker: how long answers wait for a peer that does not read" },
    { "send_bytes", NULL, 1, 1 << 30, "worker: bytes of answers that wait for a peer" },
    { "send_queue", NULL, 1, 1 << 20, "worker: answers that libzmq queues for a peer" },
    { "receive_queue", NULL, 1, 1 << 20, "worker: requests that libzmq queues of a peer" },
    { NULL, NULL, 0, 0, NULL },
};

const crew_transport crew_zmq_tcp = { .scheme = "zmq+tcp",
                                      .options = options,
                                      .hosts_are_peers = true,
                                      .check = check,
                                      .server = &crew_zmq_worker_ops,
                                      .client = &crew_zmq_caller_ops };
const crew_transport crew_zmq_ipc = { .scheme = "zmq+ipc",
                                      .options = options,
                                      .hosts_are_peers = true,
                                      .check = check,
                                      .server = &crew_zmq_worker_ops,
                                      .client = &crew_zmq_caller_ops };
const crew_transport crew_zmq_inproc = { .scheme = "zmq+inproc",
                                         .options = options,
                                         .hosts_are_peers = true,
                                         .check = check,
                                         .server = &crew_zmq_worker_ops,
                                         .client = &crew_zmq_caller_ops };
