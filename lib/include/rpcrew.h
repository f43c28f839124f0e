/* rpcrew: RPC workers in C. The map of the library.
 *
 * A transport moves messages; a protocol turns messages into calls and replies into messages; a dispatcher
 * finds the method; the server drives them, in that order, and the client drives them backwards.
 *
 *   service.h     a table of methods, and what a handler does with a call    <- a worker begins here
 *   worker.h      a whole worker program in one call
 *   dispatcher.h  many services under prefixes; bytes in, bytes out
 *   server.h      endpoints and the pool of threads
 *   observe.h     what a server or a client does, told while it does it
 *   metrics.h     counts of calls, for Prometheus
 *   client.h      calling a service by URL                                   <- a caller begins here
 *   value.h       params and results; pack and unpack
 *   fields.h      structs from and to objects, by a table
 *   json.h        values from and to JSON text
 *   msgpack.h     values from and to MessagePack
 *   url.h         endpoint URLs
 *   protocol.h    the protocols alone: calls and replies to bytes and back
 *   page.h        a page for people, to look at a service and call it
 *   log.h         log lines and the trace of messages
 *   status.h      what functions return, and why something failed
 *   base.h        strings, bytes, limits
 *   jansson.h     values from and to jansson's, which this header leaves out
 *
 * impl/transport.h and impl/protocol.h are for who adds a transport or a protocol.
 *
 * Ownership is in the type: const T * is borrowed; T **out is the caller's on success and untouched on
 * failure; every free takes NULL. Functions that can fail return crew_status. docs/ has the guides. */
#ifndef RPCREW_H
#define RPCREW_H

#include <rpcrew/base.h>
#include <rpcrew/client.h>
#include <rpcrew/dispatcher.h>
#include <rpcrew/fields.h>
#include <rpcrew/json.h>
#include <rpcrew/log.h>
#include <rpcrew/metrics.h>
#include <rpcrew/msgpack.h>
#include <rpcrew/observe.h>
#include <rpcrew/page.h>
#include <rpcrew/protocol.h>
#include <rpcrew/server.h>
#include <rpcrew/service.h>
#include <rpcrew/status.h>
#include <rpcrew/url.h>
#include <rpcrew/value.h>
#include <rpcrew/worker.h>

#endif
