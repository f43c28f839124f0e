#!/bin/sh
# libjsonrpccpp 0.7.0 (Debian 12): a client's notification wants an answer, which JSON-RPC 2.0 does not give.
#
# A server "MUST NOT reply to a notification". Client::CallNotification of libjson-rpc-cpp sends one as it sends calls:
# over HTTP it takes any status but 200 for a failure, 204 (No Content) too, and throws, though the notification has
# arrived; over a unix socket it reads until a line or the end of the connection comes, and waits for ever where a
# server keeps the connection open and rightly says nothing. Its own servers answer notifications with an empty body,
# and an empty line.
#
# For rpcrew: a worker's notify_status=200 is for such callers over HTTP; over a unix socket they can only call.
#
# Source: src/jsonrpccpp/client/connectors/httpclient.cpp and unixdomainsocketclient.cpp
# (https://github.com/cinemast/libjson-rpc-cpp); https://www.jsonrpc.org/specification, 4.1.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=0.7.0-2.1
for package in libjsonrpccpp-dev libjsonrpccpp-client0 libjsonrpccpp-common0; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_${version}_*.deb .
done
version=1.9.5-4
for package in libjsoncpp-dev libjsoncpp25; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_${version}_*.deb .
done
lib=$(dirname "$(find "$room" -name 'libjsonrpccpp-client.so.0')")

cat > note.cpp <<'CPP'
#include <csignal>
#include <iostream>
#include <jsonrpccpp/client.h>
#include <jsonrpccpp/client/connectors/httpclient.h>
#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>
#include <unistd.h>

static void on_alarm(int)
{
    const char words[] = "unix, nothing: still waits after 2 s\n";
    (void)!write(1, words, sizeof words - 1);
    _exit(0);
}

static void note(jsonrpc::IClientConnector &connector, const char *what)
{
    try {
        jsonrpc::Client(connector).CallNotification("note", Json::Value(Json::arrayValue));
        std::cout << what << ": sent" << std::endl;
    } catch (const jsonrpc::JsonRpcException &error) {
        std::cout << what << ": " << error.GetCode() << std::endl;
    }
}

int main(int, char **words)
{
    jsonrpc::HttpClient none(words[1] + std::string("/204")), empty(words[1] + std::string("/200"));
    note(empty, "HTTP, 200 without a body");
    note(none, "HTTP, 204");
    jsonrpc::UnixDomainSocketClient line("line"), nothing("nothing");
    note(line, "unix, an empty line");
    std::signal(SIGALRM, on_alarm);
    alarm(2);
    note(nothing, "unix, nothing");
}
CPP
g++ -std=c++14 -w -I usr/include -I usr/include/jsoncpp -L "$lib" -o note note.cpp -ljsonrpccpp-client -ljsonrpccpp-common \
    -ljsoncpp

cat > servers.py <<'PYTHON'
import http.server
import socket
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def unix(name, answer):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    connection, _ = listener.accept()
    connection.recv(1000)
    connection.sendall(answer)
    threading.Event().wait()


for each in ("line", b"\n"), ("nothing", b""):
    threading.Thread(target=unix, args=each, daemon=True).start()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
python3 servers.py > port &
server=$!
while [ ! -s port ] || [ ! -S nothing ] || [ ! -S line ]; do sleep 0.1; done
LD_LIBRARY_PATH=$lib ./note "http://127.0.0.1:$(cat port)" | tee seen
kill $server
cat > expected <<'EXPECTED'
HTTP, 200 without a body: sent
HTTP, 204: -32603
unix, an empty line: sent
unix, nothing: still waits after 2 s
EXPECTED
diff expected seen
