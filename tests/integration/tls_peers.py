"""TLS: certificates that are good and that are not, both ways; those of callers; renewal; curl, requests, openssl and
websocket-client at the other end."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import requests
import websocket
from http_peers import Proxy
from stream_peers import read_all
from support import PATIENCE, Case, eventually, free_port, main, program, request, rpcrew

THREE = b'{"jsonrpc":"2.0","result":3,"id":1}'
SCHEMES = "https", "wss", "tls"


class Tls(Case):
    @classmethod
    def setUpClass(cls):
        cls.certificates = os.environ["RPCREW_CERTIFICATES"]

    def file(self, name):
        return os.path.join(self.certificates, name)

    def own(self, name="server"):
        return f"certfile={self.file(name + '.pem')}&keyfile={self.file(name + '.key')}"

    def trust(self, name="ca"):
        return f"cacertfile={self.file(name + '.pem')}"

    def serve(self, scheme, options=None, name="conformance"):
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        return self.worker(name, "--listen", f"{self.url}?{options or self.own()}")


class Full(Tls):
    def test_all_that_asks_how_it_is_is_read(self):
        """Also what comes in more records than are read in one turn."""
        self.serve("https", self.own() + "&in_flight=1", "conformance")
        url = f"https://localhost:{self.port}?{self.trust()}"
        callers = [subprocess.Popen([os.path.join(os.environ["RPCREW_BIN"], "rpcrew"), "call", url, "sleep_ms", "1500"],
                                    stdout=subprocess.DEVNULL) for _ in range(4)]
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain, \
             context.wrap_socket(plain, server_hostname="localhost") as secure:
            for _ in range(40):
                secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            secure.settimeout(PATIENCE)
            got = b""
            while got.count(b'{"status":"ok"}') < 40:
                part = secure.recv(65536)
                self.assertTrue(part)
                got += part
        for caller in callers:
            self.assertEqual(caller.wait(), 0)


class Callers(Tls):
    """Ours, who look at the worker's certificate."""

    def test_a_good_one(self):
        for scheme in SCHEMES:
            self.serve(scheme)
            for host in "127.0.0.1", "localhost":
                got = rpcrew("call", f"{scheme}://{host}:{self.port}?{self.trust()}", "add", "1", "2")
                self.assertEqual((got.out, got.err), ("3\n", ""))
            got = rpcrew("call", "-r", f"{self.url}?{self.trust()}", "blob", "3000000")
            self.assertEqual(len(got.out.strip()), 3000000)

    def refused(self, url, words):
        got = rpcrew("call", "-t", "5", url, "add", "1", "2")
        self.assertNotEqual(got.code, 0)
        self.assertIn(words, got.err)

    def test_bad_ones_are_refused_with_words(self):
        for scheme in SCHEMES:
            self.serve(scheme)
            self.refused(self.url, "certificate")  # an authority that the system does not know
            self.refused(f"{self.url}?{self.trust('mallory')}", "certificate")
            self.assertEqual(rpcrew("call", f"{self.url}?verify=verify_none", "add", "1", "2").out, "3\n")
            self.serve(scheme, self.own("old"))
            self.refused(f"{self.url}?{self.trust()}", "certificate has expired")
            self.serve(scheme, self.own("other"))
            self.refused(f"{self.url}?{self.trust()}", "IP address mismatch")
            self.refused(f"{scheme}://localhost:{self.port}?{self.trust()}", "hostname mismatch")

    def test_where_there_is_no_tls(self):
        self.port = free_port()
        self.worker("conformance", "--listen", f"tcp://127.0.0.1:{self.port}")
        self.refused(f"tls://127.0.0.1:{self.port}?{self.trust()}", "TLS")
        self.serve("https")
        got = rpcrew("call", "-t", "5", self.url.replace("https", "http"), "add", "1", "2")
        self.assertNotEqual(got.code, 0)

    def test_urls_that_cannot_be(self):
        for options, words in ((self.own("nowhere"), "No such file"), (f"certfile={self.file('ca.pem')}", "keyfile"),
                               (f"certfile={self.file('server.pem')}&keyfile={self.file('alice.key')}", "mismatch"),
                               (self.own() + "&fail_if_no_peer_cert=yes", "verify_peer"),
                               (self.own() + "&verify=verify_peer", "cacertfile"),
                               (self.own() + "&cacertfile=/dev/null", "cacertfile")):
            worker = self.worker("conformance", "--listen", f"tls://127.0.0.1:{free_port()}?{options}", wait=False)
            self.assertEqual(worker.process.wait(PATIENCE) != 0, True)
            self.assertIn(words, worker.text())


    def test_through_a_proxy(self):
        proxy = Proxy()
        self.addCleanup(proxy.listener.close)
        for scheme in "https", "wss":
            self.serve(scheme)
            lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(50))
            got = rpcrew("batch", "-c", "5", f"{self.url}?{self.trust()}&proxy={proxy.url()}", stdin=lines)
            self.assertEqual((got.code, len(got.out.splitlines())), (0, 50), got.out + got.err)
            self.assertIn(f"127.0.0.1:{self.port}", proxy.asked)

    def test_a_further_connection_that_does_not_greet_is_given_up(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file("server.pem"), self.file("server.key"))
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        silent = []

        def serve():
            for i in range(3):
                plain = listener.accept()[0]
                if i == 1:
                    silent.append(plain)
                    continue
                with context.wrap_socket(plain, server_side=True) as secure:
                    data = b""
                    while not data.endswith(b"}"):
                        data += secure.recv(4096)
                    body = b'{"jsonrpc":"2.0","result":3,"id":%d}' % json.loads(data.partition(b"\r\n\r\n")[2])["id"]
                    secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(lambda: [one.close() for one in silent])
        self.addCleanup(thread.join)
        url = f"https://localhost:{listener.getsockname()[1]}/?{self.trust()}"
        got = rpcrew("batch", "-c", "1", url, stdin='{"method":"add"}\n' * 2)
        self.assertEqual(got.out.count('"result":3'), 2, got.out)

    def test_a_key_that_wants_a_passphrase_is_refused(self):
        subprocess.run(["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", self.file("server.key"), "-out",
                        self.socket_path("locked.key")], check=True)
        own = f"certfile={self.file('server.pem')}&keyfile={self.socket_path('locked.key')}"
        worker = self.worker("conformance", "--listen", f"tls://127.0.0.1:{free_port()}?{own}", wait=False)
        self.assertNotEqual(worker.process.wait(PATIENCE), 0)
        self.assertIn("keyfile", worker.text())


class Certificates(Tls):
    """Of callers, which a worker asks for."""

    def test_are_asked_for_and_name_the_caller(self):
        for scheme in SCHEMES:
            self.serve(scheme, f"{self.own()}&{self.trust()}&verify=verify_peer")
            self.assertEqual(rpcrew("call", f"{self.url}?{self.trust()}", "peer").out, '""\n')
            alice = rpcrew("call", f"{self.url}?{self.trust()}&{self.own('alice')}", "peer")
            self.assertEqual(alice.out, '"alice@example.org"\n', alice.err)
            mallory = rpcrew("call", "-t", "5", f"{self.url}?{self.trust()}&{self.own('mallory')}", "peer")
            self.assertRegex(mallory.err, "TLS: .*alert (unknown ca|bad certificate|decrypt error)")
            self.assertEqual(mallory.code, 3)

    def test_are_required(self):
        for scheme in SCHEMES:
            worker = self.serve(scheme, f"{self.own()}&{self.trust()}&verify=verify_peer&fail_if_no_peer_cert=yes")
            for more, why in ("", "certificate required"), ("&" + self.own("mallory"), "unknown ca"), ("&" + self.own("old"), "certificate expired"):
                got = rpcrew("call", "-t", "5", f"{self.url}?{self.trust()}{more}", "peer")
                self.assertRegex(got.err, f"TLS: .*alert {why}, after")
                self.assertEqual(got.code, 3)  # at once, and not at its deadline
            self.assertRegex(worker.text(), "WARN  a caller's TLS failed .* why=\"TLS: peer did not return a certificate\"")
            self.assertRegex(worker.text(), "WARN  a caller's TLS failed .* why=\"the other end's certificate: certificate has expired\"")
            self.assertEqual(rpcrew("call", f"{self.url}?{self.trust()}&{self.own('alice')}", "peer").out, '"alice@example.org"\n')

    def test_of_a_caller_are_read_again_when_they_change(self):
        self.serve("https", f"{self.own()}&{self.trust()}&verify=verify_peer")
        for end in "pem", "key":
            shutil.copy(self.file(f"alice.{end}"), self.socket_path(f"mine.{end}"))
        url = f"{self.url}?{self.trust()}&certfile={self.socket_path('mine.pem')}&keyfile={self.socket_path('mine.key')}&keep_ms=0"
        with subprocess.Popen([program("rpcrew"), "batch", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
            def name():
                caller.stdin.write('{"method":"peer"}\n')
                caller.stdin.flush()
                return json.loads(caller.stdout.readline())["result"]
            self.assertEqual(name(), "alice@example.org")
            for end in "key", "pem":
                shutil.copy(self.file(f"other.{end}"), self.socket_path(f"new.{end}"))
                os.replace(self.socket_path(f"new.{end}"), self.socket_path(f"mine.{end}"))
            eventually(lambda: name() == "other.example")
            caller.stdin.close()

    def test_that_are_not_asked_for_name_nobody(self):
        self.serve("tls")
        self.assertEqual(rpcrew("call", f"{self.url}?{self.trust()}&{self.own('alice')}", "peer").out, '""\n')

    def test_a_user_of_this_machine_has_a_number(self):
        path = self.socket_path()
        self.worker("conformance", "--listen", f"unix://{path}")
        self.assertEqual(rpcrew("call", f"unix://{path}", "peer").out, f'"uid:{os.getuid()}"\n')

    def test_are_read_again_when_they_change(self):
        for name in "server", "other":
            for end in "pem", "key":
                shutil.copy(self.file(f"{name}.{end}"), self.socket_path(f"{name}.{end}"))
        own = f"certfile={self.socket_path('server.pem')}&keyfile={self.socket_path('server.key')}"
        worker = self.serve("https", own)

        def names():
            context = ssl.create_default_context(cafile=self.file("ca.pem"))
            context.check_hostname = False
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain, context.wrap_socket(plain) as secure:
                return secure.getpeercert()["subjectAltName"]
        self.assertEqual(names()[0], ("DNS", "localhost"))
        for end in "key", "pem":
            os.replace(self.socket_path(f"other.{end}"), self.socket_path(f"server.{end}"))
        eventually(lambda: names()[0] == ("DNS", "other.example"))
        with open(self.socket_path("server.pem"), "w", encoding="ascii") as file:
            file.write("rubbish")
        eventually(lambda: names() and worker.said("the old ones stay"))
        self.assertEqual(names()[0], ("DNS", "other.example"))


class Clients(Tls):
    """Of others."""

    def test_curl_requests_and_websocket_client(self):
        self.serve("https")
        call = request("add", [1, 2])
        got = subprocess.run(["curl", "-sS", "--cacert", self.file("ca.pem"), "-d", call, self.url], capture_output=True, check=True)
        self.assertEqual(got.stdout, THREE)
        with requests.Session() as session:
            for _ in range(5):
                self.assertEqual(session.post(self.url, data=call, verify=self.file("ca.pem"), timeout=PATIENCE).content, THREE)
        ws = websocket.create_connection(self.url.replace("https", "wss"), sslopt={"ca_certs": self.file("ca.pem")}, timeout=PATIENCE)
        self.addCleanup(ws.close)
        ws.send(call.decode())
        self.assertEqual(ws.recv(), THREE.decode())

    def test_pythons_sockets_with_many_calls_and_large_ones(self):
        self.serve("tls")
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        with context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), PATIENCE), server_hostname="localhost") as secure:
            count = 300
            secure.sendall(b"".join(request("blob", [20000], i) + b"\n" for i in range(count)))
            data = b""
            while data.count(b"\n") < count:
                data += secure.recv(65536)
            self.assertEqual({json.loads(line)["id"] for line in data.splitlines()}, set(range(count)))

    def test_old_versions_are_refused_and_http_1_1_is_chosen(self):
        self.serve("https")

        def openssl(*words):
            got = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.file("ca.pem"), *words],
                                 input="", capture_output=True, text=True, check=False)
            return got.stdout + got.stderr
        self.assertIn("ALPN protocol: http/1.1", openssl("-alpn", "h2,http/1.1"))
        self.assertIn("TLSv1.2", openssl("-tls1_2"))
        self.assertIn("Cipher is (NONE)", openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))

    def test_who_does_not_greet_has_his_time(self):
        options = self.own() + "&receive_timeout_ms=300"
        for scheme in "https", "tls":
            self.serve(scheme, options)
            for text in b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n":
                with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
                    connection.sendall(text)
                    before = time.monotonic()
                    read_all(connection)  # an alert, or nothing; no reset
                    self.assertLess(time.monotonic() - before, PATIENCE)
            self.assertEqual(rpcrew("call", f"{self.url}?{self.trust()}", "add", "1", "2").out, "3\n")

    def test_a_drain_answers_what_is_under_way(self):
        worker = self.serve("tls")
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        with context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), PATIENCE), server_hostname="localhost") as secure:
            secure.sendall(request("sleep_ms", [300]) + b"\n" + request("add", [1, 2]) + b"\n")
            self.assertEqual(secure.recv(4096).strip(), THREE)
            self.assertEqual(worker.stop(), 0)
            self.assertIn(b'"result":300', secure.recv(4096))
            self.assertEqual(secure.recv(4096), b"")  # and its end was said


class Plain(Tls):
    def test_beyond_loopback_says_so(self):
        for url, says in ((f"http://*:{free_port()}/", True), (f"tcp://0.0.0.0:{free_port()}", True),
                          (f"zmq+tcp://*:{free_port()}", True), (f"zmq+tcp://127.0.0.1:{free_port()}", False),
                          (f"http://127.0.0.1:{free_port()}/", False), (f"tls://*:{free_port()}?{self.own()}", False)):
            self.assertEqual(self.worker("conformance", "--listen", url).said("without TLS"), says, url)


if __name__ == "__main__":
    main()
