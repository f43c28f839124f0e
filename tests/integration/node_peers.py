"""Callers and services written for Node: amqplib, rabbitmq-client and zeromq, both ways; and what other people's
schemas say of our descriptions."""
import json
import os
import signal
import subprocess
import uuid

from support import Case, eventually, free_port, main, program, rpcrew

NODE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node")

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED = shared_file.readline().strip()


def node(*words, **more):
    return subprocess.run(["node", *words], cwd=NODE, capture_output=True, text=True, timeout=60, check=False, **more)


class Peers(Case):
    def service(self, *words):
        process = subprocess.Popen(["node", *words], cwd=NODE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.send_signal, signal.SIGKILL)
        self.assertEqual(process.stdout.readline(), "serving\n")

    def check_service(self, url):
        """Through the command line, and many at a time."""
        self.assertEqual(rpcrew("call", url, "add", "1", "2").out, "3\n")
        self.assertEqual(rpcrew("call", url, "echo", "[1, {}]").out, "[1,{}]\n")
        self.assertEqual(rpcrew("call", url, "nope").code, 1)
        lines = "".join(json.dumps({"method": "add", "params": [i, 1], "id": i}) + "\n" for i in range(200))
        got = rpcrew("batch", url, stdin=lines)
        self.assertEqual([json.loads(line) for line in got.out.splitlines()],
                         [{"id": i, "result": i + 1} for i in range(200)])

    def check_client(self, *words):
        got = node(*words)
        self.assertEqual((got.stdout, got.stderr), ("200 replies, all right\n", ""))


class Amqp(Peers):
    def setUp(self):
        super().setUp()
        self.queue = f"node-{uuid.uuid4()}"
        self.url = f"{SHARED}?queue={self.queue}"

    def test_amqplib_calls_us(self):
        self.worker("conformance", "--listen", self.url)
        self.check_client("amqplib.mjs", "client", SHARED, self.queue)
        self.check_client("amqplib.mjs", "direct", SHARED, self.queue)

    def test_rabbitmq_client_calls_us(self):
        self.worker("conformance", "--listen", self.url)
        self.check_client("rabbitmq_client.mjs", "client", SHARED, self.queue)

    def test_we_call_amqplib(self):
        self.service("amqplib.mjs", "server", SHARED, self.queue)
        self.check_service(self.url)
        self.check_service(self.url + "&reply=direct")
        self.check_service(self.url + "&reply=queue")

    def test_we_call_rabbitmq_client(self):
        self.service("rabbitmq_client.mjs", "server", SHARED, self.queue)
        self.check_service(self.url)


class Streams(Peers):
    def both_ways(self, url, *words):
        port = str(free_port())
        self.worker("conformance", "--listen", url.format(port))
        self.check_client(*words, "client", port)
        port = str(free_port())
        self.service(*words, "server", port)
        self.check_service(url.format(port))

    def test_jayson(self):
        self.both_ways("tcp://127.0.0.1:{}", "jayson.mjs", "tcp")
        self.both_ways("http://127.0.0.1:{}/", "jayson.mjs", "http")
        self.both_ways("ws://127.0.0.1:{}/", "jayson.mjs", "websocket")

    def test_json_rpc_2(self):
        self.both_ways("http://127.0.0.1:{}/", "json_rpc_2.mjs", "http")
        self.both_ways("ws://127.0.0.1:{}/", "json_rpc_2.mjs", "ws")

    def test_rpc_websockets(self):
        self.both_ways("ws://127.0.0.1:{}/", "rpc_websockets.mjs")

    def test_editors_call_us(self):
        self.check_client("vscode.mjs", "client", program("conformance"), "--listen", "stdio://")
        self.worker("conformance", "--listen", "unix://" + self.socket_path())
        self.check_client("vscode.mjs", "socket", self.socket_path())

    def test_we_call_what_editors_call(self):
        self.check_service(f"exec://node?framing=content-length&arg={NODE}/vscode.mjs&arg=server")


class ZeroMq(Peers):
    def test_zeromq_calls_us(self):
        address = "ipc://" + self.socket_path()
        self.worker("conformance", "--listen", "zmq+" + address)
        self.check_client("zeromq.mjs", "req", address)
        self.check_client("zeromq.mjs", "dealer", address)

    def test_messagepack_rpc_clients_call_us(self):
        for kind in "lite", "neovim":
            address = "ipc://" + self.socket_path(kind)
            self.worker("conformance", "--listen", "zmq+" + address)
            self.check_client("msgpack.mjs", kind, address)

    def test_we_call_zeromq(self):
        for kind in "reply", "router":
            address = "ipc://" + self.socket_path(kind)
            self.service("zeromq.mjs", kind, address)
            self.check_service("zmq+" + address)


class Description(Case):
    def test_rpc_discover_is_an_openrpc_document(self):
        for name in "calc", "digest", "conformance", "ledger":
            url = "zmq+ipc://" + self.socket_path(name)
            self.worker(name, "--listen", url)
            document = rpcrew("call", url, "rpc.discover").out
            got = node("openrpc.mjs", input=document)
            self.assertEqual((got.returncode, got.stderr), (0, ""), name)
            self.assertIn(name, json.loads(document)["info"]["title"])
            broken = json.loads(document)
            del broken["methods"][0]["name"]
            self.refused(broken, "must have required property 'name'")
            broken = json.loads(document)
            broken["openrpc"] = "2"
            self.refused(broken, "/openrpc")
            broken = json.loads(document)
            broken["methods"][0]["params"] = [{"name": "x", "schema": {"type": "integre"}}]
            self.refused(broken, "schema")

    def refused(self, document, why):
        got = node("openrpc.mjs", input=json.dumps(document))
        self.assertEqual(got.returncode, 1)
        self.assertIn(why, got.stderr)


if __name__ == "__main__":
    main()
