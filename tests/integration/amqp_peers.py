"""RabbitMQ: callers and services written with python3-pika, as RabbitMQ's tutorial has them, and what happens when
workers, queues or the broker go away."""
import datetime
import decimal
import json
import os
import queue
import signal
import subprocess
import threading
import time
import urllib.parse
import uuid

import paho.mqtt.client
import paho.mqtt.packettypes
import paho.mqtt.properties
import pika
import proton
import proton.utils

from support import PATIENCE, Case, eventually, main, program, request, rpcrew

from broker import Broker, rabbitmqctl  # which support has put on the path

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED, SHARED_TLS = shared_file.readline().strip(), shared_file.readline().strip()
    SHARED_STATE = json.load(shared_file)


class Amqp(Case):
    broker_url = SHARED

    @staticmethod
    def shared_ctl(*words):
        return rabbitmqctl(SHARED_STATE["environment"], SHARED_STATE["node"], *words)

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

    def test_requests_of_any_size_are_answered_directly(self):
        self.serve()
        for reply in "queue", "direct":
            url = f"{self.url}&reply={reply}"
            for size in 400, 452, 600, 3000, 200000:
                self.assertEqual(len(rpcrew("call", "-r", url, "echo", "x" * size if size < 1000 else "-",
                                            stdin="x" * size).out), size + 1)
            lines = "".join(json.dumps({"method": "echo", "params": ["x" * size]}) + "\n" for size in range(300, 3000, 50))
            self.assertEqual(rpcrew("batch", url, stdin=lines).code, 0)

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
        for i in range(10000):
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

    def test_headers_reach_the_handler(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        when = datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.timezone.utc)
        for headers, seen in (({"t": True, "i": -5, "l": 1 << 40, "s": "é", "n": None, "T": when,
                                "D": decimal.Decimal("1.25"), "list": [1, {"x": ["y"]}], "rpcrew-other": 1},
                               {"t": True, "i": -5, "l": 1 << 40, "s": "é", "n": None, "T": 1000000000,
                                "D": 1.25, "list": [1, {"x": ["y"]}]}),
                              ({"rpcrew-other": 1}, None), ({}, None), (None, None)):
            client.answers.clear()
            client.send(request("headers"), headers=headers)
            self.assertEqual(json.loads(client.wait()[0][1])["result"], seen)

    def test_callers_send_headers(self):
        self.serve()
        for flags in [], ["-p", "msgpack"]:
            got = rpcrew("call", *flags, "-H", "traceparent: 00-1-2-01", "-H", "Authorization:Bearer é", self.url, "headers")
            self.assertEqual(json.loads(got.out), {"traceparent": "00-1-2-01", "authorization": "Bearer é"}, got.err)
        got = rpcrew("call", *sum((["-H", f"h{i}: {'x' * 55}"] for i in range(32)), []), self.url, "headers")
        self.assertEqual(len(json.loads(got.out)), 32)

    def test_an_expired_deadline_is_not_run(self):
        self.serve()
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("update", [], None), headers={"rpcrew-deadline": int(time.time() * 1000) - 1000})
        client.send(request("update", [], None), headers={"rpcrew-deadline": int(time.time() * 1000) + 60000})
        eventually(lambda: client.call("count")["result"] == 1)


class TheirServices(Amqp):
    def start_service(self, answer):
        """The tutorial's server: answer(channel, properties, body) for each request."""
        connection = pika.BlockingConnection(pika.URLParameters(self.broker_url + "%2F"))
        channel = connection.channel()
        channel.queue_declare(queue=self.queue, durable=True)
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
        self.assertEqual(rpcrew("call", self.url + "&reply=queue", "m", "2").out, "[2]\n")
        self.assertTrue(seen[0].reply_to.startswith("amq.rabbitmq.reply-to."))  # a single call declares nothing
        self.assertTrue(seen[1].reply_to.startswith("amq.gen-"))
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
        self.start_service(lambda _channel, properties, body: seen.append((properties, body)))
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
        self.connect().queue_declare(self.queue, durable=True, arguments={"x-max-length": 1000})
        got = self.run_worker(self.url)
        self.assertEqual(got.returncode, 1)
        self.assertIn("inequivalent arg 'x-max-length'", got.stderr)
        for declare in "passive", "no":
            worker = self.serve(query="&declare=" + declare)
            self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
            worker.stop()

    def test_a_quorum_queue(self):
        self.serve(query="&queue_type=quorum")
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.connect().queue_declare(self.queue, durable=True, arguments={"x-queue-type": "quorum"})

    def test_a_queue_has_the_arguments_of_its_url(self):
        dead = self.queue + "-dead"
        channel = self.connect()
        channel.queue_declare(dead, durable=True)
        self.addCleanup(channel.queue_delete, dead)
        worker = self.serve(query=f"&message_ttl=100&max_length=2&overflow=reject-publish&max_priority=5"
                                  f"&dead_letter_exchange=&dead_letter_routing_key={dead}")
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.assertEqual(worker.stop(), 0)
        channel.queue_declare(self.queue, durable=True, arguments={  # else it would be another one
            "x-message-ttl": 100, "x-max-length": 2, "x-overflow": "reject-publish", "x-max-priority": 5,
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        channel.basic_publish("", self.queue, b"too late")
        self.assertEqual(eventually(lambda: channel.basic_get(dead, auto_ack=True)[2]), b"too late")

    def consumers_have(self, line):
        """The broker lists none beyond a queue of another test's that goes meanwhile."""
        try:
            return line in self.shared_ctl("list_consumers", "queue_name", "prefetch_count")
        except subprocess.CalledProcessError:
            return False

    def test_what_computes_takes_no_more_than_it_runs_soon(self):
        for name, prefetch in ("digest", 6), ("conformance", 64):
            worker = self.worker(name, "--listen", self.url, "--threads", "3")
            line = f"{self.queue}\t{prefetch}\n"
            eventually(lambda wanted=line: self.consumers_have(wanted))
            self.assertEqual(worker.stop(), 0)

    def test_a_quorum_queue_s_delivery_limit(self):
        worker = self.serve(query="&queue_type=quorum&delivery_limit=3")
        self.assertEqual(worker.stop(), 0)
        self.connect().queue_declare(self.queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
        for options, why in (("delivery_limit=3", "wants queue_type=quorum"), ("queue_type=quorum&max_priority=3", "is for classic queues"),
                             ("dead_letter_routing_key=x", "wants dead_letter_exchange"), ("max_priority=256", "1 to 255"), ("max_length=5&declare=passive", "want declare=yes"),
                             ("overflow=drop-head", "wants max_length")):
            got = self.run_worker(f"{self.url}&{options}")
            self.assertEqual(got.returncode, 2)
            self.assertIn(why, got.stderr)

    def test_of_several_hosts_one_that_answers_is_taken(self):
        self.url = self.url.replace("@127", "@127.0.0.1:1,127")
        self.serve()
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")

    def test_of_several_hosts_none_decides_for_the_others(self):
        nowhere = self.url.replace("/?", "/nowhere?")
        for url in nowhere.replace("@127", "@127.0.0.1:1,127"), nowhere.replace("/nowhere", ",127.0.0.1:1/nowhere"):
            got = self.run_worker(url)
            self.assertIn("Connection refused", got.stderr)
            self.assertIn("vhost", got.stderr)
            self.assertEqual(got.returncode, 1)
            waiting = self.worker("conformance", "--listen", url, "--wait", wait=False)  # one of them may come yet
            eventually(lambda worker=waiting: worker.said("waiting for an endpoint to open"))
            self.assertEqual(waiting.stop(), 0)

    def test_what_is_not_there_yet_is_waited_for(self):
        worker = self.worker("conformance", "--listen", self.url + "&declare=passive", "--wait", wait=False)
        eventually(lambda: worker.said("NOT_FOUND"))
        self.connect().queue_declare(self.queue, durable=True)
        got = rpcrew("call", self.url, "add", "1", "2")
        self.assertEqual(got.out, "3\n", got.err + worker.text())
        vhost = f"later-{uuid.uuid4()}"
        url = self.url.replace("/?", f"/{vhost}?")
        worker = self.worker("conformance", "--listen", url, "--wait", wait=False)
        eventually(lambda: worker.said("vhost"))
        self.shared_ctl("add_vhost", vhost)
        self.addCleanup(self.shared_ctl, "delete_vhost", vhost)
        eventually(lambda: worker.said("ACCESS_REFUSED") or worker.said("access to vhost"))
        self.shared_ctl("set_permissions", "--vhost", vhost, "rpcrew", ".*", ".*", ".*")
        got = rpcrew("call", "--retry", url, "add", "1", "2")
        self.assertEqual(got.out, "3\n", got.err + worker.text())

    def test_tls(self):
        tls = f"{SHARED_TLS}&queue={self.queue}"
        self.url, query = tls, "&queue=" + self.queue
        self.serve()
        self.assertEqual(rpcrew("call", tls, "add", "1", "2").out, "3\n")
        blob = rpcrew("--raw", "call", tls, "blob", "1000000")
        self.assertEqual(blob.out, "x" * 1000000 + "\n")
        plain, _, certificate = SHARED_TLS.partition("?cacertfile=")
        refused = self.run_worker(f"{plain}?{query[1:]}")  # by an authority that nobody knows
        self.assertIn("verif", refused.stderr)
        self.assertEqual(refused.returncode, 1)
        self.assertEqual(rpcrew("call", f"{plain}?verify=verify_none{query}", "add", "1", "2").out, "3\n")
        by_address = self.run_worker(tls.replace("@localhost", "@127.0.0.1"))  # which the certificate does not name
        self.assertIn("verif", by_address.stderr)
        self.assertIn("/nowhere", self.run_worker(tls.replace(certificate, "/nowhere")).stderr)
        self.assertIn("go together", self.run_worker(tls + "&certfile=x").stderr)
        self.assertIn("no option 'verify'", self.run_worker(self.broker_url + "?queue=x&verify=verify_none").stderr)

    def test_a_name_that_is_too_long_is_refused(self):
        self.assertIn("255 bytes", self.run_worker(self.broker_url + "?queue=" + "q" * 256).stderr)

    def test_what_cannot_be_opened_is_explained(self):
        self.assertIn("wants ?queue=NAME", self.run_worker(self.broker_url).stderr)
        self.assertIn("wants a name", self.run_worker(self.broker_url + "?queue=").stderr)
        self.assertIn("NOT_FOUND", self.run_worker(self.url + "&declare=passive").stderr)
        self.assertIn("vhost", self.run_worker(self.url.replace("/?", "/nowhere?")).stderr)
        refused = self.run_worker(self.url.replace(":rpcrew@", ":wr0ng@"))
        self.assertIn("ACCESS_REFUSED", refused.stderr)
        self.assertNotIn("wr0ng", refused.stderr)
        self.assertIn("refused", self.run_worker("amqp://127.0.0.1:1/?queue=x").stderr)


class Load:
    """Calls from one thread after another, each to its outcome."""

    def __init__(self, url, count, *words, command="call"):
        self.processes = [subprocess.Popen([program("rpcrew"), command, url, *words], stdout=subprocess.PIPE,
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

    def test_a_queue_without_consumers_is_what_a_timeout_says(self):
        self.connect().queue_declare(self.queue, durable=True)
        got = rpcrew("call", "-t", "4", self.url, "add", "1", "2")
        self.assertEqual(got.code, 4)
        self.assertIn(f"queue '{self.queue}' has no consumers", got.err)

    def test_a_timeout_with_consumers_does_not_blame_them(self):
        self.serve()
        got = rpcrew("call", "-t", "2", self.url, "sleep_ms", "5000")
        self.assertEqual(got.code, 4)
        self.assertNotIn("queue", got.err.replace("?queue=", ""))

    def test_a_full_queue_s_broker_refuses_what_is_confirmed(self):
        self.connect().queue_declare(self.queue, durable=True,
                                     arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        codes = [rpcrew("notify", self.url, "m").code for _ in range(3)]
        self.assertEqual((codes[0], codes[2]), (0, 5))
        for reply in "queue", "direct":
            self.assertEqual(rpcrew("call", f"{self.url}&confirm=all&reply={reply}", "m").code, 5)
        self.assertEqual(rpcrew("call", "-t", "3", self.url, "m").code, 4)

    def test_all_calls_may_be_confirmed(self):
        self.serve()
        for reply in "queue", "direct":
            url = f"{self.url}&confirm=all&reply={reply}"
            self.assertEqual(rpcrew("call", url, "add", "1", "2").out, "3\n")
            self.assertEqual(rpcrew("notify", url, "update").code, 0)

    def test_an_exchange_that_is_not_there(self):
        before = time.monotonic()
        got = rpcrew("call", f"{self.broker_url}?exchange=none-{self.queue}&routing_key=k", "m")
        self.assertEqual(got.code, 3)
        self.assertIn("no exchange", got.err)
        self.assertLess(time.monotonic() - before, PATIENCE)

    def test_an_exchange(self):
        self.serve()
        channel = self.connect()
        channel.exchange_declare(self.queue, "topic")
        channel.queue_bind(self.queue, self.queue, "a.*")
        url = f"{self.broker_url}?exchange={self.queue}&routing_key="
        self.assertEqual(rpcrew("call", url + "a.b", "add", "1", "2").out, "3\n")
        self.assertEqual(rpcrew("call", url + "b.b", "add", "1", "2").code, 3)

    def test_what_may_have_killed_a_worker_is_refused(self):
        first = self.serve("--threads", "1", query="&redelivered=refuse")
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("sleep_ms", [60000]))
        client.send(request("update", [], None), reply_to=None)
        eventually(lambda: self.queue_length() == 0)
        first.stop(signal.SIGKILL)
        self.serve(query="&redelivered=refuse")
        error = json.loads(client.wait()[0][1])["error"]
        self.assertEqual(error["code"], -32041)
        self.assertEqual(error["data"]["rpcrew"], {"executed": "unknown", "reason": "redelivered"})
        self.assertEqual(client.call("count")["result"], 0)

    def test_a_worker_that_drains_makes_nothing_suspect(self):
        first = self.serve("--threads", "1", query="&redelivered=refuse")
        client = TutorialClient(self.connect(), self.queue)
        for i in range(12):
            client.send(request("sleep_ms", [200], i), str(i))
        eventually(lambda: self.queue_length() == 0)
        self.serve(query="&redelivered=refuse")
        self.assertEqual(first.stop(), 0)
        errors = [json.loads(body)["error"] for _, body in client.wait(12) if b"error" in body]
        self.assertEqual({error["data"]["rpcrew"]["reason"] for error in errors} - {"stopping"}, set())

    def test_what_may_have_killed_a_worker_is_run_by_default(self):
        first = self.serve("--threads", "1")
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("sleep_ms", [500]))
        eventually(lambda: self.queue_length() == 0)
        first.stop(signal.SIGKILL)
        self.serve()
        self.assertEqual(json.loads(client.wait()[0][1])["result"], 500)

    def test_a_deadline_that_passes_in_the_queue(self):
        self.connect().queue_declare(self.queue, durable=True)
        client = TutorialClient(self.connect(), self.queue)
        self.assertEqual(rpcrew("call", "-t", "2", self.url, "update").code, 4)
        self.serve()
        self.assertEqual(client.call("count")["result"], 0)

    def test_a_deadline_that_passes_in_the_pool(self):
        worker = self.serve("--threads", "1")
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("sleep_ms", [4000], 7))
        self.assertEqual(rpcrew("call", "-t", "2", self.url, "update").code, 4)
        client.wait()
        self.assertEqual(client.call("count")["result"], 0)
        self.assertEqual(worker.stop(), 0)

    def test_a_deadline_that_passes_in_the_handler(self):
        worker = self.serve("--threads", "1")
        self.assertEqual(rpcrew("call", "-t", "2", self.url, "sleep_ms", "4000").code, 4)
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.assertEqual(worker.stop(), 0)

    def test_a_consumer_that_is_lost_without_a_word_is_noticed(self):
        worker = self.serve(query="&heartbeat=1")
        self.forget_consumers()
        eventually(lambda: worker.said("cancelled or lost the consumer"))
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")

    def forget_consumers(self):
        """Takes the queue's consumers away behind their channels' backs."""
        self.shared_ctl("eval", f"""
            {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{self.queue}">>)),
            [gen_server2:call(amqqueue:get_pid(Q), {{basic_cancel, element(1, C), element(2, C), undefined, <<"test">>}})
             || C <- rabbit_amqqueue:consumers(Q)].""")

    def test_a_deleted_queue_is_declared_and_consumed_again(self):
        worker = self.serve("--threads", "2")
        client = TutorialClient(self.connect(), self.queue)
        client.send(request("sleep_ms", [1500], 1), "1")
        client.send(request("add", [1, 2], 2), "2")  # once it is answered, what was sent before it has arrived
        self.assertEqual([json.loads(body)["id"] for _, body in client.wait(1)], [2])
        self.connect().queue_delete(self.queue)
        answers = [json.loads(body) for _, body in client.wait(2)]
        self.assertIn({"jsonrpc": "2.0", "result": 1500, "id": 1}, answers)  # what runs is answered
        eventually(lambda: rpcrew("call", "-t", "5", self.url, "add", "1", "2").out == "3\n")
        self.assertTrue(worker.said("cancelled or lost the consumer"))


class BrokerFaults(Amqp):
    """With a broker of their own."""

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker().start()
        cls.addClassCleanup(cls.broker.close)
        cls.broker_url = cls.broker.url

    def user(self, configure, write, read):
        """A user with just these rights; the URL of its connections."""
        name = f"user-{uuid.uuid4()}"
        self.broker.ctl("add_user", name, "secret")
        self.addCleanup(self.broker.ctl, "delete_user", name)
        self.broker.ctl("set_permissions", name, configure, write, read)
        return name, self.broker_url.replace("rpcrew:rpcrew@", f"{name}:secret@")

    def test_the_rights_in_the_docs_are_enough(self):
        queue, answers, replies = f"^{self.queue}$", "^amq\\.default$", "^amq\\.gen-.*$"
        _, worker = self.user(queue, answers, queue)
        _, direct = self.user("", answers, "")
        _, caller = self.user(replies, answers, replies)
        serving = self.worker("conformance", "--listen", f"{worker}?queue={self.queue}")
        for url in f"{direct}?queue={self.queue}&reply=direct", f"{caller}?queue={self.queue}&reply=queue":
            self.assertEqual(rpcrew("call", "-t", "10", url, "add", "1", "2").out, "3\n")
            self.assertEqual(rpcrew("notify", "-t", "10", url, "add", "1", "2").code, 0)
        self.assertEqual(serving.stop(), 0)
        _, passive = self.user("", answers, queue)  # the queue is there by now
        self.worker("conformance", "--listen", f"{passive}?queue={self.queue}&declare=passive")
        self.assertEqual(rpcrew("call", "-t", "10", f"{direct}?queue={self.queue}", "add", "1", "2").out, "3\n")

    def test_a_worker_that_may_not_answer_takes_nothing(self):
        name, url = self.user(".*", "^(?!amq.default$).*", ".*")
        url += f"?queue={self.queue}"
        got = subprocess.run([program("conformance"), "--listen", url], capture_output=True, text=True, check=False)
        self.assertEqual(got.returncode, 1, got.stderr)
        self.assertIn("answers cannot be sent", got.stderr)
        self.assertIn("amq.default", got.stderr)
        waiting = self.worker("conformance", "--listen", url, "--wait", wait=False)
        eventually(lambda: waiting.said("answers cannot be sent"))
        self.broker.ctl("set_permissions", name, ".*", ".*", ".*")
        eventually(lambda: rpcrew("call", self.url, "add", "1", "2").out == "3\n")
        self.assertEqual(waiting.stop(), 0)
        # One that loses the right says so, and serves when it has it again.
        losing = self.worker("conformance", "--listen", url)
        self.broker.ctl("set_permissions", name, ".*", "^(?!amq.default$).*", ".*")
        caller = subprocess.Popen([program("rpcrew"), "call", "-t", "20", self.url, "add", "1", "2"],
                                  stdout=subprocess.PIPE, text=True)
        eventually(lambda: losing.said("answers cannot be sent"))
        self.broker.ctl("set_permissions", name, ".*", ".*", ".*")
        self.assertEqual(caller.communicate(timeout=PATIENCE)[0], "3\n")

    def test_a_worker_of_notifications_wants_no_right_to_answer(self):
        _, url = self.user(".*", "^(?!amq.default$).*", ".*")
        worker = self.worker("conformance", "--listen", f"{url}?queue={self.queue}&replies=no")
        self.assertEqual(rpcrew("notify", self.url, "update").code, 0)
        self.assertEqual(rpcrew("call", "-t", "1", self.url, "count").code, 4)
        self.assertFalse(worker.said("WARN"), worker.text())

    def test_answers_to_nobody_s_direct_address_are_dropped(self):
        worker = self.serve()
        client, channel = TutorialClient(self.connect(), self.queue, direct=True), self.connect()
        for i in range(3):
            channel.basic_publish("", self.queue, request("add", [1, i], i), pika.BasicProperties(
                reply_to=f"amq.rabbitmq.reply-to.nobody{i}"))
            self.assertEqual(client.call("add", 1, 2)["result"], 3)
        eventually(lambda: f"{self.queue}\t0" in self.broker.ctl("list_queues", "name", "messages"))
        self.assertFalse(worker.said("connection lost"), worker.text())

    def test_a_handler_slower_than_the_broker_s_patience_runs_once(self):
        def patience(milliseconds, tick):  # of channels that are opened from then on
            self.broker.ctl("eval", f"application:set_env(rabbit, consumer_timeout, {milliseconds}), "
                            f"application:set_env(rabbit, channel_tick_interval, {tick}).")
        patience(1000, 500)
        self.addCleanup(patience, 1800000, 60000)
        worker = self.serve("--threads", "2")
        self.assertEqual(rpcrew("call", "-t", "20", self.url, "sleep_ms", "5000").out, "5000\n")
        self.assertTrue(worker.said("timed out") or worker.said("timeout"), worker.text())
        self.assertTrue(worker.said("it is not run twice"), worker.text())

    def test_what_is_too_large_for_the_broker_costs_only_itself(self):
        def limit(size):  # of channels that are opened from then on: 3.x looks at the one, 4.x at the other
            self.broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {size}), "
                            f"persistent_term:put(max_message_size, {size}).")
        limit(20000)
        self.addCleanup(limit, 16 << 20)
        worker = self.serve()
        lines = [json.dumps({"method": "blob", "params": [30000], "id": 1})]
        lines += [json.dumps({"method": "echo", "params": ["x" * 30000], "id": 2})]
        lines += [json.dumps({"method": "sleep_ms", "params": [300], "id": i}) for i in range(3, 9)]
        lines += [json.dumps({"method": "echo", "params": ["x" * 15000], "id": 9})]
        got = rpcrew("batch", "-i", "-t", "20", self.url, stdin="\n".join(lines))
        answers = {answer["id"]: answer for answer in map(json.loads, got.out.splitlines())}
        self.assertEqual(answers[1]["error"]["code"], -32603, got.err)
        self.assertEqual(answers[1]["error"]["data"]["rpcrew"], {"executed": "yes", "reason": "too_large"})
        self.assertEqual((answers[2]["error"]["status"], answers[2]["error"]["executed"]), ("CREW_LIMIT", "no"))
        self.assertIn("20000", answers[2]["error"]["message"])
        self.assertEqual([answers[i]["result"] for i in range(3, 9)], [300] * 6)
        self.assertEqual(answers[9]["result"], "x" * 15000)
        self.assertFalse(worker.said("connection lost"), worker.text())
        direct = TutorialClient(self.connect(), self.queue, direct=True)
        self.assertEqual(direct.call("echo", "y" * 15000)["result"], "y" * 15000)

    def test_idle_connections_stay(self):
        worker = self.serve(query="&heartbeat=1")
        self.assertEqual(rpcrew("call", self.url + "&heartbeat=1", "sleep_ms", "4500").out, "4500\n")
        self.assertFalse(worker.said("connection lost"), worker.text())

    def test_one_way_calls_that_are_written_and_not_confirmed(self):
        self.serve()
        self.assertEqual(rpcrew("notify", self.url, "update").code, 0)
        self.broker.ctl("set_vm_memory_high_watermark", "0")
        self.addCleanup(self.broker.ctl, "set_vm_memory_high_watermark", "0.9")
        silent = rpcrew("notify", "-t", "1", self.url, "update")  # perhaps it is written, perhaps it could not connect
        self.assertIn(silent.code, (3, 4), silent.err)
        waiting = Load(self.url, 3, "update", command="notify")
        eventually(lambda: int(self.broker.ctl("list_connections", "pid").count("\n")) >= 4)
        self.broker.stop()
        for code, _, err in waiting.outcomes():  # at once, not at their deadlines
            self.assertIn(code, (3, 6), err)
        self.broker.start()

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

    def test_under_load_every_call_ends_and_both_ends_come_back(self):
        worker = self.serve("--threads", "4")
        enough = threading.Event()

        def lines():
            number = 0
            while not enough.is_set():
                number += 1
                yield json.dumps({"method": "sleep_ms", "params": [5], "id": number}) + "\n"
        with subprocess.Popen([program("rpcrew"), "batch", "-t", "10", "-i", self.url], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as batch:
            feeder = threading.Thread(target=lambda: (batch.stdin.writelines(lines()), batch.stdin.close()))
            feeder.start()
            answers = []

            def read_until(what):
                for line in batch.stdout:
                    answers.append(json.loads(line))
                    if what(answers[-1]):
                        return
                raise AssertionError("the answers end")
            read_until(lambda answer: answer["id"] >= 200)
            self.broker.stop()
            read_until(lambda answer: "error" in answer)  # at once: the budget does not let all be sent again
            failed = len(answers)
            self.broker.start()
            read_until(lambda answer: "result" in answer and len(answers) > failed)
            enough.set()
            answers.extend(json.loads(line) for line in batch.stdout)
            feeder.join()
        self.assertEqual([answer["id"] for answer in answers], list(range(1, len(answers) + 1)))
        self.assertLessEqual({answer["error"]["status"] for answer in answers if "error" in answer},
                             {"CREW_DISCONNECTED", "CREW_EXPIRED", "CREW_TIMEOUT", "CREW_NO_SERVICE"})
        self.assertTrue(worker.said("connection lost"))
        self.assertEqual(worker.stop(), 0)

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
        self.check_alarm()

    def test_an_alarm_hangs_nobody_over_tls(self):
        self.url = f"{self.broker.tls_url}&queue={self.queue}"
        self.check_alarm()

    def test_why_it_cannot_come_back_is_told(self):
        worker = self.serve()
        self.broker.ctl("clear_permissions", "rpcrew")
        self.addCleanup(self.broker.ctl, "set_permissions", "rpcrew", ".*", ".*", ".*")
        self.broker.ctl("close_all_connections", "test")
        eventually(lambda: worker.said("refused for user"))
        self.assertEqual(worker.text().count("cannot open the endpoint yet"), 1)
        self.broker.ctl("set_permissions", "rpcrew", ".*", ".*", ".*")
        eventually(lambda: worker.text().count("listening") >= 2)

    def test_what_is_given_out_again_while_it_runs_is_told(self):
        worker = self.serve()
        channel = self.connect()
        channel.basic_publish(exchange="", routing_key=self.queue, body=request("sleep_ms", [20000]),
                              properties=pika.BasicProperties(reply_to="nobody", correlation_id="1"))
        eventually(lambda: channel.queue_declare(self.queue, passive=True).method.message_count == 0)
        channel.connection.close()
        self.broker.ctl("close_all_connections", "test")  # which takes seconds on a busy machine, while the handler runs
        eventually(lambda: worker.said("given out again"))

    def check_alarm(self):
        worker = self.serve()
        self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        self.broker.ctl("set_vm_memory_high_watermark", "0")
        late = rpcrew("call", "-t", "1", self.url, "add", "1", "2")
        self.assertIn(late.code, (3, 4), late.err)
        self.assertIn(worker.stop(), (0, 3))
        self.broker.ctl("set_vm_memory_high_watermark", "0.9")
        self.serve()
        eventually(lambda: rpcrew("call", "-t", "5", self.url, "add", "1", "2").out == "3\n")



class OtherProtocols(Amqp):
    """Requesters that speak AMQP 1.0 and MQTT 5, to a broker that has the plugins."""

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker(("rabbitmq_amqp1_0", "rabbitmq_mqtt")).start()
        cls.addClassCleanup(cls.broker.close)
        cls.broker_url = cls.broker.url
        cls.since_4 = not cls.broker.ctl("version").startswith("3.")

    def address(self, queue):
        return "/queues/" + urllib.parse.quote(queue, safe="") if self.since_4 else "/amq/queue/" + queue

    def test_amqp_1_0(self):
        self.serve()
        answers = self.queue + "-answers" + ("/of me" if self.since_4 else "")
        self.connect().queue_declare(answers, durable=True)
        connection = proton.utils.BlockingConnection(f"amqp://127.0.0.1:{self.broker.port}", timeout=PATIENCE,
                                                     user="rpcrew", password="rpcrew", allowed_mechs="PLAIN")
        self.addCleanup(connection.close)
        receiver = connection.create_receiver(self.address(answers))
        sender = connection.create_sender(self.address(self.queue))
        body = request("add", [1, 2])
        for message, ident in [(proton.Message(body=body, inferred=True, id="request-1"), "request-1"),
                               (proton.Message(body=body.decode(), id="a string"), "a string"),
                               (proton.Message(body=body, inferred=True, id="m", correlation_id="c"), "c")]:
            message.reply_to = self.address(answers)
            sender.send(message)
            answer = receiver.receive(timeout=PATIENCE)
            receiver.accept()
            self.assertEqual(json.loads(bytes(answer.body))["result"], 3)
            self.assertEqual(answer.correlation_id, ident)

    def test_mqtt_5(self):
        if not self.since_4:
            return  # its plugin speaks no MQTT 5
        self.serve(query="&bind=amq.topic:calc.add")
        answers = queue.Queue()
        first = [paho.mqtt.client.CallbackAPIVersion.VERSION2] if hasattr(paho.mqtt.client, "CallbackAPIVersion") else []
        client = paho.mqtt.client.Client(*first, protocol=paho.mqtt.client.MQTTv5)
        client.username_pw_set("rpcrew", "rpcrew")
        client.on_message = lambda _client, _data, message: answers.put(message)
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        self.addCleanup(client.loop_stop)
        self.addCleanup(client.disconnect)
        client.subscribe("answers/me", qos=1)
        self.assertTrue(subscribed.wait(PATIENCE))
        properties = paho.mqtt.properties.Properties(paho.mqtt.packettypes.PacketTypes.PUBLISH)
        properties.ResponseTopic = "answers/me"
        properties.CorrelationData = b"forty-two"
        client.publish("calc/add", request("add", [1, 2]), qos=1, properties=properties)
        answer = answers.get(timeout=PATIENCE)
        self.assertEqual(json.loads(answer.payload)["result"], 3)
        self.assertEqual(answer.properties.CorrelationData, b"forty-two")


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
        self.assertEqual(list(os.walk(self.directory))[1:], [])
        self.assertFalse([pid for pid in pids if os.path.exists("/proc/" + pid)])


if __name__ == "__main__":
    main()
