"""Callers and services that others wrote in Go and C++, both ways: net/rpc with jsonrpc and go-msgpack, libjsonrpccpp."""
import os
import shutil
import subprocess
import tempfile
import unittest

from support import Case, eventually, free_port, main, rpcrew

HERE = os.path.dirname(os.path.abspath(__file__))


class Peers(Case):
    """A program of somebody else's language, built once a class."""
    command = None

    @classmethod
    def setUpClass(cls):
        cls.room = tempfile.mkdtemp()
        cls.peer = os.path.join(cls.room, "peer")
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "",
               "GOCACHE": os.path.join(cls.room, "cache"), "HOME": cls.room}
        subprocess.run([word.format(peer=cls.peer, here=HERE) for word in cls.command], env=env, check=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.room)

    def call_us(self, *words):
        got = subprocess.run([self.peer, *words], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        return got.stdout.splitlines()

    def serve(self, *words):
        process = subprocess.Popen([self.peer, *words], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "serving\n")
        return process

    def check(self, url, *words, code=0, out="", says=""):
        got = rpcrew("call", "--timeout", "10", url, *words)
        self.assertEqual((got.code, got.out), (code, out), got.err)
        self.assertIn(says, got.err)


class Go(Peers):
    command = "go", "build", "-o", "{peer}", "{here}/go/peer.go"

    def test_its_clients_call_us(self):
        address = f"127.0.0.1:{free_port()}"
        self.worker("conformance", "--listen", f"tcp://{address}?error=string")
        for protocol in "jsonrpc", "msgpack":
            with self.subTest(protocol):
                self.assertEqual(self.call_us(protocol, "call", address), [
                    "<nil> naïve ✓", "<nil> {1 2 three}", "Method not found", "Invalid params: param 'message' is missing",
                    "<nil> {0 0 }", "<nil> 2", "200 right"])

    def test_we_call_its_services(self):
        for protocol, flag in ("jsonrpc", "jsonrpc1"), ("msgpack", "msgpack"):
            with self.subTest(protocol):
                address = f"127.0.0.1:{free_port()}"
                self.serve(protocol, "serve", address)
                url = "tcp://" + address
                self.check(url, "-p", flag, "Service.Add", '{"A": 1, "B": 2}', out="3\n")
                self.check(url, "-p", flag, "Service.Echo", "naïve ✓", out='"naïve ✓"\n')
                self.check(url, "-p", flag, "Service.Fail", "luck", code=1, says="no luck")
                self.check(url, "-p", flag, "Service.Nope", "1", code=1, says="can't find method")


class Cpp(Peers):
    command = ("g++", "-std=c++14", "-Wno-deprecated", "-o", "{peer}", "{here}/cpp/peer.cpp",
               "-ljsonrpccpp-client", "-ljsonrpccpp-server", "-ljsonrpccpp-common", "-ljsoncpp")
    said = ["3", '"na\\u00efve"', "2",
            "-32601 METHOD_NOT_FOUND: The method being requested is not available on this server: Method not found", "7 no"]

    def test_its_clients_call_us(self):
        port, path = free_port(), self.socket_path()
        http = f"http://127.0.0.1:{port}/"
        # its client takes 204 for a failure
        self.worker("conformance", "--listen", http + "?notify_status=200", "--listen", "unix://" + path)
        self.assertEqual(self.call_us("http", "call", http), [*self.said, "noted", "1", "2", "3"])
        self.assertEqual(self.call_us("http", "call", http, "1"), [*self.said[:2], *self.said[3:], "noted"])
        self.assertEqual(self.call_us("unix", "call", path), [*self.said, "1", "2", "3"])

    def test_we_call_its_services(self):
        path, port = self.socket_path(), free_port()
        for kind, where, url in ("unix", path, "unix://" + path), ("http", str(port), f"http://127.0.0.1:{port}/"):
            with self.subTest(kind):
                service = self.serve(kind, "serve", where)
                self.check(url, "add", "1", "2", out="3\n")
                self.check(url, "greet", "name=Ann", out='"Hello Ann"\n')
                self.check(url, "-p", "jsonrpc1", "add", "1", "2", out="3\n")
                self.check(url, "fail", code=1, says="no luck (code -32099)")
                self.check(url, "nope", code=1, says="(code -32601)")
                self.assertEqual(rpcrew("notify", url, "note", "text").code, 0)
                self.assertEqual(service.stdout.readline(), "noted text\n")


if __name__ == "__main__":
    main()
