"""MessagePack-RPC with Debian's python3-msgpack, over pyzmq and pika, both ways; JSON-RPC on the same socket and
queue."""
import os
import threading
import uuid

import msgpack
import pika
import zmq

from support import PATIENCE, Case, main, request, rpcrew

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED = shared_file.readline().strip()

ECHOED = [None, True, -5, 2 ** 63, 2 ** 64 - 1, 1.5, float("inf"), "text", b"\x00\xff", [1, [2]], {"k": "v"},
          {1: "one", None: [], b"b": {}}, msgpack.ExtType(5, b"ext"), msgpack.Timestamp(1700000000, 5)]


def pack(*message):
    return msgpack.packb(list(message))


def unpack(body):
    return msgpack.unpackb(body, strict_map_key=False)


class ZeroMq(Case):
    def setUp(self):
        super().setUp()
        self.address = "ipc://" + self.socket_path()
        self.url = "zmq+" + self.address

    def socket(self, kind=zmq.REQ):
        socket = zmq.Context.instance().socket(kind)
        self.addCleanup(socket.close, 0)
        socket.rcvtimeo = PATIENCE * 1000
        socket.connect(self.address)
        return socket

    def call(self, *message):
        socket = self.socket()
        socket.send(pack(*message))
        return unpack(socket.recv())

    def test_their_client_calls_us(self):
        self.worker("conformance", "--listen", self.url)
        self.assertEqual(self.call(0, 0, "add", [1, 2]), [1, 0, None, 3])  # 0 is an id like any other
        self.assertEqual(self.call(0, 2 ** 32 - 1, b"add", [1, 2]), [1, 2 ** 32 - 1, None, 3])
        self.assertEqual(self.call(0, 1, "nope", []), [1, 1, [-32601, "Method not found"], None])
        self.assertEqual(self.call(0, 1, "subtract", [{"minuend": 5, "subtrahend": 3}]), [1, 1, None, 2])
        self.assertEqual(self.call(0, 1, "subtract", {"minuend": 5, "subtrahend": 3}), [1, 1, None, 2])
        self.assertEqual(self.call(0, 1, "fail", [7, "no", {"a": 1}]), [1, 1, [7, "no"], None])
        self.assertEqual(self.call(1, 1, None, 5)[2][0], -32600)
        self.assertEqual(self.call()[1:3][0], None)

    def test_values_survive_an_echo(self):
        self.worker("conformance", "--listen", self.url)
        for value in ECHOED:
            answer = self.call(0, 1, "echo", [value])
            self.assertEqual(answer, [1, 1, None, value])
            self.assertIs(type(answer[3]), type(value))

    def test_several_messages_in_one_body(self):
        self.worker("conformance", "--listen", self.url)
        socket = self.socket()
        socket.send(pack(0, 1, "add", [1, 1]) + pack(2, "update", []) + pack(0, 2, "add", [2, 2]) + b"\xc1")
        unpacker = msgpack.Unpacker()
        unpacker.feed(socket.recv())
        answers = list(unpacker)
        # in the order of completion
        self.assertEqual(sorted(answer for answer in answers if answer[1]), [[1, 1, None, 2], [1, 2, None, 4]])
        self.assertEqual([answer[2][0] for answer in answers if not answer[1]], [-32700])

    def test_json_on_the_same_socket(self):
        self.worker("conformance", "--listen", self.url)
        socket = self.socket()
        for _ in range(2):
            socket.send(request("add", [1, 2]))
            self.assertEqual(socket.recv(), b'{"jsonrpc":"2.0","result":3,"id":1}')
            socket.send(pack(0, 1, "add", [1, 2]))
            self.assertEqual(unpack(socket.recv()), [1, 1, None, 3])

    def test_what_errors_look_like_is_an_option(self):
        for kind, expected in [("string", "no"), ("data", [7, "no", {"a": 1}]), ("pair", [7, "no"])]:
            self.address = "ipc://" + self.socket_path(kind)
            self.worker("conformance", "--listen", f"zmq+{self.address}?error={kind}")
            self.assertEqual(self.call(0, 1, "fail", [7, "no", {"a": 1}]), [1, 1, expected, None])

    def test_we_call_their_service(self):
        service = zmq.Context.instance().socket(zmq.REP)
        self.addCleanup(service.close, 0)
        service.rcvtimeo = PATIENCE * 1000
        service.bind(self.address)
        seen = []

        def loop(answers):
            for error, result in answers:
                seen.append(unpack(service.recv()))
                service.send(pack(1, seen[-1][1], error, result))
        answers = [(None, [1, b"\xff\x00"]), ("a text", None), ([3, "three"], None)]
        thread = threading.Thread(target=loop, args=[answers], daemon=True)
        thread.start()
        self.assertEqual(rpcrew("call", "-p", "msgpack", self.url, "m", "1", "x").out, '[1,"ff00"]\n')
        text = rpcrew("call", "-p", "msgpack", self.url, "m")
        self.assertEqual(text.code, 1)
        self.assertIn("a text", text.err)
        self.assertIn("three (code 3)", rpcrew("call", "-p", "msgpack", self.url, "m", "a=1").err)
        thread.join(PATIENCE)
        self.assertEqual([message[0::2][:1] + message[2:] for message in seen],
                         [[0, "m", [1, "x"]], [0, "m", []], [0, "m", {"a": 1}]])


class Amqp(Case):
    def setUp(self):
        super().setUp()
        self.queue = f"msgpack-{uuid.uuid4()}"
        self.url = f"{SHARED}?queue={self.queue}"

    def test_their_client_calls_us(self):
        self.worker("conformance", "--listen", self.url)
        connection = pika.BlockingConnection(pika.URLParameters(SHARED + "%2F"))
        self.addCleanup(connection.close)
        channel = connection.channel()
        replies = channel.queue_declare("", exclusive=True).method.queue
        for content_type in "application/msgpack", "application/x-msgpack", None, "application/octet-stream":
            channel.basic_publish("", self.queue, pack(0, 7, "add", [1, 2]), pika.BasicProperties(
                reply_to=replies, correlation_id="c", content_type=content_type))
            for method, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=PATIENCE):
                self.assertIsNotNone(method, "no answer")
                self.assertEqual(unpack(body), [1, 7, None, 3])
                self.assertEqual((properties.content_type, properties.correlation_id), ("application/msgpack", "c"))
                break
            channel.cancel()

    def test_we_call_their_service(self):
        answers = {"add": (None, 3), "bytes": (None, b"\x00\xff"), "fail": ([7, "seven"], None)}
        seen = []

        def serve():
            connection = pika.BlockingConnection(pika.URLParameters(SHARED + "%2F"))
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True)
            ready.set()
            for _, properties, body in channel.consume(self.queue, auto_ack=True, inactivity_timeout=PATIENCE):
                kind, ident, method, params = unpack(body)
                seen.append((kind, method, params, properties.content_type))
                channel.basic_publish("", properties.reply_to, pack(1, ident, *answers[method]), pika.BasicProperties(
                    correlation_id=properties.correlation_id, content_type="application/msgpack"))
                if len(seen) == 3:
                    break
            connection.close()

        ready = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.assertTrue(ready.wait(PATIENCE))
        self.assertEqual(rpcrew("call", "-p", "msgpack", self.url, "add", "1", "2").out, "3\n")
        self.assertEqual(rpcrew("call", "-p", "msgpack", self.url, "bytes").out, '"00ff"\n')
        self.assertIn("seven (code 7)", rpcrew("call", "-p", "msgpack", self.url, "fail", "a=1").err)
        thread.join(PATIENCE)
        self.assertEqual(seen, [(0, "add", [1, 2], "application/msgpack"), (0, "bytes", [], "application/msgpack"),
                                (0, "fail", {"a": 1}, "application/msgpack")])

    def test_we_call_ourselves_in_both(self):
        self.worker("conformance", "--listen", self.url)
        for protocol in "msgpack", "jsonrpc", "jsonrpc1":
            self.assertEqual(rpcrew("call", "-p", protocol, self.url, "add", "1", "2").out, "3\n")
            self.assertEqual(rpcrew("notify", "-p", protocol, self.url, "update").code, 0)


if __name__ == "__main__":
    main()
