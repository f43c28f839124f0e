/* Where a caller is to connect to. libzmq takes the first address of a name, whoever listens there, and would
 * try for ever, without a word of why. */
#include "transport/dial.h"
#include "transport/path.h"
#include "transport/zmq_end.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

void zmq_end_use_address(struct zmq_end *end, const struct sockaddr *address, socklen_t size)
{
    char number[INET6_ADDRSTRLEN];
    unsigned port = crew_url_port(end->config->url, end->config->host);
    if (getnameinfo(address, size, number, sizeof number, NULL, 0, NI_NUMERICHOST) != 0)
        return;
    bool v6 = address->sa_family == AF_INET6;
    (void)snprintf(end->address, sizeof end->address, v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", number, port);
    zmq_end_set(end->socket, ZMQ_IPV6, v6);
}

/* Of several addresses the one that answers is found by asking them. */
static crew_status ask_addresses(struct zmq_end *end, const char *host, crew_error *why)
{
    const crew_transport_config *config = end->config;
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    socklen_t size = sizeof address;
    int fd = dial_tcp(host, crew_url_port(config->url, config->host), config->connect_timeout_ms,
                      config->opening, why);
    if (fd < 0)
        return why->status;
    if (getpeername(fd, (struct sockaddr *)&address, &size) == 0)
        zmq_end_use_address(end, (const struct sockaddr *)&address, size);
    (void)crew_opening_waits_for(config->opening, -1);
    close(fd);
    return CREW_OK;
}

crew_status zmq_end_reach(struct zmq_end *end, crew_error *why)
{
    const char *host = crew_url_host(end->config->url, end->config->host);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *addresses = NULL;
    if (end->inproc)
        return CREW_OK;
    if (zmq_end_path(end))
        return path_is_there(zmq_end_path(end), end->address, why);
    if (getaddrinfo(host, NULL, &hints, &addresses) == 0) { /* it is a number */
        freeaddrinfo(addresses);
        return CREW_OK;
    }
    hints.ai_flags = 0;
    int error = getaddrinfo(host, NULL, &hints, &addresses);
    if (error)
        return crew_error_set(why, CREW_NO_SERVICE, "connecting to %s: %s", end->address,
                              error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
    bool several = addresses->ai_next != NULL;
    if (!several)
        zmq_end_use_address(end, addresses->ai_addr, addresses->ai_addrlen);
    freeaddrinfo(addresses);
    return several ? ask_addresses(end, host, why) : CREW_OK;
}
