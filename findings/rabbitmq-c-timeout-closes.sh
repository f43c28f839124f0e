#!/bin/sh
# rabbitmq-c 0.11.0 (Debian 12's librabbitmq4) closes the connection's socket by itself when a call of it times out.
#
# With amqp_set_rpc_timeout, amqp_queue_declare and the like return AMQP_STATUS_TIMEOUT after that time. One would
# think that the connection is still there and can be tried again, or be closed in order; but the socket is closed
# by then: amqp_get_sockfd says -1, further calls AMQP_STATUS_SOCKET_CLOSED, and the descriptor's number may already
# be somebody else's, so that a program which had kept it polls, writes to or shuts down a stranger's file.
#
# For rpcrew: the number is asked for anew after each failure, and what other threads may shut down is a copy of the
# descriptor.
#
# Source: librabbitmq/amqp_api.c and amqp_socket.c, simple_rpc_inner (https://github.com/alanxz/rabbitmq-c).
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=0.11.0-1+deb12u3
for package in librabbitmq4 librabbitmq-dev; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_${version}_*.deb .
done
lib=$(dirname "$(find . -name 'librabbitmq.so.4')")

# A broker that opens connection and channel, and then says nothing.
cat > silent.py <<'PYTHON'
import socket
import struct
import sys


def method(channel, class_id, method_id, arguments):
    payload = struct.pack(">HH", class_id, method_id) + arguments
    return b"\x01" + struct.pack(">HI", channel, len(payload)) + payload + b"\xce"


def long_string(text):
    return struct.pack(">I", len(text)) + text


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.recv(8)
for answer in (method(0, 10, 10, b"\x00\x09" + long_string(b"") + long_string(b"PLAIN") + long_string(b"en_US")),
               method(0, 10, 30, struct.pack(">HIH", 2047, 131072, 0)), method(0, 10, 41, b"\x00"),
               method(1, 20, 11, long_string(b""))):
    connection.sendall(answer)
    connection.recv(65536)
while connection.recv(65536):
    pass
print("the client has closed the connection", file=sys.stderr, flush=True)
PYTHON

cat > client.c <<'C'
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static int failed(const char *what, const amqp_rpc_reply_t *reply)
{
    printf("%s: %s\n", what, amqp_error_string2(reply->library_error));
    return reply->library_error;
}

int main(int argc, char **argv)
{
    struct timeval timeout = { .tv_usec = 300000 };
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *sock = amqp_tcp_socket_new(connection);
    (void)argc;
    printf("rabbitmq-c %s\n", amqp_version());
    if (strcmp(amqp_version(), "0.11.0") != 0 || amqp_socket_open(sock, "127.0.0.1", atoi(argv[1])) != 0)
        return 2;
    if (amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "u", "p").reply_type != AMQP_RESPONSE_NORMAL ||
        !amqp_channel_open(connection, 1))
        return 3;
    amqp_set_rpc_timeout(connection, &timeout);
    printf("descriptor before: %s\n", amqp_get_sockfd(connection) >= 0 ? "open" : "none");
    amqp_queue_declare(connection, 1, amqp_cstring_bytes("q"), 0, 0, 0, 0, amqp_empty_table);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    int timed_out = failed("queue.declare", &reply) == AMQP_STATUS_TIMEOUT;
    printf("descriptor after: %d\n", amqp_get_sockfd(connection));
    int closed = amqp_get_sockfd(connection) == -1;
    reply = amqp_channel_close(connection, 1, AMQP_REPLY_SUCCESS);
    return failed("channel.close", &reply) != AMQP_STATUS_OK && timed_out && closed ? 0 : 1;
}
C
cc -Wno-deprecated-declarations -I usr/include client.c -o client "$lib/librabbitmq.so.4" -lssl -lcrypto
/usr/bin/python3 silent.py > port &
broker=$!
while [ ! -s port ]; do sleep 0.05; done
LD_LIBRARY_PATH=$lib ./client "$(cat port)"
wait "$broker"
