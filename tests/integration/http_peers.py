"""HTTP and WebSocket: curl, requests, websocket-client and websockets as callers; raw sockets that keep the rules and
that break them; services made of Python's http.server and of websockets, which our caller calls."""
import asyncio
import base64
import http.server
import json
import os
import re
import select
import socket
import struct
import subprocess
import threading
import time

import msgpack
import requests
import websocket
import websockets
from stream_peers import cpu_of, read_all, resident_bytes
from support import PATIENCE, Case, eventually, free_port, main, program, request, rpcrew

JSON = "Content-Type: application/json\r\n"
THREE = b'{"jsonrpc":"2.0","result":3,"id":1}'


def post(body, fields=JSON, path="/rpc", version="1.1"):
    """A request as bytes."""
    return (f"POST {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{fields}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def split_answers(data):
    """[(status, fields, body)] of what a server has sent."""
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        size = int(fields.get("content-length", 0))
        answers.append((int(lines[0].split()[1]), fields, data[:size]))
        data = data[size:]
    return answers


class Http(Case):
    def serve(self, options="", name="conformance", flags=()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/rpc"
        return self.worker(name, "--listen", self.url + options, *flags)

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def exchange(self, text):
        """Sends all, half-closes, and returns the answers."""
        with self.connect() as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return split_answers(read_all(connection))

    def until_closed(self, text):
        """Sends all, and returns the answers up to where the worker closes."""
        with self.connect() as connection:
            connection.sendall(text)
            return split_answers(read_all(connection))

    def still_serves(self):
        self.assertEqual(self.exchange(post(request("add", [1, 2])))[0][2], THREE)

    def count(self):
        return json.loads(self.exchange(post(request("count", [])))[0][2])["result"]


class Requests(Http):
    def curl(self, *words):
        got = subprocess.run(["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code} %{content_type}", *words],
                             capture_output=True, text=True, check=False)
        self.assertEqual(got.stderr, "")
        body, _, last = got.stdout.rpartition("\n")
        return int(last.split()[0]), last.partition(" ")[2], body

    def test_what_curl_and_scripts_send_is_answered(self):
        self.serve()
        call = request("add", [1, 2]).decode()
        for kind in ("application/json", "application/json; charset=utf-8", "application/json-rpc", "application/jsonrequest",
                     "application/x-www-form-urlencoded", "Application/JSON;charset=\"UTF-8\"", ""):
            status, kind_back, body = self.curl("-H", f"Content-Type: {kind}" if kind else "Content-Type:", "-d", call, self.url)
            self.assertEqual((status, kind_back, body.encode()), (200, "application/json", THREE), kind)
        for more in (["-0"], ["-H", "Transfer-Encoding: chunked"], ["--http2"], ["-H", "Expect: 100-continue"]):
            self.assertEqual(self.curl(*more, "-d", call, self.url)[::2], (200, THREE.decode()), more)
        self.assertEqual(self.curl("-d", call, self.url + "/?x=y")[0], 200)
        self.assertEqual(self.curl("-d", request("update", [1], None).decode(), self.url)[::2], (204, ""))
        self.assertEqual(self.curl("-d", '[{"jsonrpc":"2.0","method":"update"}]', self.url)[::2], (204, ""))
        self.assertEqual(json.loads(self.curl("-d", "{bad", self.url)[2])["error"]["code"], -32700)
        self.assertEqual(self.curl("-d", "{bad", self.url)[0], 200)
        large = self.socket_path("large")
        with open(large, "w", encoding="utf-8") as file:
            file.write(" " * 3000000 + call)
        self.assertEqual(self.curl("-d", f"@{large}", self.url)[::2], (200, THREE.decode()))

    def test_what_is_not_for_us_is_refused_with_its_status_and_words(self):
        self.serve()
        call = request("add", [1, 2]).decode()
        for words, status in (
                (["-H", "Content-Type: text/plain", "-d", call], 415),
                (["-H", "Content-Type: text/xml", "-d", call], 415),
                (["-H", "Content-Type: application/json; charset=latin1", "-d", call], 415),
                (["-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "-d", call], 415),
                (["-F", "a=b"], 415),
                (["-X", "PUT", "-d", call], 405), (["-X", "DELETE"], 405),
                (["-H", "Expect: miracles", "-d", call], 417)):
            got, kind, body = self.curl(*words, self.url)
            self.assertEqual((got, kind), (status, "application/json"), words)
            self.assertTrue(json.loads(body)["error"]["message"])
        self.assertEqual(self.curl("-d", call, self.url + "x")[0], 404)
        self.assertEqual(self.curl("-d", call, self.url.replace("rpc", ""))[0], 404)
        self.assertEqual(self.curl("-d", call, self.url.replace("rpc", "%72p%63"))[0], 200)
        self.still_serves()

    def test_strict_and_notify_status_and_page_are_options(self):
        self.serve("?strict=yes&notify_status=200&page=no")
        self.assertEqual(self.curl("-d", "{}", self.url)[0], 415)
        self.assertEqual(self.curl("-H", JSON.strip(), "-d", request("update", [], None).decode(), self.url)[::2], (200, ""))
        self.assertEqual(self.curl(self.url)[0], 405)
        self.assertEqual(self.curl(self.url + "/openrpc.json")[0], 404)

    def test_get_shows_the_page_and_the_document(self):
        self.serve()
        status, kind, body = self.curl(self.url)
        self.assertEqual((status, kind), (200, "text/html; charset=utf-8"))
        self.assertNotIn("http://", body)
        self.assertNotIn("https://", body)
        status, kind, body = self.curl(self.url + "/openrpc.json")
        self.assertEqual((status, kind), (200, "application/json"))
        discovered = self.exchange(post(request("rpc.discover", [])))[0][2]
        self.assertEqual(json.loads(body), json.loads(discovered)["result"])
        head = self.until_closed(b"HEAD /rpc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertEqual(head[0][0], 200)
        self.assertEqual(head[0][2], b"")

    def test_messagepack_by_its_types(self):
        self.serve()
        for kind in ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack", None):
            got = requests.post(self.url, data=msgpack.packb([0, 7, "add", [1, 2]]), timeout=PATIENCE,
                                headers={"Content-Type": kind} if kind else {})
            self.assertEqual((got.status_code, got.headers["Content-Type"]), (200, "application/msgpack"))
            self.assertEqual(msgpack.unpackb(got.content), [1, 7, None, 3])

    def test_a_session_keeps_its_connection(self):
        worker = self.serve(flags=["--log-level", "debug"])
        with requests.Session() as session:
            for i in range(20):
                got = session.post(self.url, json={"jsonrpc": "2.0", "method": "add", "params": [i, 1], "id": i},
                                   timeout=PATIENCE)
                self.assertEqual(got.json()["result"], i + 1)
            pools = session.get_adapter(self.url).poolmanager.pools
            self.assertEqual([pools[key].num_connections for key in pools.keys()], [1])
        self.assertIsNone(worker.process.poll())

    def test_the_fields_reach_the_handler(self):
        self.serve()
        got = requests.post(self.url, data=request("headers", []), timeout=PATIENCE,
                            headers={"X-Tenant": "blue", "Authorization": "Bearer t", "Content-Type": "application/json"})
        fields = got.json()["result"]
        twice = self.exchange(post(request("headers", []), JSON + "X-A: one\r\nX-A: two\r\n"))[0][2]
        self.assertEqual(json.loads(twice)["result"]["x-a"], "one, two")
        self.assertEqual((fields["x-tenant"], fields["authorization"]), ("blue", "Bearer t"))

    def test_pipelined_requests_are_answered_in_their_order(self):
        self.serve()
        get = b"GET /rpc/openrpc.json HTTP/1.1\r\nHost: a\r\n\r\n"
        got = self.exchange(post(request("sleep_ms", [300], 1)) + post(request("add", [1, 1], 2)) +
                            post(request("update", [], None)) + get + post(b"", path="/nowhere") +
                            post(request("add", [2, 2], 3)))
        self.assertEqual([status for status, _, _ in got], [200, 200, 204, 200, 404, 200])
        self.assertEqual([json.loads(got[i][2])["result"] for i in (0, 1, 5)], [300, 2, 4])
        many = 500
        with self.connect() as connection:
            sender = threading.Thread(target=connection.sendall, args=(b"".join(
                post(request("add", [i, 0], i)) for i in range(many)),))
            sender.start()
            data = b""
            while data.count(b"HTTP/1.1") < many or not data.endswith(b"}"):
                data += connection.recv(65536)
            sender.join()
        self.assertEqual([json.loads(body)["id"] for _, _, body in split_answers(data)], list(range(many)))

    def test_continue_is_said_when_its_turn_is(self):
        self.serve()
        with self.connect() as connection:
            body = request("add", [1, 2])
            head, _, _ = post(body, JSON + "Expect: 100-continue\r\n").partition(b"\r\n\r\n")
            connection.sendall(post(request("sleep_ms", [200])) + head + b"\r\n\r\n")
            data = b""
            while b"100 Continue" not in data:
                data += connection.recv(4096)
            first, _, rest = data.partition(b"HTTP/1.1 100")
            self.assertIn(b'"result":200', first)
            self.assertEqual(rest, b" Continue\r\n\r\n")
            connection.sendall(body)
            self.assertIn(THREE, connection.recv(4096))
            refused = post(b"x" * 70000, "Content-Type: text/plain\r\nExpect: 100-continue\r\n").partition(b"\r\n\r\n")[0]
            connection.sendall(refused + b"\r\n\r\n")
            self.assertEqual(split_answers(read_all(connection))[0][0], 415)

    def test_continue_is_not_said_behind_a_body_that_came_without(self):
        self.serve()
        got = self.exchange(post(request("sleep_ms", [100])) + post(request("add", [1, 2]), JSON + "Expect: 100-continue\r\n") +
                            post(request("add", [1, 2])))
        self.assertEqual([one[0] for one in got], [200, 200, 200])

    def test_old_and_closing_clients(self):
        self.serve()
        call = request("add", [1, 2])
        got = self.until_closed(post(call, version="1.0"))
        self.assertEqual((got[0][1]["connection"], got[0][2]), ("close", THREE))
        got = self.until_closed(post(call, JSON + "Connection: keep-alive\r\n", version="1.0") + post(call, version="1.0"))
        self.assertEqual([one[1]["connection"] for one in got], ["keep-alive", "close"])
        got = self.until_closed(post(call, JSON + "Connection: close\r\n") + post(call))
        self.assertEqual(len(got), 1)

    def test_a_drain_answers_what_is_under_way(self):
        worker = self.serve()
        with self.connect() as connection:
            connection.sendall(post(request("sleep_ms", [300])))
            self.still_serves()  # so what came before is under way
            self.assertEqual(worker.stop(), 0)
            self.assertIn(b'"result":300', read_all(connection))

    def test_what_expired_is_told_as_not_executed(self):
        self.serve(flags=["--threads", "1"])
        with self.connect() as slow:
            slow.sendall(post(request("sleep_ms", [400])))
            got = self.exchange(post(request("update", [], 5), JSON + "Rpcrew-Timeout-Ms: 50\r\n"))
            self.assertEqual(got[0][0], 503)
            self.assertIn("not executed", json.loads(got[0][2])["error"]["message"])


class Pages(Http):
    """Of which sites may call."""

    def ask(self, origin, host=None, fields=JSON, method="POST"):
        host = host or f"127.0.0.1:{self.port}"
        body = request("add", [1, 2]) if method == "POST" else b""
        head = f"{method} /rpc HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}Content-Length: {len(body)}\r\n"
        if origin:
            head += f"Origin: {origin}\r\n"
        return self.until_closed(head.encode() + b"\r\n" + body)[0]

    def test_its_own_page_may_and_others_may_not(self):
        self.serve()
        own = f"http://127.0.0.1:{self.port}"
        self.assertEqual(self.ask(None)[0], 200)
        self.assertEqual(self.ask(own)[0], 200)
        for fields in (JSON, "", "Content-Type: application/x-www-form-urlencoded\r\n"):
            for origin in ("http://evil.example", "null", own.replace("127", "128"), f"http://127.0.0.1:{self.port + 1}"):
                status, got, body = self.ask(origin, fields=fields)
                self.assertEqual(status, 403, origin)
                self.assertNotIn("access-control-allow-origin", got)
                self.assertIn("origin=", json.loads(body)["error"]["message"])
        # a name that its owner has made to mean this host
        self.assertEqual(self.ask("http://evil.example:80", "evil.example:80")[0], 403)
        self.assertEqual(self.ask("http://evil.example1", "evil.example1")[0], 403)
        self.assertEqual(self.ask("chrome-extension://localhost", "localhost")[0], 403)
        for name in ("localhost", "calc", "[::1]", "10.1.2.3"): # which nobody elsewhere has
            self.assertEqual(self.ask(f"http://{name}:80", f"{name}:80")[0], 200)

    def test_listed_ones_may_and_are_told_so(self):
        self.serve("?origin=http://app.example&origin=https://b.example:8443")
        for origin in ("http://app.example", "https://b.example:8443"):
            status, fields, _ = self.ask(origin)
            self.assertEqual((status, fields["access-control-allow-origin"], fields["vary"]), (200, origin, "Origin"))
            status, fields, _ = self.ask(origin, fields="Access-Control-Request-Method: POST\r\n"
                                         "Access-Control-Request-Headers: content-type\r\n", method="OPTIONS")
            self.assertEqual((status, fields["access-control-allow-origin"]), (204, origin))
            self.assertIn("POST", fields["access-control-allow-methods"])
            self.assertIn("Content-Type", fields["access-control-allow-headers"])
        self.assertEqual(self.ask("https://app.example")[0], 403)
        self.assertEqual(self.ask("http://evil.example", method="OPTIONS")[0], 403)
        self.serve("?origin=*")
        self.assertEqual(self.ask("http://anybody.example")[0], 200)

    def test_websockets_keep_the_same_rule(self):
        self.serve("?origin=http://app.example")
        url = self.url.replace("http", "ws")
        for origin, works in (("http://app.example", True), (f"http://127.0.0.1:{self.port}", True),
                              ("http://evil.example", False)):
            try:
                websocket.create_connection(url, origin=origin, timeout=PATIENCE).close()
                self.assertTrue(works, origin)
            except websocket.WebSocketBadStatusException as error:
                self.assertFalse(works, origin)
                self.assertEqual(error.status_code, 403)


class Enemies(Http):
    def test_what_is_no_request_is_refused_and_ends_its_connection(self):
        self.serve()
        call = request("update", [], None)
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(call), call)
        start = b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        for text, status in (
                (b"\x16\x03\x01\x02\x00\x01\x00", 400), (b"rubbish\r\n\r\n", 400), (b"GET /rpc\r\n\r\n", 505),
                (b"POST /rpc HTTP/1.1\r\n\r\n", 400), (start + b"Host: b\r\n\r\n", 400),
                (start + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
                (start + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(call) + chunked, 400),
                (start + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked, 501),
                (start + b"Transfer-Encoding: identity\r\n\r\n" + call, 501),
                (start + b"Content-Length: +3\r\n\r\nabc", 400), (start + b"Content-Length: -3\r\n\r\nabc", 400),
                (start + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
                (start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
                (start + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{}  \r\n0\r\n\r\n", 400),
                (start + b"A-Field: one\r\n and two\r\nContent-Length: 2\r\n\r\n{}", 400),
                (start + b"A-Field: one\nContent-Length: 2\r\n\r\n{}", 400),
                (b"POST  /rpc HTTP/1.1\r\nHost: a\r\n\r\n", 400),
                (start + b"An-Odd : field\r\nContent-Length: 2\r\n\r\n{}", 400),
                (b"POST /rpc HTTP/2.0\r\nHost: a\r\n\r\n", 505),
                (b"CONNECT /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n", 405),
                (start + b"Authorization: a\r\nAuthorization: b\r\nContent-Length: 2\r\n\r\n{}", 400),
                (start + b"Origin: http://localhost\r\nOrigin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}", 400),
                (b"POST /rpc HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 400)):
            got = self.until_closed(text + post(call)) # which would be run if the ends were misread
            self.assertEqual([one[0] for one in got], [status], text)
            self.assertTrue(json.loads(got[0][2])["error"]["message"])
        self.assertEqual(self.count(), 0)

    def test_trailers_and_extensions_of_chunks_are_passed_over(self):
        self.serve()
        call = request("add", [1, 2])
        body = b"%x ;a=b\r\n%s\r\n0\r\nA-Trailer: of no use\r\n\r\n" % (len(call), call)
        head = b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.exchange((head + body) * 2)[1][2], THREE)
        head += b"0\r\nA-Trailer: " + b"x" * 20000
        self.assertEqual(self.until_closed(head)[0][0], 431)

    def test_a_request_in_pieces_is_one(self):
        self.serve()
        text = post(request("add", [1, 2]))
        with self.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(text)):
                connection.sendall(text[i:i + 1])
            self.assertIn(THREE, connection.recv(4096))

    def test_too_large_ones(self):
        self.serve("?max_bytes=10000&head_bytes=2000")
        self.assertEqual(self.until_closed(post(b" " * 10001))[0][0], 413)
        chunks = b"".join(b"1000\r\n%s\r\n" % (b" " * 4096) for _ in range(3))
        head = b"POST /rpc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.until_closed(head + chunks)[0][0], 413)
        self.assertEqual(self.until_closed(post(b"", f"X: {'x' * 2000}\r\n"))[0][0], 431)
        self.assertEqual(self.until_closed(b"POST /" + b"x" * 3000)[0][0], 431)
        self.assertEqual(self.exchange(post(request("add", [1, 2]) + b" " * 9000))[0][2], THREE)

    def test_slow_senders_have_their_time(self):
        self.serve("?receive_timeout_ms=300")
        for text in (b"POST /rp", b"POST /rpc HTTP/1.1\r\nHost: a\r\nX-Field: a", post(b" " * 100)[:-50]):
            with self.connect() as connection:
                connection.sendall(text)
                before = time.monotonic()
                stop = threading.Event()
                drip = threading.Thread(target=self.drip, args=(connection, stop)) # a byte now and then is not enough
                drip.start()
                try:
                    self.assertEqual(split_answers(read_all(connection))[0][0], 408)
                finally:
                    stop.set()
                    drip.join()
                self.assertLess(time.monotonic() - before, PATIENCE)
        self.still_serves()

    @staticmethod
    def drip(connection, stop):
        while not stop.wait(0.1):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    def test_idle_connections_are_closed_without_a_word(self):
        self.serve("?idle_timeout_ms=300")
        with self.connect() as connection:
            connection.sendall(post(request("add", [1, 2])))
            got = split_answers(read_all(connection))
            self.assertEqual([one[0] for one in got], [200])
        with self.connect() as connection: # that never said anything
            self.assertEqual(read_all(connection), b"")

    def test_a_thousand_idle_ones_cost_next_to_nothing(self):
        worker = self.serve()
        warm = [self.connect() for _ in range(50)]
        for connection in warm:
            connection.sendall(post(request("add", [1, 2])))
            self.assertIn(THREE, connection.recv(4096))
        before = resident_bytes(worker.process.pid)
        idle = [self.connect() for _ in range(1000)]
        for connection in idle: # each has been served once
            connection.sendall(post(request("add", [1, 2])))
        for connection in idle:
            self.assertIn(THREE, connection.recv(4096))
        if "asan" not in program("") and "tsan" not in program(""):  # whose memory is not the worker's
            self.assertLess((resident_bytes(worker.process.pid) - before) / 1000, 4096)
        used = cpu_of(worker.process.pid)
        poll = select.poll()
        for connection in idle:
            poll.register(connection, select.POLLIN)
        self.assertEqual(poll.poll(500), [])
        self.assertLess(cpu_of(worker.process.pid) - used, 0.1)

    def test_ten_thousand_connects_leave_nothing(self):
        worker = self.serve()
        self.still_serves()
        place = f"/proc/{worker.process.pid}/fd"
        before = len(os.listdir(place))
        for i in range(10000):
            connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            if i % 3:
                connection.sendall(post(request("update", [], None))[:i % 50])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # which keeps no port
            connection.close()
        self.still_serves()
        eventually(lambda: len(os.listdir(place)) <= before + 1)

    def test_who_does_not_read_is_cut_off(self):
        worker = self.serve("?send_timeout_ms=300", flags=["--log-level", "debug"])
        with self.connect() as connection:
            blobs = b"".join(post(request("blob", [1000000], i)) for i in range(60))
            threading.Thread(target=self.send_quietly, args=(connection, blobs), daemon=True).start()
            self.assertTrue(eventually(lambda: worker.said("it does not read its answers")))
        self.still_serves()

    @staticmethod
    def send_quietly(connection, data):
        try:
            connection.sendall(data)
        except OSError:
            pass

    def test_who_resets_amid_pipelined_requests_leaves_nothing(self):
        worker = self.serve("?connections=20")
        for _ in range(20):
            with self.connect() as connection:
                connection.sendall(post(request("sleep_ms", [100])) + post(request("add", [1, 2])) * 70)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.still_serves()  # which it can only when they are gone
        before = time.monotonic()
        self.assertEqual(worker.stop(), 0)
        self.assertLess(time.monotonic() - before, 5)

    def test_what_is_answered_at_once_holds_nothing_back(self):
        self.serve()
        get, lost = b"GET /rpc HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
        for one, count in (get, 40), (lost, 2000):
            with self.connect() as connection:
                connection.sendall(one * count + post(request("add", [1, 2])))
                data = b""
                while not data.endswith(THREE):
                    part = connection.recv(65536)
                    self.assertTrue(part)
                    data += part
                self.assertEqual(data.count(b"HTTP/1.1 "), count + 1)

    def test_a_body_that_nobody_wants(self):
        self.serve()
        for head in (b"GET /rpc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                     b"OPTIONS /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                     b"GET /rpc/openrpc.json HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"):
            got = self.until_closed(head)
            self.assertEqual(got[0][0], 400)
            self.assertIn("nobody wants", json.loads(got[0][2])["error"]["message"])

    def test_who_leaves_costs_nothing(self):
        self.serve()
        for _ in range(20):
            with self.connect() as connection:
                connection.sendall(post(request("sleep_ms", [50])))
        for _ in range(20):
            with self.connect() as connection:
                connection.sendall(post(request("blob", [1000000])))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.still_serves()


def frame(payload, opcode=1, fin=True, mask=b"\1\2\3\4", rsv=0):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    size = len(payload)
    head += bytes([bit | size]) if size < 126 else bytes([bit | 126]) + struct.pack(">H", size)
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class WebSockets(Http):
    def open(self, **more):
        ws = websocket.create_connection(self.url.replace("http", "ws"), timeout=PATIENCE, **more)
        self.addCleanup(ws.close)
        return ws

    def handshake(self, more=""):
        """A raw connection behind its handshake."""
        connection = self.connect()
        connection.sendall((f"GET /rpc HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
                            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertIn(b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n", head)
        return connection

    def closes_with(self, text, code):
        with self.handshake() as connection:
            connection.sendall(text)
            got = read_all(connection)
            self.assertEqual((got[0], struct.unpack(">H", got[2:4])[0]), (0x88, code), text)

    def test_text_is_json_and_binary_is_messagepack(self):
        self.serve()
        ws = self.open(subprotocols=["x", "jsonrpc"])
        self.assertEqual(ws.subprotocol, "jsonrpc")
        ws.send(request("add", [1, 2]).decode())
        self.assertEqual(ws.recv_data(), (1, THREE))
        ws.send_binary(msgpack.packb([0, 7, "add", [1, 2]]))
        opcode, data = ws.recv_data()
        self.assertEqual((opcode, msgpack.unpackb(data)), (2, [1, 7, None, 3]))
        ws.ping("hello")
        self.assertEqual(ws.recv_data(control_frame=True), (10, b"hello"))
        ws.send("{bad")
        self.assertEqual(json.loads(ws.recv())["error"]["code"], -32700)
        self.assertEqual(self.open(subprotocols=["only"]).subprotocol, "only")
        self.assertIsNone(self.open().subprotocol)

    def test_replies_come_as_they_are_done(self):
        self.serve()
        ws = self.open()
        ws.send(request("sleep_ms", [300], 1).decode())
        ws.send(request("add", [1, 2], 2).decode())
        self.assertEqual([json.loads(ws.recv())["id"] for _ in range(2)], [2, 1])

    def test_websockets_with_many_calls_and_fragments(self):
        self.serve()
        url = self.url.replace("http", "ws")

        async def run():
            async with websockets.connect(url) as ws: # which offers permessage-deflate
                for i in range(500):
                    await ws.send(request("add", [i, 1], i).decode())
                got = {(reply := json.loads(await ws.recv()))["id"]: reply["result"] for _ in range(500)}
                self.assertEqual(got, {i: i + 1 for i in range(500)})
                text = request("add", [1, 2]).decode()
                await ws.send([text[:5], text[5:9], "", text[9:]])
                self.assertEqual(await ws.recv(), THREE.decode())
                await ws.send(text + " " * 200000)
                self.assertEqual(await ws.recv(), THREE.decode())
        asyncio.run(run())

    def test_close_codes(self):
        self.serve("?max_bytes=1000")
        self.closes_with(frame(struct.pack(">H", 1000), 8), 1000)
        self.closes_with(frame(b"\xff\xfe"), 1007)
        self.closes_with(frame(b"x" * 2000), 1009)
        self.closes_with(frame(b"{}", mask=None), 1002)
        self.closes_with(frame(b"{}", rsv=4), 1002)
        self.closes_with(frame(b"{}", opcode=3), 1002)
        self.closes_with(frame(b"{}", opcode=0), 1002)
        self.closes_with(frame(b"{", fin=False) + frame(b"}"), 1002)
        self.closes_with(frame(b"p" * 126, opcode=9), 1002)
        self.still_serves()

    def test_a_close_behind_calls_ends_them(self):
        self.serve()
        with self.handshake() as connection:
            connection.sendall(frame(request("sleep_ms", [50])) + frame(struct.pack(">H", 1001), 8))
            got = read_all(connection)
            self.assertEqual((got[0], got[2:4]), (0x88, struct.pack(">H", 1001)))
        self.still_serves()

    def test_a_control_frame_amid_a_message(self):
        self.serve()
        call = request("add", [1, 2])
        with self.handshake() as connection:
            connection.sendall(frame(call[:9], fin=False) + frame(b"!", 9) + frame(call[9:], opcode=0))
            data = b""
            while len(data) < 3 + 2 + len(THREE):
                data += connection.recv(4096)
            self.assertEqual(data, b"\x8a\x01!" + b"\x81" + bytes([len(THREE)]) + THREE)

    def test_frames_in_single_bytes(self):
        self.serve()
        call = request("add", [1, 2])
        with self.handshake() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in frame(call) + frame(call):
                connection.sendall(bytes([byte]))
            data = b""
            while len(data) < 2 * (2 + len(THREE)):
                data += connection.recv(4096)
            self.assertEqual(data, 2 * (b"\x81" + bytes([len(THREE)]) + THREE))

    def test_slow_frames_and_messages_have_their_time(self):
        self.serve("?receive_timeout_ms=300")
        self.closes_with(frame(b"x" * 50)[:20], 1008)
        self.closes_with(frame(b"{", fin=False), 1008)
        self.closes_with(b"\x81", 1008)
        self.still_serves()

    def test_idle_ones_are_pinged_and_the_dead_closed(self):
        self.serve("?idle_timeout_ms=300")
        ws = self.open()
        for _ in range(3): # websocket-client answers by itself
            self.assertEqual(ws.recv_data(control_frame=True)[0], 9)
        ws.send(request("add", [1, 2]).decode())
        while (got := ws.recv_data(control_frame=True))[0] == 9:
            pass
        self.assertEqual(got, (1, THREE))
        with self.handshake() as connection:
            self.assertEqual(read_all(connection)[:2], b"\x89\x00") # and then its end

    def test_one_that_has_not_spoken_yet_stays(self):
        self.serve("?receive_timeout_ms=300")
        ws = self.open()
        ws.settimeout(1)
        with self.assertRaises(websocket.WebSocketTimeoutException):
            ws.recv()
        ws.send(request("add", [1, 2]).decode())
        self.assertEqual(ws.recv(), THREE.decode())

    def test_many_small_fragments_take_what_they_have(self):
        worker = self.serve()
        with self.handshake() as connection:
            before = resident_bytes(worker.process.pid)
            connection.sendall(frame(b"[", fin=False))
            piece = frame(b" ", opcode=0, fin=False)
            for _ in range(50):
                connection.sendall(piece * 10000)
            connection.sendall(frame(b"]", opcode=0))
            self.assertEqual(connection.recv(2)[0], 0x81)
            if "asan" not in program("") and "tsan" not in program(""):
                self.assertLess(resident_bytes(worker.process.pid) - before, 20 << 20)

    def test_a_drain_says_that_it_goes_away(self):
        worker = self.serve()
        ws = self.open()
        ws.send(request("sleep_ms", [200]).decode())
        ws.send(request("add", [1, 2]).decode())
        self.assertEqual(ws.recv_data(), (1, THREE))
        threading.Thread(target=worker.stop).start()
        self.assertEqual(json.loads(ws.recv())["result"], 200)
        opcode, data = ws.recv_data(control_frame=True)
        self.assertEqual((opcode, struct.unpack(">H", data[:2])[0]), (8, 1001))

    def test_other_versions_and_keys_are_refused(self):
        self.serve()
        base = b"GET /rpc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        got = self.exchange(base + b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")[0]
        self.assertEqual((got[0], got[1]["sec-websocket-version"]), (426, "13"))
        self.assertEqual(self.exchange(base + b"Sec-WebSocket-Version: 13\r\n\r\n")[0][0], 400)

    def test_a_thousand_idle_ones(self):
        worker = self.serve()
        for _ in range(50):
            self.handshake()
        before = resident_bytes(worker.process.pid)
        idle = [self.handshake() for _ in range(1000)]
        for connection in idle:
            connection.sendall(frame(request("add", [1, 2])))
        for connection in idle:
            self.assertTrue(connection.recv(4096).endswith(THREE))
        if "asan" not in program("") and "tsan" not in program(""):  # whose memory is not the worker's
            self.assertLess((resident_bytes(worker.process.pid) - before) / 1000, 4096)


class Service(http.server.BaseHTTPRequestHandler):
    """Of others: answers as its server's script says."""
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def log_message(self, *_):
        pass

    def do_POST(self):  # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers, body))
        self.server.script(self, body)

    def say(self, status, body=b"", fields=(), kind="application/json"):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if body or status not in (204,):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def adds(handler, body):
    call = json.loads(body)
    handler.say(200, json.dumps({"jsonrpc": "2.0", "result": sum(call["params"]), "id": call["id"]}).encode())


class Proxy(threading.Thread):
    """One that passes bytes on, for who knows its password."""

    def __init__(self, password=None):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.password = password
        self.asked = []
        self.start()

    def url(self, user=""):
        return f"http%3A%2F%2F{user}127.0.0.1%3A{self.listener.getsockname()[1]}"

    def run(self):
        while True:
            try:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    def serve(self, client):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.asked.append(head.split()[1].decode())
        if self.password and f"Proxy-Authorization: Basic {base64.b64encode(self.password).decode()}".encode() not in head:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        host, _, port = self.asked[-1].rpartition(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        other = threading.Thread(target=self.copy, args=(server, client), daemon=True)
        other.start()
        self.copy(client, server)
        other.join()

    @staticmethod
    def copy(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class OurCaller(Case):
    def service(self, script=adds):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        server.daemon_threads = True
        server.seen, server.script, server.connections = [], script, 0
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}"
        return server

    def test_what_is_sent(self):
        server = self.service()
        self.assertEqual(rpcrew("call", self.url + "/a%20b/c?query=k%3Dv%26x", "add", "1", "2").out, "3\n")
        path, fields, body = server.seen[0]
        self.assertEqual(path, "/a%20b/c?k=v&x")
        self.assertEqual(fields["Content-Type"], "application/json")
        self.assertEqual(fields["Accept"], "application/json")
        self.assertEqual(fields["Host"], self.url[7:])
        self.assertNotIn("Authorization", fields)
        self.assertLessEqual(int(fields["Rpcrew-Timeout-Ms"]), 30000)
        self.assertEqual(json.loads(body)["params"], [1, 2])

    def test_through_a_proxy(self):
        proxy = Proxy(b"me:pa@ss")
        self.addCleanup(proxy.listener.close)
        for scheme in "http", "ws":
            url = f"{scheme}://127.0.0.1:{free_port()}/"
            self.worker("conformance", "--listen", url)
            proxy.asked.clear()
            lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(50))
            got = rpcrew("batch", "-c", "5", f"{url}?proxy={proxy.url('me%3Apa%2540ss%40')}", stdin=lines)
            self.assertEqual((got.code, len(got.out.splitlines())), (0, 50), got.out + got.err)
            self.assertEqual(set(proxy.asked), {url.split("/")[2]})
            got = rpcrew("call", "-t", "5", f"{url}?proxy={proxy.url()}", "add", "1", "2")
            self.assertIn("the proxy: HTTP 407", got.err)
        got = rpcrew("call", f"http://127.0.0.1:1/?proxy={proxy.url('me%3Apa%2540ss%40')}", "add", "1", "2")
        self.assertNotIn("pa%2540ss", got.err)
        self.assertIn("the proxy: HTTP 502", got.err)
        self.assertIn("proxy wants http://host:port", rpcrew("call", "http://a/?proxy=socks5%3A%2F%2Fb", "m").err)

    def test_credentials(self):
        server = self.service()
        token = self.socket_path("token")
        with open(token, "w", encoding="ascii") as file:
            file.write("s3cret\n")
        self.assertEqual(rpcrew("call", self.url + f"?bearer_file={token}", "add", "1", "2").out, "3\n")
        self.assertEqual(server.seen[-1][1]["Authorization"], "Bearer s3cret")
        self.assertEqual(rpcrew("call", self.url.replace("//", "//me:pa%40ss@"), "add", "1", "2").out, "3\n")
        self.assertEqual(server.seen[-1][1]["Authorization"], "Basic " + base64.b64encode(b"me:pa@ss").decode())
        for url in self.url, self.url.replace("//", "//me:pa%40ss@"):
            got = rpcrew("call", "-H", "authorization: Bearer mine", "-H", "X-Trace: é\t1", url, "add", "1", "2")
            self.assertEqual(got.out, "3\n", got.err)
            fields = server.seen[-1][1]
            self.assertEqual(fields.get_all("Authorization"), ["Bearer mine"])  # and not the URL's besides
            self.assertEqual(fields["X-Trace"].encode("latin-1").decode(), "é\t1")
        with subprocess.Popen([program("rpcrew"), "batch", self.url + f"?bearer_file={token}"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as caller:
            def sent():
                caller.stdin.write('{"method":"add","params":[1,2]}\n')
                caller.stdin.flush()
                self.assertEqual(json.loads(caller.stdout.readline())["result"], 3)
                return server.seen[-1][1]["Authorization"]
            first = sent()
            with open(token + ".new", "w", encoding="utf-8") as file:
                file.write("renewed\n")
            os.replace(token + ".new", token)
            eventually(lambda: sent() == "Bearer renewed")
            self.assertNotEqual(first, "Bearer renewed")
            caller.stdin.close()
        got = rpcrew("call", self.url + "?bearer_file=/nowhere", "add", "1", "2")
        self.assertIn("bearer_file '/nowhere': No such file", got.err)

    def test_connections_are_kept(self):
        server = self.service()
        lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(50))
        got = rpcrew("batch", "-c", "1", self.url, stdin=lines)
        self.assertEqual(got.code, 0, got.err)
        self.assertEqual((len(server.seen), server.connections), (50, 1))
        got = rpcrew("batch", "-c", "8", self.url, stdin=lines)
        self.assertEqual(got.code, 0, got.err)
        self.assertEqual(len(server.seen), 100)
        self.assertLessEqual(server.connections, 10)

    def test_an_answer_with_the_end_of_its_connection(self):
        def corked(handler, body):
            handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # so that both come at once
            adds(handler, body)
            handler.close_connection = True
        server = self.service(corked)
        lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(10))
        got = rpcrew("batch", "-c", "1", self.url, stdin=lines)
        self.assertEqual((got.code, len(server.seen)), (0, 10), got.out)

    def test_an_answer_too_many_is_nobodys(self):
        def twice(handler, body):
            wrong = json.dumps({"jsonrpc": "2.0", "result": "another's", "id": json.loads(body)["id"] + 1}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            good = json.dumps({"jsonrpc": "2.0", "result": 3, "id": json.loads(body)["id"]}).encode()
            handler.wfile.write(head % len(good) + good + head % len(wrong) + wrong)
        self.service(twice)
        got = rpcrew("batch", "-c", "1", self.url, stdin='{"method":"add","params":[1,2]}\n' * 5)
        self.assertEqual(got.out.count('"result":3'), 5, got.out)

    def test_connections_need_not_be_kept(self):
        server = self.service()
        got = rpcrew("batch", "-c", "1", self.url + "/?keep_ms=0", stdin='{"method":"add","params":[1,2]}\n' * 5)
        self.assertEqual((got.code, server.connections), (0, 5), got.out)

    def test_503_is_not_executed_only_where_it_says_so(self):
        refusal = b'{"jsonrpc":"2.0","error":{"code":-32040,"message":"Overloaded"},"id":null}'
        for fields, body, executed in (([], b"sorry", "unknown"), ([("Retry-After", "1")], b"", "no"), ([], refusal, "no")):
            self.service(lambda handler, _, fields=fields, body=body: handler.say(503, body, fields))
            got = rpcrew("batch", self.url, stdin='{"method":"add","params":[1,2]}\n')
            error = json.loads(got.out)["error"]
            self.assertEqual((error["status"], error["executed"]), ("CREW_OVERLOADED", executed))

    def test_what_a_query_holds_is_not_shown(self):
        got = rpcrew("call", f"http://127.0.0.1:{free_port()}/x?query=key%3DS3CRET&keep_ms=5", "m")
        self.assertNotIn("S3CRET", got.err)
        self.assertIn("query=***&keep_ms=5", got.err)

    def test_statuses(self):
        page = b"<html>sorry</html>"
        for status, body, words, code in (
                (404, page, "nothing serves this endpoint (HTTP 404", None), (403, page, "HTTP 403", None),
                (503, page, "HTTP 503", None), (101, b"", "HTTP 101", None), (429, page, "HTTP 429", None), (413, page, "HTTP 413", None),
                (502, page, "HTTP 502 Bad Gateway", None), (302, page, "to /elsewhere: redirects are not followed", None),
                (200, page, "broke the protocol", None), (204, b"", "it is empty", None),
                (500, None, "no such thing (code 7", 7), (404, None, "no such thing (code 7", 7)):
            def script(handler, request_body, status=status, body=body):
                answer = body if body is not None else json.dumps(
                    {"jsonrpc": "2.0", "error": {"code": 7, "message": "no such thing"},
                     "id": json.loads(request_body)["id"]}).encode()
                handler.say(status, answer, [("Location", "/elsewhere")])
            server = self.service(script)
            got = rpcrew("call", self.url, "add", "1", "2")
            self.assertIn(words, got.err, status)
            self.assertEqual(len(server.seen), 1)

    def test_bodies_in_chunks_and_to_the_end(self):
        answer = b'{"jsonrpc":"2.0","result":"whole","id":1}'

        def chunks(handler, _):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for byte in answer:
                handler.wfile.write(b"1\r\n%c\r\n" % byte)
            handler.wfile.write(b"0\r\nA-Trailer: x\r\n\r\n")

        def to_the_end(handler, _):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + answer)
            handler.close_connection = True
        for script in chunks, to_the_end:
            self.service(script)
            self.assertEqual(rpcrew("call", self.url, "m").out, '"whole"\n')

    def test_a_request_that_was_not_answered_is_not_sent_again(self):
        def once(handler, body):
            if len(handler.server.seen) > 1:
                adds(handler, body)
            handler.close_connection = True
        server = self.service(once)
        got = rpcrew("call", self.url, "add", "1", "2")
        self.assertEqual((got.code != 0, len(server.seen)), (True, 1))
        self.assertRegex(got.err, "gone|closed|lost")
        server = self.service(once)
        self.assertEqual(rpcrew("call", "-i", self.url, "add", "1", "2").out, "3\n")
        self.assertEqual(len(server.seen), 2)

    def test_one_way_calls_are_confirmed_by_their_status(self):
        for status, code in ((204, 0), (200, 0), (202, 0), (404, 3), (500, 7), (502, 7), (400, 7), (301, 7), (408, 7)):
            server = self.service(lambda handler, _, status=status: handler.say(status))
            got = rpcrew("notify", "--retry", "-t", "0.7", self.url, "update", "1") if code == 7 else rpcrew("notify", self.url, "update", "1")
            self.assertEqual(got.code, code, (status, got.err))
            self.assertRegex(got.err, f"HTTP {status}" if code else "^$")
            self.assertEqual(len(server.seen), 1)  # who may have run it is not asked again
            self.assertNotIn("id", json.loads(server.seen[0][2]))

    def test_who_speaks_first_is_not_tried_again_and_again(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        count = []

        def serve():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                count.append(connection)
                connection.sendall(b"220 smtp.example ESMTP\r\n")
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(lambda: [one.close() for one in count])
        got = rpcrew("call", "-t", "3", f"http://127.0.0.1:{listener.getsockname()[1]}/", "add", "1", "2")
        self.assertNotEqual(got.code, 0)
        self.assertLess(len(count), 20)

    def test_rubbish_says_what_it_is(self):
        def rubbish(handler, _):
            handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            handler.close_connection = True
        self.service(rubbish)
        self.assertIn("broke the protocol", rpcrew("call", self.url, "add", "1", "2").err)

    def test_rubbish_is_a_bad_reply_and_the_next_call_is_served(self):
        def rubbish(handler, body):
            if len(handler.server.seen) % 2:
                handler.wfile.write(b"220 smtp.example ESMTP\r\n")
                handler.close_connection = True
            else:
                adds(handler, body)
        self.service(rubbish)
        got = rpcrew("batch", "-c", "1", self.url, stdin='{"method":"add","params":[1,2]}\n' * 4)
        self.assertEqual(got.out.count('"result":3'), 2, got.out + got.err)

    def websocket_service(self, handler):
        url, ends = [], []
        started = threading.Event()

        async def serve():
            async with websockets.serve(handler, "127.0.0.1", 0) as server:
                url.append(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/any")
                done = asyncio.Event()
                ends.append((asyncio.get_running_loop(), done))
                started.set()
                await done.wait()
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        self.addCleanup(thread.join)
        self.assertTrue(started.wait(PATIENCE))
        self.addCleanup(ends[0][0].call_soon_threadsafe, ends[0][1].set)
        return url[0]

    def test_a_service_of_websockets_is_called(self):
        async def handler(ws, *_):
            async for text in ws:
                call = json.loads(text)
                await ws.send(json.dumps({"jsonrpc": "2.0", "result": sum(call["params"]), "id": call["id"]}))
        url = self.websocket_service(handler)
        self.assertEqual(rpcrew("call", url, "add", "1", "2").out, "3\n")
        lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(200))
        got = rpcrew("batch", "-c", "50", url, stdin=lines)
        self.assertEqual(sorted(json.loads(line)["result"] for line in got.out.splitlines()), list(range(1, 201)))

    def test_deadlines_go_over_websocket_to_workers_of_ours(self):
        url = f"ws://127.0.0.1:{free_port()}/"
        worker = self.worker("conformance", "--listen", url, "--threads", "1", "--access-log")
        slow = websocket.create_connection(url, timeout=PATIENCE)
        slow.send(request("sleep_ms", [1500], 1))
        slow.send(request("rpc.ping", [], 2))
        self.assertEqual(json.loads(slow.recv())["id"], 2)  # it is busy with the first by now
        self.assertEqual(rpcrew("call", "-t", "0.3", url, "update", "1").code, 4)
        self.assertEqual(json.loads(slow.recv())["id"], 1)
        slow.close()
        eventually(lambda: "method=update ending=" in worker.text())
        self.assertIn("method=update ending=expired", worker.text())
        self.assertEqual(rpcrew("call", "-H", "X: y", url + "?peer=rpcrew", "headers").out, '{"x":"y"}\n')

        for timeout in "28", "120":  # about a worker's own bound, which it need not be told, and more
            got = rpcrew("call", "-v", "-t", timeout, url, "add", "1", "2")
            self.assertEqual("rpc.with" in got.err, timeout == "120", got.err)

        async def handler(ws, *_):  # and not to others
            call = json.loads(await ws.recv())
            await ws.send(json.dumps({"jsonrpc": "2.0", "result": call["method"], "id": call["id"]}))
        self.assertEqual(rpcrew("call", "-t", "9", self.websocket_service(handler), "m").out, '"m"\n')

    def test_why_a_service_closes_its_websocket_is_told(self):
        async def handler(ws, *_):
            code = json.loads(await ws.recv())["params"][0]
            await ws.close(code, "see the manual" if code == 1008 else "")
        url = self.websocket_service(handler)
        got = rpcrew("call", url, "close", "1008")
        self.assertIn("the other end closed WebSocket with 1008: see the manual", got.err)
        self.assertRegex(rpcrew("call", url, "close", "1013").err, "closed WebSocket with 1013,")

    def test_where_no_websocket_is_the_status_is_told(self):
        self.service()
        got = rpcrew("call", self.url.replace("http", "ws"), "add", "1", "2")
        self.assertRegex(got.err, r"HTTP 501 .*: it does not go on as WebSocket")
        self.assertTrue(re.search(r"after \d", got.err))


if __name__ == "__main__":
    main()
