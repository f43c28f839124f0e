"""nginx and Apache in front of workers: FastCGI over TCP and a unix socket, CGI, HTTP and WebSocket as a proxy; and
FastCGI's records themselves."""
import json
import os
import socket
import struct
import subprocess
import threading

import requests
import websocket
from stream_peers import read_all
from support import PATIENCE, Case, eventually, free_port, main, program, request

THREE = b'{"jsonrpc":"2.0","result":3,"id":1}'
NGINX = """
daemon off; worker_processes 1; pid {room}/nginx.pid; error_log {room}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {room}/body; proxy_temp_path {room}/proxy; fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi; scgi_temp_path {room}/scgi; client_max_body_size 20m;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream kept {{ server 127.0.0.1:{fcgi}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location /fcgi {{ include /etc/nginx/fastcgi_params; fastcgi_pass 127.0.0.1:{fcgi}; }}
        location /kept {{ include /etc/nginx/fastcgi_params; fastcgi_pass kept; fastcgi_keep_conn on; }}
        location /unix {{ include /etc/nginx/fastcgi_params; fastcgi_pass unix:{room}/fcgi; }}
        location /cgi {{
            include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME {room}/script; fastcgi_pass unix:{room}/wrap;
        }}
        location /http {{
            proxy_pass http://127.0.0.1:{http}; proxy_http_version 1.1; proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""
APACHE = """
ServerRoot {room}
ServerName localhost
ProxyPreserveHost On
Listen 127.0.0.1:{port}
PidFile {room}/apache.pid
ErrorLog {room}/error.log
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule cgi_module {modules}/mod_cgi.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_fcgi_module {modules}/mod_proxy_fcgi.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
User www-data
Group www-data
ScriptAlias /cgi {room}/script
ProxyPass /fcgi fcgi://127.0.0.1:{fcgi}/fcgi
ProxyPass /kept fcgi://127.0.0.1:{fcgi}/kept enablereuse=on
ProxyPass /unix unix:{room}/fcgi|fcgi://localhost/unix
ProxyPass /http http://127.0.0.1:{http}/http upgrade=websocket
"""


class Front(Case):
    """A web server with these places: /fcgi, /kept (its connections), /unix, /cgi and /http, where WebSockets go too."""
    configuration = command = None

    def setUp(self):
        super().setUp()
        self.ports = {name: free_port() for name in ("port", "fcgi", "http")}
        with open(self.socket_path("conf"), "w", encoding="utf-8") as file:
            file.write(self.configuration.format(room=self.directory, modules="/usr/lib/apache2/modules", **self.ports))
        os.chmod(self.directory, 0o755)
        self.base = f"http://127.0.0.1:{self.ports['port']}"

    def start(self, *words, port=None, path=None):
        # a session of its own: Apache ends its whole process group
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

        def listens():
            if path:
                return os.path.exists(path)
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        eventually(listens)
        if path:
            os.chmod(path, 0o777)

    def serve(self, *urls):
        for url in urls:
            self.worker("conformance", "--listen", url)
        self.start(*(word.format(room=self.directory) for word in self.command), port=self.ports["port"])

    def calls_at(self, place):
        """All that HTTP does, behind that path."""
        url = self.base + place
        with requests.Session() as session:
            for i in range(20):
                got = session.post(url, data=request("add", [i, 1], i), timeout=PATIENCE, headers={"Content-Type": "application/json"})
                self.assertEqual((got.status_code, got.json()["result"]), (200, i + 1), place)
            got = session.post(url, data=request("update", [], None), timeout=PATIENCE)
            self.assertEqual((got.status_code, got.content), (204, b""))
            got = session.post(url, data=b" " * 3000000 + request("blob", [3000000]), timeout=PATIENCE)
            self.assertEqual(len(got.json()["result"]), 3000000)
            pieces = iter((request("add", [3, 4])[:20], request("add", [3, 4])[20:]))  # chunked
            got = session.post(url, data=pieces, timeout=PATIENCE, headers={"Content-Type": "application/json"})
            self.assertEqual((got.status_code, got.json().get("result")), (200, 7), place)
            got = session.post(url, data=request("headers", []), headers={"X-Tenant": "blue"}, timeout=PATIENCE)
            self.assertEqual(got.json()["result"]["x-tenant"], "blue")
            self.assertEqual(session.post(url, data=b"x", headers={"Content-Type": "text/plain"}, timeout=PATIENCE).status_code, 415)
            self.assertEqual(session.put(url, timeout=PATIENCE).status_code, 405)
            got = session.post(url, data=request("add", [1, 2]), headers={"Origin": "http://evil.example"}, timeout=PATIENCE)
            self.assertEqual(got.status_code, 403)
            page = session.get(url, timeout=PATIENCE)
            self.assertEqual((page.status_code, page.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
            document = session.get(url + "/openrpc.json", timeout=PATIENCE)
            self.assertEqual(document.json()["info"]["title"], "conformance")
            self.assertEqual(session.head(url, timeout=PATIENCE).status_code, 200)

    def test_fastcgi(self):
        self.serve(f"fcgi://127.0.0.1:{self.ports['fcgi']}", f"fcgi+unix://{self.socket_path('fcgi')}?mode=777")
        for place in "/fcgi", "/kept", "/unix", "/kept/deeper?x=y":
            self.calls_at(place.partition("?")[0])
        many = [threading.Thread(target=self.calls_at, args=("/kept",)) for _ in range(8)]
        for one in many:
            one.start()
        for one in many:
            one.join()

    def test_cgi(self):
        with open(self.socket_path("script"), "w", encoding="utf-8") as script:
            script.write(f"#!/bin/sh\nexec '{program('conformance')}' --listen cgi:// --log-level error\n")
        os.chmod(self.socket_path("script"), 0o755)
        self.serve()
        self.calls_at("/cgi")

    def test_proxy(self):
        self.serve(f"http://127.0.0.1:{self.ports['http']}/http")
        self.calls_at("/http")
        ws = websocket.create_connection(self.base.replace("http", "ws", 1) + "/http", timeout=PATIENCE)
        self.addCleanup(ws.close)
        for i in range(20):
            ws.send(request("add", [i, 2], i).decode())
            self.assertEqual(json.loads(ws.recv())["result"], i + 2)


class Nginx(Front):
    configuration, command = NGINX, ("nginx", "-p", "{room}", "-c", "{room}/conf")

    def test_cgi(self):  # by somebody else: it has none of its own
        self.start("fcgiwrap", "-s", f"unix:{self.socket_path('wrap')}", path=self.socket_path("wrap"))
        super().test_cgi()


class Apache(Front):
    configuration, command = APACHE, ("apache2", "-D", "FOREGROUND", "-f", "{room}/conf")


del Front  # which has no tests of its own


def record(kind, ident, content=b"", padding=0):
    return struct.pack(">BBHHBB", 1, kind, ident, len(content), padding, 0) + content + b"\0" * padding


def params(**values):
    def size(text):
        return bytes([len(text)]) if len(text) < 128 else struct.pack(">I", len(text) | 1 << 31)
    return b"".join(size(name) + size(value) + name.encode() + value.encode() for name, value in values.items())


def whole(ident, body, keep=1, **more):
    variables = params(REQUEST_METHOD="POST", REQUEST_URI="/x", CONTENT_TYPE="application/json",
                       CONTENT_LENGTH=str(len(body)), **more)
    return (record(1, ident, bytes([0, 1, keep]) + b"\0" * 5) + record(4, ident, variables, 3) + record(4, ident) +
            record(5, ident, body) + record(5, ident))


def read_records(data):
    records = []
    while data:
        _, kind, ident, size, padding, _ = struct.unpack(">BBHHBB", data[:8])
        records.append((kind, ident, data[8:8 + size]))
        data = data[8 + size + padding:]
    return records


class Environment(Case):
    """CGI's, without any server."""
    def test_whom_the_server_has_let_in_is_the_caller(self):
        call = request("peer", [])
        env = {**os.environ, "REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(call)),
               "REMOTE_USER": "ann", "REMOTE_ADDR": "192.0.2.7"}
        got = subprocess.run([program("conformance"), "--listen", "cgi://", "--access-log"], input=call, env=env, capture_output=True,
                             timeout=PATIENCE, check=False)
        self.assertTrue(got.stdout.endswith(b'"result":"ann","id":1}'), got.stdout)
        self.assertIn(b" peer=ann address=192.0.2.7 endpoint=cgi://", got.stderr)


class Records(Case):
    def exchange(self, text, options="", half=True):
        port = free_port()
        self.worker("conformance", "--listen", f"fcgi://127.0.0.1:{port}{options}")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(text)
            if half:
                connection.shutdown(socket.SHUT_WR)
            return read_records(read_all(connection))

    def assert_answer(self, records, ident, body):
        mine = [one for one in records if one[1] == ident]
        text = b"".join(content for kind, _, content in mine if kind == 6)
        self.assertTrue(text.startswith(b"Status: 200 OK\r\n"), text)
        self.assertTrue(text.endswith(body), text)
        self.assertEqual(mine[-1], (3, ident, b"\0" * 8))

    def test_requests_one_after_another(self):
        port = free_port()
        self.worker("conformance", "--listen", f"fcgi://127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            for ident, keep in (1, 1), (7, 1), (1, 0):
                connection.sendall(whole(ident, request("add", [1, 2]), keep=keep))
                data = b""
                while not data.endswith(record(3, ident, b"\0" * 8)):
                    data += connection.recv(4096)
                self.assert_answer(read_records(data), ident, THREE)
            self.assertEqual(connection.recv(1), b"")

    def test_in_single_bytes(self):
        port = free_port()
        self.worker("conformance", "--listen", f"fcgi://127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in whole(3, request("add", [1, 2]), keep=0, LONG="x" * 300):
                connection.sendall(bytes([byte]))
            self.assert_answer(read_records(read_all(connection)), 3, THREE)

    def test_large_ones(self):
        body = request("blob", [200000])
        got = self.exchange(whole(1, body))
        text = b"".join(content for kind, _, content in got if kind == 6)
        self.assertEqual(json.loads(text.partition(b"\r\n\r\n")[2])["result"], "x" * 200000)

    def test_values_roles_and_a_second_request_beside_one(self):
        got = self.exchange(record(9, 0, params(FCGI_MPXS_CONNS="", FCGI_OTHER="")) + record(77, 0) +
                            record(1, 5, b"\0\2\1" + b"\0" * 5) + whole(1, request("sleep_ms", [200])) +
                            whole(2, request("add", [1, 2])))
        self.assertEqual(got[0], (10, 0, b"\x0f\x01FCGI_MPXS_CONNS0"))
        self.assertEqual(got[1][0], 11)
        self.assertEqual(got[2], (3, 5, b"\0\0\0\0\3\0\0\0"))  # unknown role
        self.assertEqual(got[3], (3, 2, b"\0\0\0\0\1\0\0\0"))  # one at a time
        self.assert_answer(got, 1, b'"result":200,"id":1}')

    def test_an_aborted_one_is_over_and_the_next_is_served(self):
        got = self.exchange(whole(1, request("sleep_ms", [100])) + record(2, 1) + whole(1, request("add", [1, 2])))
        self.assertEqual(got[0], (3, 1, b"\0" * 8))
        self.assert_answer(got[1:], 1, THREE)

    def test_too_large_and_wrong_ones(self):
        call = request("update", [], None)

        def status(text, options=""):
            content = b"".join(content for kind, _, content in self.exchange(text, options) if kind == 6)
            return int(content.split()[1])
        self.assertEqual(status(whole(1, call, X="y" * 3000), "?head_bytes=2000"), 431)
        self.assertEqual(status(whole(1, b" " * 2000), "?max_bytes=1000"), 413)
        self.assertEqual(status(record(1, 1, b"\0\1\1" + b"\0" * 5) + record(4, 1, params(REQUEST_METHOD="POST", REQUEST_URI="/x", CONTENT_LENGTH="500")) +
                                record(4, 1) + record(5, 1, call) + record(5, 1)), 400)
        self.assertEqual(status(record(1, 1, b"\0\1\1" + b"\0" * 5) + record(4, 1, params(REQUEST_METHOD="POST", REQUEST_URI="/x", CONTENT_LENGTH="9" * 30)) +
                                record(4, 1) + record(5, 1, call) + record(5, 1)), 413)
        self.assertEqual(status(record(1, 1, b"\0\1\1" + b"\0" * 5) + record(5, 1) + record(4, 1)), 400)
        self.assertEqual(status(record(1, 1, b"\0\1\1" + b"\0" * 5) + record(4, 1, b"\xff\xff\xff\xffx") + record(4, 1) + record(5, 1)), 400)
        self.assertEqual(status(record(1, 1, b"\0\1\1" + b"\0" * 5) + record(4, 1) + record(5, 1)), 400)
        self.assertEqual(self.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half=False), [])
        self.assertEqual(self.exchange(whole(1, call)[:40], "?receive_timeout_ms=300", half=False), [])


if __name__ == "__main__":
    main()
