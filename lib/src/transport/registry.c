/* The transports, by URL scheme. */
#include "transport/transports.h"

/* One line a transport. */
static const crew_transport *const transports[] = {
    &crew_amqp,      &crew_amqps, &crew_back,  &crew_callback,   &crew_cgi,     &crew_exec,    &crew_fcgi,
    &crew_fcgi_unix, &crew_http,  &crew_https, &crew_inproc,     &crew_stdio,   &crew_tcp,     &crew_tls,
    &crew_unix,      &crew_ws,    &crew_wss,   &crew_zmq_inproc, &crew_zmq_ipc, &crew_zmq_tcp, NULL,
};

const crew_transport *crew_transport_at(size_t index)
{
    size_t i = 0;
    while (i < index && transports[i])
        i++;
    return transports[i];
}

const crew_transport *crew_transport_find(const char *scheme)
{
    for (size_t i = 0; transports[i]; i++)
        if (strcmp(transports[i]->scheme, scheme) == 0)
            return transports[i];
    return NULL;
}
