/* The tables of all transports. */
#ifndef TRANSPORT_TRANSPORTS_H
#define TRANSPORT_TRANSPORTS_H

#include <rpcrew/impl/transport.h>

extern const crew_transport crew_amqp;
extern const crew_transport crew_amqps;
extern const crew_transport crew_back;
extern const crew_transport crew_callback;
extern const crew_transport crew_cgi;
extern const crew_transport crew_exec;
extern const crew_transport crew_fcgi;
extern const crew_transport crew_fcgi_unix;
extern const crew_transport crew_http;
extern const crew_transport crew_https;
extern const crew_transport crew_inproc;
extern const crew_transport crew_stdio;
extern const crew_transport crew_tcp;
extern const crew_transport crew_tls;
extern const crew_transport crew_unix;
extern const crew_transport crew_ws;
extern const crew_transport crew_wss;
extern const crew_transport crew_zmq_inproc;
extern const crew_transport crew_zmq_ipc;
extern const crew_transport crew_zmq_tcp;

#endif
