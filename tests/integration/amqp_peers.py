"""RabbitMQ: callers and services written with python3-pika, as RabbitMQ's tutorial has them, and what happens when
workers, queues or the broker go away."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pika

from support import PATIENCE, Case, eventually, main, program, request, rpcrew

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "broker-configs"))
from broker import Broker  # noqa: E402

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED = shared_file.readline().strip()


class Amqp(Case):
    broker_url = SHARED

    def setUp(self):
        super().setUp()
        self.queue = f"test-{uuid.uuid4()}"
        self.url = f"{self.broker_url}?queue={self.queue}"

    def connect(self):
        connection = pika.BlockingConnection(pika.URLParameters(self.broker_url + "%2F"))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection.channel()

    def serve(self, *flags, query="", **more):
        return self.worker("conformance", "--listen", self.url + query, *flags, **more)


class TutorialClient:
    """RabbitMQ's tutorial six, the client's side, for JSON-RPC; direct: with direct reply-to."""

    def __init__(self, channel, queue, direct=False):
        self.channel, self.queue, self.answers = channel, queue, []
        self.reply_to = "amq.rabbitmq.reply-to"
        if not direct:
            self.reply_to = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.basic_consume(queue=self.reply_to, on_message_callback=self.on_answer, auto_ack=True)

    def on_answer(self, _channel, _method, properties, body):
        self.answers.append((properties, body))

    def send(self, body, correlation_id="1", **properties):
        properties.setdefault("reply_to", self.reply_to)
        self.channel.basic_publish(exchange="", routing_key=self.queue, body=body,
                                   properties=pika.BasicProperties(correlation_id=correlation_id, **properties))

    def wait(self, count=1):
        end = time.monotonic() + PATIENCE
        while len(self.answers) < count:
            self.channel.connection.process_data_events(time_limit=0.1)
            assert time.monotonic() < end, "no answer"
        return self.answers

    def call(self, method, *params, ident=1):
        self.answers.clear()
        self.send(request(method, params, ident))
        return json.loads(self.wait()[0][1])


class TheirClients(Amqp):
    def test_the_tutorial_s_client(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        for i in range(20):
            self.assertEqual(client.call("add", i, 1, ident=i), {"jsonrpc": "2.0", "result": i + 1, "id": i})

    def test_properties_come_back_as_they_must(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        for correlation in "1001", "", "x" * 255, str(uuid.uuid4()):
            client.answers.clear()
            client.send(request("get_data"), correlation)
            properties, _ = client.wait()[0]
            self.assertEqual(properties.correlation_id or "", correlation)
            self.assertEqual(properties.content_type, "application/json")
            self.assertIsNone(properties.content_encoding)

    def test_direct_reply_to(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue, direct=True)
        self.assertEqual(client.call("add", 1, 2)["result"], 3)

    def test_a_poisoned_reply_to_does_not_come_round(self):
        worker = self.serve()
        channel = self.connect()
        client = TutorialClient(channel, self.queue)
        for poison in "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.nonsense", "amq.rabbitmq.reply-to.g1h2.x":
            client.send(request("get_data"), reply_to=poison)
        self.assertEqual(client.call("add", 1, 2)["result"], 3)
        # What was in flight beside a poisoned one may come again, once more for each.
        eventually(lambda: channel.queue_declare(self.queue, passive=True).method.message_count == 0)
        self.assertEqual(client.call("add", 1, 2)["result"], 3)
        self.assertLessEqual(worker.text().count("connection lost"), 3)

    def test_malformed_messages_do_not_block_the_queue(self):
        self.serve()
        channel = self.connect()
        client = TutorialClient(channel, self.queue)
        for i in range(1000):
            client.send(b"\xff{[" if i % 2 else b"", reply_to=None)  # nowhere to answer: rejected
        client.send(b"rubbish")
        self.assertEqual(json.loads(client.wait()[0][1])["error"]["code"], -32700)
        self.assertEqual(client.call("nobody")["error"]["code"], -32601)
        self.assertEqual(client.call("add", 1, 2)["result"], 3)
        eventually(lambda: channel.queue_declare(self.queue, passive=True).method.message_count == 0)

    def test_notifications_and_calls_without_an_address_are_acked(self):
        worker = self.serve()
        channel = self.connect()
        client = TutorialClient(channel, self.queue)
        for _ in range(10):
            client.send(request("update", [], None))
            client.send(request("update", [], 5), reply_to=None)
        eventually(lambda: client.call("count")["result"] == 20)
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(channel.queue_declare(self.queue, passive=True).method.message_count, 0)

    def test_any_headers_and_content_types_are_taken(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        for more in ({"headers": {"a": 1, "b": {"c": [1, "x", None]}}}, {"content_type": "text/plain"},
                     {"content_type": "application/json; charset=utf-8"}, {"delivery_mode": 2, "timestamp": 5},
                     {"expiration": "60000"}):
            client.answers.clear()
            client.send(request("get_data"), **more)
            self.assertEqual(json.loads(client.wait()[0][1])["result"], ["hello", 5])

    def test_an_expired_deadline_is_not_run(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("update", [], None), headers={"rpcrew-deadline": int(time.time() * 1000) - 1000})
        client.send(request("update", [], None), headers={"rpcrew-deadline": int(time.time() * 1000) + 60000})
        eventually(lambda: client.call("count")["result"] == 1)


class TheirServices(Amqp):
    def start_service(self, answer, **declare):
        """The tutorial's server: answer(channel, properties, body) for each request."""
        connection = pika.BlockingConnection(pika.URLParameters(self.broker_url + "%2F"))
        channel = connection.channel()
        channel.queue_declare(queue=self.queue, **declare)
        channel.basic_qos(prefetch_count=1)

        def on_request(_channel, method, properties, body):
            answer(channel, properties, body)
            channel.basic_ack(delivery_tag=method.delivery_tag)
        channel.basic_consume(queue=self.queue, on_message_callback=on_request)
        stop = threading.Event()

        def loop():
            while not stop.is_set():
                connection.process_data_events(time_limit=0.05)
            connection.close()
        thread = threading.Thread(target=loop)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(stop.set)

    @staticmethod
    def send(channel, properties, body, **more):
        channel.basic_publish(exchange="", routing_key=properties.reply_to, body=body, properties=pika.BasicProperties(
            correlation_id=more.get("correlation_id", properties.correlation_id)))

    @staticmethod
    def result(body, **more):
        call = json.loads(body)
        return json.dumps({"jsonrpc": "2.0", "result": call.get("params"), "id": call.get("id"), **more}).encode()

    def test_the_tutorial_s_server(self):
        seen = []

        def answer(channel, properties, body):
            seen.append(properties)
            self.send(channel, properties, self.result(body))
        self.start_service(answer)
        self.assertEqual(rpcrew("call", self.url, "m", "1", "x").out, '[1,"x"]\n')
        self.assertEqual(rpcrew("call", self.url + "&reply=direct", "m", "2").out, "[2]\n")
        self.assertEqual(seen[0].content_type, "application/json")
        self.assertEqual(seen[0].delivery_mode, 1)
        self.assertTrue(0 < int(seen[0].expiration) <= 30000)
        self.assertTrue(0 < seen[0].headers["rpcrew-deadline"] - time.time() * 1000 <= 30000)

    def test_answers_of_nobody_are_dropped(self):
        def answer(channel, properties, body):
            self.send(channel, properties, self.result(body), correlation_id="77")
            self.send(channel, properties, self.result(body), correlation_id="foreign")
            self.send(channel, properties, self.result(body))
            self.send(channel, properties, self.result(body))
        self.start_service(answer)
        self.assertEqual(rpcrew("call", self.url, "m", "1").out, "[1]\n")

    def test_another_id_in_the_body_is_a_bad_reply(self):
        self.start_service(lambda channel, properties, body: self.send(channel, properties, self.result(body, id=99)))
        self.assertEqual(rpcrew("call", self.url, "m", "1").code, 7)

    def test_a_one_way_call_is_persistent_and_confirmed(self):
        seen = []
        self.start_service(lambda _channel, properties, body: seen.append((properties, body)), durable=True)
        self.assertEqual(rpcrew("notify", self.url, "m", "1").code, 0)
        eventually(lambda: seen)
        self.assertEqual(seen[0][1], b'{"jsonrpc":"2.0","method":"m","params":[1]}')
        self.assertEqual(seen[0][0].delivery_mode, 2)
        self.assertIsNone(seen[0][0].reply_to)

    def test_without_a_queue_the_answer_is_no_service_at_once(self):
        before = time.monotonic()
        got = rpcrew("call", self.url, "m")
        self.assertEqual((got.code, rpcrew("notify", self.url, "m").code), (3, 3))
        self.assertLess(time.monotonic() - before, PATIENCE)  # not the 30 s of its deadline
        self.assertIn("nothing serves this endpoint", got.err)


class Topology(Amqp):
    def run_worker(self, url):
        return subprocess.run([program("conformance"), "--listen", url], capture_output=True, text=True, timeout=60,
                              check=False)

    def test_a_queue_with_other_arguments_says_which(self):
        self.connect().queue_declare(self.queue, durable=False)
        got = self.run_worker(self.url)
        self.assertEqual(got.returncode, 1)
        self.assertIn("inequivalent arg 'durable'", got.stderr)
        for declare in "passive", "no":
            worker = self.serve(query="&declare=" + declare)
            self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
            worker.stop()

    def test_a_quorum_queue(self):
        self.serve(query="&queue_type=quorum")
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.connect().queue_declare(self.queue, durable=True, arguments={"x-queue-type": "quorum"})

    def test_what_cannot_be_opened_is_explained(self):
        self.assertIn("wants ?queue=NAME", self.run_worker(self.broker_url).stderr)
        self.assertIn("NOT_FOUND", self.run_worker(self.url + "&declare=passive").stderr)
        self.assertIn("vhost", self.run_worker(self.url.replace("/?", "/nowhere?")).stderr)
        refused = self.run_worker(self.url.replace(":rpcrew@", ":wr0ng@"))
        self.assertIn("ACCESS_REFUSED", refused.stderr)
        self.assertNotIn("wr0ng", refused.stderr)
        self.assertIn("refused", self.run_worker("amqp://127.0.0.1:1/?queue=x").stderr)


class Load:
    """Calls from one thread after another, each to its outcome."""

    def __init__(self, url, count, *words):
        self.processes = [subprocess.Popen([program("rpcrew"), "call", url, *words], stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE, text=True) for _ in range(count)]

    def outcomes(self):
        results = [process.communicate(timeout=90) for process in self.processes]
        return [(process.returncode, *result) for process, result in zip(self.processes, results)]


class Faults(Amqp):
    def queue_length(self):
        return self.connect().queue_declare(self.queue, passive=True).method.message_count

    def test_a_killed_worker_s_calls_go_to_the_other(self):
        first = self.serve("--threads", "4", query="&prefetch=4")
        client = TutorialClient(self.connect(), self.queue)
        for i in range(8):
            client.send(request("sleep_ms", [300], i), str(i))
        eventually(lambda: self.queue_length() == 4)  # the first holds four
        self.serve("--threads", "4", query="&prefetch=4")
        first.stop(signal.SIGKILL)
        self.assertEqual({json.loads(body)["id"] for _, body in client.wait(8)}, set(range(8)))

    def test_sigterm_loses_nothing(self):
        first = self.serve("--threads", "2")
        client = TutorialClient(self.connect(), self.queue)
        for i in range(30):
            client.send(request("sleep_ms", [50], i), str(i))
        client.wait(1)
        self.serve("--threads", "2")
        self.assertEqual(first.stop(), 0)
        answers = [json.loads(body) for _, body in client.wait(30)]
        self.assertEqual(sorted(a["id"] for a in answers), list(range(30)))
        self.assertTrue(all("result" in a for a in answers))

    def test_a_worker_that_acks_early_takes_no_more_than_it_has_room_for(self):
        self.connect().queue_declare(self.queue, durable=True)
        client = TutorialClient(self.connect(), self.queue)
        for i in range(30):
            client.send(request("sleep_ms", [2000], i), str(i))
        eventually(lambda: self.queue_length() == 30)
        self.serve("--threads", "1", query="&ack=early&in_flight=2")
        eventually(lambda: self.queue_length() <= 26)  # two handed out, two more on the way
        self.assertGreaterEqual(self.queue_length(), 20)

    def test_a_deleted_queue_is_declared_and_consumed_again(self):
        worker = self.serve()
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.connect().queue_delete(self.queue)
        eventually(lambda: rpcrew("call", "-t", "5", self.url, "add", "1", "2").out == "3\n")
        self.assertTrue(worker.said("cancelled the consumer"))


class BrokerFaults(Amqp):
    """With a broker of their own."""

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker().start()
        cls.addClassCleanup(cls.broker.close)
        cls.broker_url = cls.broker.url

    def test_the_broker_stops_and_starts_again(self):
        worker = self.serve()
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        waiting = Load(self.url, 3, "sleep_ms", "60000")
        eventually(lambda: int(self.broker.ctl("list_connections", "pid").count("\n")) >= 5)
        self.broker.stop()
        for code, _, err in waiting.outcomes():  # at once, not at their deadlines
            self.assertIn(code, (3, 6), err)
        eventually(lambda: worker.said("connection lost"))
        self.broker.start()
        eventually(lambda: worker.text().count("listening") >= 2)
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")

    def test_a_broker_that_is_down_at_the_start_is_waited_for(self):
        self.broker.stop()
        refused = subprocess.run([program("conformance"), "--listen", self.url], capture_output=True, text=True,
                                 timeout=60, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertEqual(rpcrew("call", self.url, "m").code, 3)
        worker = self.serve("--wait", wait=False)
        eventually(lambda: worker.said("cannot open the endpoint yet"))
        self.broker.start()
        eventually(lambda: worker.said("listening"))
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")

    def test_an_alarm_hangs_nobody(self):
        worker = self.serve()
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.broker.ctl("set_vm_memory_high_watermark", "0")
        late = rpcrew("call", "-t", "1", self.url, "add", "1", "2")
        self.assertIn(late.code, (3, 4), late.err)
        self.assertIn(worker.stop(), (0, 3))
        self.broker.ctl("set_vm_memory_high_watermark", "0.9")
        self.serve()
        eventually(lambda: rpcrew("call", "-t", "5", self.url, "add", "1", "2").out == "3\n")



class PrivateBroker(Case):
    def test_it_tidies_up_however_often_it_is_told(self):
        script = os.path.join(os.path.dirname(__file__), "..", "..", "broker-configs", "broker.py")
        rooms = {**os.environ, "TMPDIR": self.directory}
        process = subprocess.Popen(["/usr/bin/python3", script], stdout=subprocess.PIPE, text=True, env=rooms)
        self.assertTrue(process.stdout.readline().startswith("amqp://"))
        process.stdout.close()
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as children:
            pids = children.read().split()
        self.assertEqual(len(pids), 2)  # the server and its epmd
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(os.listdir(self.directory), [])
        self.assertFalse([pid for pid in pids if os.path.exists("/proc/" + pid)])


if __name__ == "__main__":
    main()
