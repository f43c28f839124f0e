#!/bin/sh
# libzmq 4.3.4 (Debian 12's libzmq5) ends good connections to peers of ZMTP 2 after ZMQ_HANDSHAKE_IVL.
#
# libzmq speaks ZMTP 2.0 with older peers (libzmq 3, JeroMQ up to 0.3), and messages go both ways at once. But the
# timer of the handshake, 30 s unless it is set, is stopped only by the handshake of ZMTP 3: when it fires, the
# connection is closed, whatever goes over it, and what was under way is lost. A caller whose calls are short sees a
# reconnection every half minute; one that takes longer never gets its answer. With the option at 0 it stays.
#
# For rpcrew: its sockets set that option to 0, and a caller watches over the handshake itself.
#
# Source: src/stream_engine_base.cpp and src/zmtp_engine.cpp (https://github.com/zeromq/libzmq);
# https://rfc.zeromq.org/spec/15 for the peer's bytes.
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

# A ROUTER of ZMTP 2 that says how long its connection lasted, 4 seconds at most.
cat > old.py <<'PYTHON'
import socket
import time

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
for _ in range(2):
    connection, _ = listener.accept()
    connection.sendall(b"\xff" + b"\0" * 8 + b"\x7f")
    connection.recv(11)
    connection.sendall(b"\x01\x06\x00\x00")
    began, got = time.monotonic(), b""
    connection.settimeout(0.1)
    over = False
    while not over and time.monotonic() - began < 4:
        try:
            part = connection.recv(100)
            got += part
            over = not part
        except socket.timeout:
            pass
    print("message received:", b"hello" in got, flush=True)
    print("closed by libzmq" if over else "still open", "after", round(time.monotonic() - began), "s", flush=True)
    connection.close()
PYTHON

cat > caller.c <<'C'
#include <stdio.h>
#include <time.h>
#include <zmq.h>

int main(int argc, char **argv)
{
    static const int handshake_ms[] = { 2000, 0 };
    int major, minor, patch;
    (void)argc;
    zmq_version(&major, &minor, &patch);
    printf("libzmq %d.%d.%d\n", major, minor, patch);
    for (int i = 0; i < 2; i++) {
        void *context = zmq_ctx_new(), *caller = zmq_socket(context, ZMQ_DEALER);
        zmq_setsockopt(caller, ZMQ_HANDSHAKE_IVL, &handshake_ms[i], sizeof handshake_ms[i]);
        zmq_setsockopt(caller, ZMQ_LINGER, &(int){ 0 }, sizeof(int));
        zmq_setsockopt(caller, ZMQ_RECONNECT_IVL, &(int){ -1 }, sizeof(int));
        zmq_connect(caller, argv[1]);
        zmq_send(caller, "hello", 5, 0);
        nanosleep(&(struct timespec){ .tv_sec = 5 }, NULL);
        zmq_close(caller);
        zmq_ctx_term(context);
    }
    return major == 4 && minor == 3 && patch == 4 ? 0 : 1;
}
C
cc -I usr/include caller.c -o caller "$lib/libzmq.so.5" -Wl,--allow-shlib-undefined
/usr/bin/python3 old.py > seen &
old=$!
while [ ! -s seen ]; do sleep 0.05; done
LD_LIBRARY_PATH=$lib ./caller "tcp://127.0.0.1:$(head -1 seen)"
wait "$old"
tail -n +2 seen > told
cat told
diff told - <<'EXPECTED'
message received: True
closed by libzmq after 2 s
message received: True
still open after 4 s
EXPECTED
