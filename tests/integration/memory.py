"""What a worker holds after an attack, beside what it held before: with tests for each way to make it hold much.
Each ends when its peers have gone, and the memory is back within 1.5 times of what normal work had taken."""
import json
import os
import uuid

import pika
import zmq

from support import PATIENCE, Case, eventually, main, request

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    BROKER = shared_file.readline().strip()

MEBIBYTE = 1 << 20
FACTOR = 1.5


def text_of(item, size):
    """A request whose params are many small things."""
    return b'{"jsonrpc":"2.0","id":1,"method":"add","params":[' + item * (size // len(item)) + b"0]}"


class Memory(Case):
    def held(self):
        """MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    def is_back(self, before):
        peak = self.held()
        try:
            eventually(lambda: self.held() <= FACTOR * before, 2 * PATIENCE)
        except AssertionError:
            self.fail(f"it held {before:.1f} MiB before, {peak:.1f} at the end, and now {self.held():.1f}")


class ZeroMq(Memory):
    def setUp(self):
        super().setUp()
        self.context = zmq.Context()
        self.addCleanup(self.context.destroy, 0)
        self.address = f"ipc://{self.socket_path()}"
        self.process = self.worker("conformance", "--listen", f"zmq+{self.address}").process
        self.work()
        self.before = self.held()

    def peer(self, kind=zmq.DEALER, **options):
        peer = self.context.socket(kind)
        peer.linger = 0
        peer.rcvtimeo = peer.sndtimeo = PATIENCE * 1000
        for name, value in options.items():
            setattr(peer, name, value)
        peer.connect(self.address)
        return peer

    def work(self):
        """What a worker does all day."""
        peer = self.peer()
        for i in range(500):
            peer.send_multipart([b"", request("echo", ["x" * (i % 7 * 1000)], i)])
        for _ in range(500):
            self.assertIn("id", json.loads(peer.recv_multipart()[-1]))
        peer.close()

    def leave(self):
        self.context.destroy(0)
        self.context = zmq.Context()
        self.work()
        self.is_back(self.before)

    def send_what_goes(self, peer, frames, count):
        for _ in range(count):
            try:
                peer.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                return

    def test_large_texts(self):
        for item in b"{},", b"0,", b'{"":0},', b"[[[[]]]],":
            peer = self.peer(zmq.REQ)
            peer.send(text_of(item, 15 * MEBIBYTE))
            self.assertIn("error", json.loads(peer.recv()))
        self.leave()

    def test_malformed_texts(self):
        peer = self.peer()
        for _ in range(20):
            peer.send_multipart([b"", b"[" * (4 * MEBIBYTE)])
        for _ in range(20):
            self.assertIn("error", json.loads(peer.recv_multipart()[-1]))
        self.leave()

    def test_batches(self):
        peer = self.peer()
        batch = b"[" + b",".join(request("echo", ["x" * 1000], i) for i in range(1000)) + b"]"
        for _ in range(30):
            peer.send_multipart([b"", batch])
        for _ in range(30):
            self.assertEqual(len(json.loads(peer.recv_multipart()[-1])), 1000)
        self.leave()

    def test_peers_that_never_read(self):
        for peer in [self.peer(rcvhwm=1) for _ in range(20)]:
            self.send_what_goes(peer, [b"", request("blob", [50000])], 300)
        self.leave()

    def test_requests_that_wait_for_a_busy_worker(self):
        busy, flood = self.peer(), self.peer(sndhwm=5)
        for i in range(64):
            busy.send_multipart([b"", request("sleep_ms", [2000], i)])
        for _ in range(10):
            self.send_what_goes(flood, [b"", request("echo", ["x" * MEBIBYTE])], 10)
        self.leave()

    def test_callers_that_come_and_go(self):
        for i in range(300):
            peer = self.peer(routing_id=b"caller-%d" % i)
            peer.send_multipart([b"", request("blob", [20000])])
            if i % 2:
                peer.recv_multipart()
            peer.close()
        self.leave()


class RabbitMq(Memory):
    def setUp(self):
        super().setUp()
        self.queue = f"memory-{uuid.uuid4()}"
        self.process = self.worker("conformance", "--listen", f"{BROKER}?queue={self.queue}").process
        self.connection = pika.BlockingConnection(pika.URLParameters(BROKER + "%2F"))
        self.addCleanup(lambda: self.connection.close())
        self.channel = self.connection.channel()
        self.answers = 0
        self.reply_to = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.basic_consume(self.reply_to, self.on_answer, auto_ack=True)
        self.send_all([request("echo", ["x" * (i % 7 * 1000)], i) for i in range(500)])
        self.before = self.held()

    def on_answer(self, *_):
        self.answers += 1

    def send_all(self, bodies, reply_to=None):
        self.answers, wanted = 0, 0
        for body in bodies:
            self.channel.basic_publish("", self.queue, body, pika.BasicProperties(reply_to=reply_to or self.reply_to))
            wanted += 1

        def settled():
            self.connection.process_data_events(0.01)
            return self.answers == wanted if not reply_to else \
                not self.channel.queue_declare(self.queue, passive=True).method.message_count
        eventually(settled)

    def test_large_requests_and_answers(self):
        self.send_all([request("echo", ["x" * MEBIBYTE])] * 60)
        self.is_back(self.before)

    def test_malformed_texts(self):
        self.send_all([b"[" * (4 * MEBIBYTE)] * 10 + [text_of(b"{},", 8 * MEBIBYTE)] * 3)
        self.is_back(self.before)

    def test_answers_that_go_nowhere(self):
        self.send_all([request("blob", [MEBIBYTE])] * 60, reply_to="nobody")
        self.send_all([request("blob", [MEBIBYTE])] * 60, reply_to="amq.rabbitmq.reply-to.nobody")
        self.is_back(self.before)


if __name__ == "__main__":
    main()
