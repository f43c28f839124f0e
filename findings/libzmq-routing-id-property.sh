#!/bin/sh
# libzmq 4.3.4 (Debian 12's libzmq5) does not know the message property that its manual names.
#
# zmq_msg_gets(3) lists the properties Socket-Type and Routing-Id, and calls Identity a deprecated alias of the
# latter. With a ROUTER that has a routing id of its own, the other end reads that id as Identity; Routing-Id is
# EINVAL, at DEALER, REQ and ROUTER alike, while Socket-Type beside it is there. A program that follows the manual
# takes every peer for one without an id.
#
# For rpcrew: callers know a worker of ours by its routing id, and ask for Identity.
#
# Source: doc/zmq_msg_gets.txt, and src/mechanism.cpp, which keeps properties under the names of ZMTP's READY
# command (https://github.com/zeromq/libzmq).
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=4.3.4-6
for package in libzmq5 libzmq3-dev; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_${version}_*.deb .
done
lib=$(dirname "$(find . -name 'libzmq.so.5')")
zcat usr/share/man/man3/zmq_msg_gets.3.gz | sed 's/\\f[A-Z]//g; s/\\//g' | grep -o 'Note: .*alias for.*'

cat > peers.c <<'C'
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

static int at(void *context, void *server, const char *address, int type, const char *name)
{
    void *peer = zmq_socket(context, type);
    zmq_msg_t id, part;
    zmq_msg_init(&id);
    zmq_msg_init(&part);
    if (type == ZMQ_ROUTER)
        zmq_setsockopt(peer, ZMQ_CONNECT_ROUTING_ID, "peer", 4);
    zmq_connect(peer, address);
    if (type == ZMQ_ROUTER) { /* it can send once it is connected */
        int mandatory = 1;
        zmq_setsockopt(peer, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof mandatory);
        while (zmq_send(peer, "peer", 4, ZMQ_SNDMORE) < 0)
            continue;
    }
    if (type != ZMQ_REQ)
        zmq_send(peer, "", 0, ZMQ_SNDMORE);
    zmq_send(peer, "hello", 5, 0);
    zmq_msg_recv(&id, server, 0);
    while (zmq_msg_recv(&part, server, 0) >= 0 && zmq_msg_more(&part))
        continue;
    zmq_msg_send(&id, server, ZMQ_SNDMORE);
    zmq_send(server, "", 0, ZMQ_SNDMORE);
    zmq_send(server, "hello", 5, 0);
    while (zmq_msg_recv(&part, peer, 0) >= 0 && zmq_msg_more(&part))
        continue;
    errno = 0;
    const char *named = zmq_msg_gets(&part, "Routing-Id");
    int unknown = !named && errno == EINVAL;
    const char *old = zmq_msg_gets(&part, "Identity"), *kind = zmq_msg_gets(&part, "Socket-Type");
    printf("at a %s: Routing-Id %s, Identity %s, Socket-Type %s\n", name, named ? named : unknown ? "EINVAL" : "none",
           old ? old : "none", kind ? kind : "none");
    zmq_msg_close(&part);
    zmq_close(peer);
    return unknown && old && strcmp(old, "server-7") == 0 && kind && strcmp(kind, "ROUTER") == 0;
}

int main(void)
{
    int major, minor, patch;
    char address[100];
    size_t size = sizeof address;
    void *context = zmq_ctx_new(), *server = zmq_socket(context, ZMQ_ROUTER);
    zmq_version(&major, &minor, &patch);
    printf("libzmq %d.%d.%d\n", major, minor, patch);
    zmq_setsockopt(server, ZMQ_ROUTING_ID, "server-7", 8);
    zmq_bind(server, "tcp://127.0.0.1:*");
    zmq_getsockopt(server, ZMQ_LAST_ENDPOINT, address, &size);
    int good = at(context, server, address, ZMQ_DEALER, "DEALER");
    good = at(context, server, address, ZMQ_REQ, "REQ") && good;
    good = at(context, server, address, ZMQ_ROUTER, "ROUTER") && good;
    zmq_close(server);
    zmq_ctx_term(context);
    return good && major == 4 && minor == 3 && patch == 4 ? 0 : 1;
}
C
cc -I usr/include peers.c -o peers "$lib/libzmq.so.5" -Wl,--allow-shlib-undefined
LD_LIBRARY_PATH=$lib ./peers
