#!/bin/sh
# Python 3.11's ssl (Debian 12, OpenSSL 3.0): a client of TLS 1.3 that sends and closes loses the end of what it sent.
#
# Behind the handshake of TLS 1.3 a server sends two session tickets. A client that only writes never reads them, so
# they lie in its socket when it closes; and a kernel that closes a socket with something unread in it sends a reset
# (RFC 1122, section 4.2.2.13), which throws away what the other end had not taken yet. sendall() has returned by
# then. The server sees fewer bytes and an end without an error. With TLS 1.2, which sends its ticket within the
# handshake, all arrives; so it does with unwrap() before close().
#
# For rpcrew: its callers over TLS say that they have ended, and read until what they sent is confirmed, before they
# close; a one-way call of a brief program was lost else. A worker whose peer has been reset still runs what has come.
#
# Source: RFC 8446, section 4.6.1; https://docs.python.org/3/library/ssl.html (SSLSocket.unwrap).
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=3.11.2-6+deb12u9
for package in python3.11-minimal libpython3.11-minimal libpython3.11-stdlib; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_*.deb .
done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 2 2>/dev/null

cat > loses.py <<'PYTHON'
import socket
import ssl
import sys
import threading

SIZE = 1000000
print(sys.version.split()[0], ssl.OPENSSL_VERSION.split(" ", 2)[1].rsplit(".", 1)[0])


def run(version, unwraps):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    context.maximum_version = version
    listener = socket.create_server(("127.0.0.1", 0))
    sent = threading.Event()
    got = []

    def serve():
        connection = context.wrap_socket(listener.accept()[0], server_side=True)
        sent.wait()  # a server that has something else to do
        data = b""
        while part := connection.recv(65536):
            data += part
        got.append(len(data))

    thread = threading.Thread(target=serve)
    thread.start()
    plain = socket.create_connection(listener.getsockname())
    client = ssl.create_default_context(cafile="cert.pem").wrap_socket(plain, server_hostname="localhost")
    client.sendall(b"x" * SIZE)
    if unwraps:
        sent.set()
        client.unwrap()
    client.close()
    sent.set()
    thread.join()
    return "all" if got == [SIZE] else "less than was sent"


print("TLS 1.2, close:", run(ssl.TLSVersion.TLSv1_2, False))
print("TLS 1.3, close:", run(ssl.TLSVersion.TLSv1_3, False))
print("TLS 1.3, unwrap and close:", run(ssl.TLSVersion.TLSv1_3, True))
PYTHON
PYTHONHOME="$room/usr" "$room/usr/bin/python3.11" -S loses.py | tee seen
cat > expected <<'EXPECTED'
3.11.2 3.0
TLS 1.2, close: all
TLS 1.3, close: less than was sent
TLS 1.3, unwrap and close: all
EXPECTED
diff expected seen
