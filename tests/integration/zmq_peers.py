"""ZeroMQ peers written with python3-zmq: their clients to our worker, our client to their services."""
import json
import os
import signal
import socket
import threading
import time

import msgpack
import zmq

from support import PATIENCE, Case, eventually, main, program, request, rpcrew

import subprocess


class Peer(Case):
    def setUp(self):
        super().setUp()
        self.context = zmq.Context()
        self.addCleanup(self.context.destroy, 0)
        self.address = "ipc://" + self.socket_path()
        self.url = "zmq+" + self.address

    def socket(self, kind, **options):
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = PATIENCE * 1000
        for name, value in options.items():
            setattr(socket, name, value)
        return socket

    def connected(self, kind, **options):
        socket = self.socket(kind, **options)
        socket.connect(self.address)
        return socket


def answer(socket):
    return json.loads(socket.recv_multipart()[-1])


def deadline(left_ms):
    """What a caller of ours says beside the body."""
    return b"RPCREW2" + msgpack.packb({"left": max(left_ms, 0), "deadline": int(time.time() * 1000) + left_ms})


class TheirClients(Peer):
    def serve(self, query="", *flags):
        return self.worker("conformance", "--listen", self.url + query, *flags)

    def test_req(self):
        self.serve()
        req = self.connected(zmq.REQ)
        for i in range(100):
            req.send(request("add", [i, 1], i))
            self.assertEqual(answer(req), {"jsonrpc": "2.0", "result": i + 1, "id": i})
        req.send(b"rubbish")
        self.assertEqual(answer(req)["error"]["code"], -32700)
        req.send(b"")
        self.assertEqual(answer(req)["error"]["code"], -32700)
        req.send(request("nobody"))
        self.assertEqual(answer(req)["error"]["code"], -32601)

    def test_a_worker_listens_on_a_name(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.worker("conformance", "--listen", f"zmq+tcp://localhost:{port}")
        req = self.socket(zmq.REQ)
        req.connect(f"tcp://127.0.0.1:{port}")
        req.send(request("add", [1, 1]))
        self.assertEqual(answer(req)["result"], 2)
        self.assertEqual(rpcrew("call", f"zmq+tcp://localhost:{port}", "add", "1", "1").out, "2\n")

    def test_req_with_correlation(self):
        self.serve()
        req = self.connected(zmq.REQ, req_correlate=1, req_relaxed=1)
        req.send(request("echo", ["x"]))
        self.assertEqual(answer(req)["result"], "x")

    def test_dealer_in_every_envelope(self):
        self.serve()
        dealer = self.connected(zmq.DEALER)
        for envelope in [], [b""], [b"a", b"", b"b"], [b"x" * 200] * 10:
            dealer.send_multipart([*envelope, request("echo", ["x"])])
            frames = dealer.recv_multipart()
            self.assertEqual(frames[:-1], envelope)
            self.assertEqual(json.loads(frames[-1])["result"], "x")

    def test_a_hostile_envelope_costs_nothing(self):
        self.serve()
        dealer = self.connected(zmq.DEALER)
        dealer.send_multipart([b"x"] * 1000 + [request("echo", ["lost"])])
        dealer.send_multipart([b"x" * 100000, request("echo", ["lost"])])
        dealer.send_multipart([b"", request("echo", ["served"])])
        self.assertEqual(answer(dealer)["result"], "served")

    def test_pipelined_calls_are_answered_under_their_ids(self):
        self.serve()
        dealer = self.connected(zmq.DEALER)
        for i in range(2000):
            dealer.send_multipart([b"", request("echo", [i], i)])
        answers = [answer(dealer) for _ in range(2000)]
        self.assertTrue(all(a["result"] == a["id"] for a in answers))
        self.assertEqual(sorted(a["id"] for a in answers), list(range(2000)))

    def test_a_batch(self):
        self.serve()
        req = self.connected(zmq.REQ)
        calls = [request("add", [1, 2], 1), request("update", [], None), request("add", [3, 4], 2)]
        req.send(b"[" + b",".join(calls) + b"]")
        self.assertEqual([a["result"] for a in answer(req)], [3, 7])

    def test_a_notification_gets_no_answer(self):
        self.serve()
        dealer = self.connected(zmq.DEALER)
        dealer.send_multipart([b"", request("update", [], None)])
        dealer.send_multipart([b"", request("count")])
        self.assertIn("result", answer(dealer))
        self.assertEqual(dealer.poll(50), 0)

    def test_settle_empty_lets_a_req_go_on(self):
        self.serve("?settle=empty")
        req = self.connected(zmq.REQ)
        for _ in range(3):
            req.send(request("update", [], None))
            self.assertEqual(req.recv(), b"")
        req.send(request("add", [1, 2]))
        self.assertEqual(answer(req)["result"], 3)

    def test_through_a_proxy_to_two_workers(self):
        front, back = self.socket(zmq.ROUTER), self.socket(zmq.DEALER)
        front.bind(self.address)
        back.bind("ipc://" + self.socket_path("back"))
        for _ in range(2):
            self.worker("conformance", "--listen", "zmq+ipc://" + self.socket_path("back") + "?mode=connect")
        control = self.context.socket(zmq.PAIR)
        control.bind("inproc://control")
        steer = self.context.socket(zmq.PAIR)
        steer.connect("inproc://control")
        thread = threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, control))
        thread.start()
        try:
            req = self.connected(zmq.REQ)
            seen = set()
            end = time.monotonic() + PATIENCE
            while len(seen) < 2 and time.monotonic() < end:
                req.send(request("whoami"))
                seen.add(answer(req)["result"])
            self.assertEqual(len(seen), 2)
            self.assertEqual(rpcrew("call", self.url, "add", "1", "2").out, "3\n")
        finally:
            steer.send(b"TERMINATE")
            thread.join(PATIENCE)

    def test_a_client_that_does_not_read_starves_nobody(self):
        worker = self.serve("?send_timeout_ms=200&send_queue=10")
        glutton = self.connected(zmq.DEALER, rcvhwm=10, sndhwm=0)
        for i in range(3000):
            glutton.send_multipart([b"", request("blob", [20000], i)])
        req = self.connected(zmq.REQ)
        end = time.monotonic() + PATIENCE
        for i in range(300):  # were it to hold up the others again and again, these would take minutes
            req.send(request("add", [i, 1], i))
            self.assertEqual(answer(req)["result"], i + 1)
            self.assertLess(time.monotonic(), end)
        with open(f"/proc/{worker.process.pid}/status", encoding="ascii") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        if "asan" not in os.environ["RPCREW_BIN"] and "tsan" not in os.environ["RPCREW_BIN"]:
            self.assertLess(resident, 60000, "kB")

    def test_a_client_that_comes_back_under_its_id_is_heard(self):
        self.serve()
        first = self.connected(zmq.DEALER, routing_id=b"fixed")
        first.send_multipart([b"", request("sleep_ms", [500], 1)])
        first.send_multipart([b"", request("add", [1, 2], 2)])
        self.assertEqual(answer(first)["id"], 2)
        second = self.connected(zmq.DEALER, routing_id=b"fixed")  # the first one's host may have vanished
        for i in range(20):
            second.send_multipart([b"", request("add", [i, 1], 10 + i)])
            self.assertEqual(answer(second)["id"], 10 + i)
        self.assertFalse(second.poll(1000))  # what the first one asked for is not the second one's
        third = self.connected(zmq.DEALER, routing_id=b"fixed")
        third.probe_router = 1
        third.send_multipart([b"", request("add", [1, 1], 5)])
        self.assertEqual(answer(third)["id"], 5)

    def test_the_empty_message_of_probe_router_is_no_request(self):
        self.serve()
        dealer = self.connected(zmq.DEALER, probe_router=1)
        dealer.send_multipart([b"", request("add", [1, 2], 1)])
        self.assertEqual(answer(dealer)["result"], 3)
        self.assertFalse(dealer.poll(300))

    def test_an_abstract_name(self):
        url = f"zmq+ipc://@rpcrew-{os.getpid()}"
        self.worker("conformance", "--listen", url)
        self.assertEqual(rpcrew("call", url, "add", "1", "2").out, "3\n")
        self.assertEqual(rpcrew("call", url + "-nobody", "add", "1", "2").code, 3)

    def test_a_client_that_leaves_costs_nothing(self):
        self.serve()
        for _ in range(20):
            brief = self.connected(zmq.DEALER)
            brief.send_multipart([b"", request("sleep_ms", [20])])
            brief.close(linger=1000)
        req = self.connected(zmq.REQ)
        req.send(request("add", [1, 2]))
        self.assertEqual(answer(req)["result"], 3)

    def test_a_client_that_leaves_while_it_is_held_back_costs_nothing(self):
        self.serve("?in_flight=1&max_bytes=65536")
        busy, flood = self.connected(zmq.DEALER), self.connected(zmq.DEALER, sndhwm=1, sndtimeo=500)
        busy.send_multipart([b"", request("sleep_ms", [7000])])
        with self.assertRaises(zmq.Again):
            for _ in range(1000):
                flood.send_multipart([b"", b"x" * 250000])
        flood.close()
        self.assertEqual(answer(busy)["result"], 7000)
        busy.send_multipart([b"", request("add", [1, 2])])
        self.assertEqual(answer(busy)["result"], 3)

    def test_a_passed_deadline_in_the_header_is_not_run(self):
        self.serve("", "--threads", "1")
        dealer = self.connected(zmq.DEALER)
        dealer.send_multipart([b"", deadline(-1000), request("update", [], None)])
        dealer.send_multipart([b"", deadline(60000), request("update", [], None)])
        dealer.send_multipart([b"", deadline(60000), request("count", None, 7)])
        frames = dealer.recv_multipart()
        self.assertTrue(frames[1].startswith(b"RPCREW2"))
        self.assertEqual(json.loads(frames[-1])["result"], 1)

    def test_the_rest_of_a_batch_is_not_run_after_the_deadline(self):
        self.serve("", "--threads", "1")
        dealer = self.connected(zmq.DEALER)
        calls = [request("sleep_ms", [600], 1), request("update", [], None), request("add", [1, 2], 2)]
        header = deadline(300)
        dealer.send_multipart([b"", header, b"[" + b",".join(calls) + b"]"])
        first, second = answer(dealer)
        self.assertEqual(first["result"], 600)
        self.assertEqual(second["error"]["data"]["rpcrew"]["reason"], "deadline")
        dealer.send_multipart([b"", request("count")])
        self.assertEqual(answer(dealer)["result"], 0)

    def test_answers_for_a_slow_reader_are_drained(self):
        worker = self.serve("?send_queue=10&send_timeout_ms=10000")
        dealer = self.connected(zmq.DEALER, rcvhwm=1)
        for i in range(60):
            dealer.send_multipart([b"", request("blob", [100000], i)])
        ids = [answer(dealer)["id"]]
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.said("draining"))
        ids += [answer(dealer)["id"] for _ in range(59)]
        self.assertEqual(sorted(ids), list(range(60)))
        self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_a_second_stop_does_not_wait_for_who_does_not_read(self):
        worker = self.serve("", "--drain-ms", "60000")
        dealer = self.connected(zmq.DEALER, rcvhwm=1)
        for i in range(40):
            dealer.send_multipart([b"", request("blob", [1000000], i)])
        self.assertIn("result", answer(dealer))
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.said("draining"))

        def stopped():
            worker.process.send_signal(signal.SIGTERM)  # until one counts as the second
            return worker.process.poll() is not None
        eventually(stopped)

    def test_sigterm_under_load_leaves_no_call_without_an_answer(self):
        worker = self.serve("", "--threads", "2")
        dealer = self.connected(zmq.DEALER)
        for i in range(40):
            dealer.send_multipart([b"", request("sleep_ms", [20], i)])
        first = answer(dealer)
        self.assertIn("result", first)
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.said("draining"))
        answers = [first] + [answer(dealer) for _ in range(39)]
        self.assertEqual(worker.process.wait(PATIENCE), 0)
        self.assertEqual(sorted(a["id"] for a in answers), list(range(40)))
        for a in answers:
            if "error" in a:
                self.assertEqual(a["error"]["data"]["rpcrew"], {"executed": "no", "reason": "stopping"})


class TheirServices(Peer):
    def serve(self, kind, reply):
        """Runs a service: reply(frames) gives the messages to send back."""
        socket = self.socket(kind)
        socket.rcvtimeo = 50
        socket.bind(self.address)
        stop = threading.Event()

        def loop():
            while not stop.is_set():
                try:
                    frames = socket.recv_multipart()
                except zmq.Again:
                    continue
                for message in reply(frames):
                    socket.send_multipart(message)
            socket.close()

        thread = threading.Thread(target=loop)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(stop.set)

    @staticmethod
    def result(frames, **more):
        call = json.loads(frames[-1])
        return json.dumps({"jsonrpc": "2.0", "result": call.get("params"), "id": call.get("id"), **more}).encode()

    def test_rep(self):
        seen = []

        def reply(frames):
            seen.append(frames)
            return [[self.result(frames)]]
        self.serve(zmq.REP, reply)
        self.assertEqual(rpcrew("call", self.url, "m", "1", "x").out, '[1,"x"]\n')
        self.assertEqual(seen, [[b'{"jsonrpc":"2.0","method":"m","params":[1,"x"],"id":1}']])

    def test_router_sees_exactly_the_envelope_of_req(self):
        seen = []

        def reply(frames):
            seen.append(frames[1:])
            return [frames[:-1] + [self.result(frames)]]
        self.serve(zmq.ROUTER, reply)
        self.assertEqual(rpcrew("call", self.url, "m", "1").out, "[1]\n")
        self.assertEqual(seen[0], [b"", b'{"jsonrpc":"2.0","method":"m","params":[1],"id":1}'])
        self.assertEqual(rpcrew("call", "-t", "30", self.url + "?headers=yes", "m", "1").out, "[1]\n")
        self.assertEqual(len(seen[1]), 3)
        deadline = msgpack.unpackb(seen[1][1].removeprefix(b"RPCREW2"))
        self.assertTrue(0 < deadline["left"] <= 30000)
        self.assertTrue(0 < deadline["deadline"] - time.time() * 1000 <= 30000)

    def test_an_empty_answer_to_a_notification_is_passed_over(self):
        seen = []

        def reply(frames):
            seen.append(frames[-1])
            return [[b""]]
        self.serve(zmq.REP, reply)
        self.assertEqual(rpcrew("notify", self.url, "m", "1").code, 0)
        eventually(lambda: seen == [b'{"jsonrpc":"2.0","method":"m","params":[1]}'])

    def test_answers_of_nobody_are_dropped(self):
        def reply(frames):
            return [frames[:-1] + [body] for body in (
                self.result(frames, id=77), self.result(frames, id="1"), self.result(frames, id=None), b"",
                self.result(frames), self.result(frames), self.result(frames, id=99))]
        self.serve(zmq.ROUTER, reply)
        self.assertEqual(rpcrew("call", self.url, "m", "1").out, "[1]\n")

    def test_an_error_with_id_null_settles_the_sole_call(self):
        self.serve(zmq.ROUTER, lambda frames: [frames[:-1] + [
            b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}']])
        got = rpcrew("call", self.url, "m")
        self.assertEqual(got.code, 1)
        self.assertIn("Parse error (code -32700)", got.err)

    def test_rubbish_under_the_right_id_is_a_bad_reply(self):
        self.serve(zmq.ROUTER, lambda frames: [frames[:-1] + [b'{"jsonrpc":"2.0","id":1}']])
        got = rpcrew("call", self.url, "m")
        self.assertEqual(got.code, 7)
        self.assertIn("neither result nor error", got.err)

    def test_an_answer_beyond_the_limit_ends_the_call(self):
        self.serve(zmq.ROUTER, lambda frames: [frames[:-1] + [self.result(frames, result="x" * 5000)]])
        self.assertEqual(rpcrew("call", self.url + "?max_bytes=1000", "m").code, 7)

    def test_what_closes_each_connection_is_no_service(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stop = threading.Event()

            def accept():
                while not stop.is_set():
                    listener.accept()[0].close()
            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            got = rpcrew("call", "-t", "1", f"zmq+tcp://127.0.0.1:{listener.getsockname()[1]}", "m")
            stop.set()
        self.assertEqual(got.code, 3)

    def test_a_service_that_comes_later_gets_the_call(self):
        self.assertEqual(rpcrew("call", self.url, "m", "1").code, 3)
        caller = subprocess.Popen([program("rpcrew"), "call", "--retry", self.url, "m", "1"], stdout=subprocess.PIPE, text=True)
        self.serve(zmq.REP, lambda frames: [[self.result(frames)]])
        self.assertEqual(caller.communicate(timeout=PATIENCE)[0], "[1]\n")


class OlderServices(Case):
    """Services of older ZMTP, by hand: no libzmq speaks it any more."""

    SIGNATURE = b"\xff" + b"\0" * 8 + b"\x7f"
    ROUTER = 6

    def setUp(self):
        super().setUp()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.url = f"zmq+tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.commands = []

    def serve(self, shake, before_the_answer=lambda connection: None):
        """Serves one call, on the first connection."""
        def loop():
            connection, _ = self.listener.accept()
            connection.settimeout(PATIENCE)
            with connection, connection.makefile("rb") as stream:
                shake(connection, stream)
                while self.frame(stream) != b"":
                    pass
                body = self.frame(stream)
                before_the_answer(connection)
                answer = json.dumps({"jsonrpc": "2.0", "result": "old", "id": json.loads(body)["id"]}).encode()
                connection.sendall(b"\1\0" + b"\0" + bytes([len(answer)]) + answer)
                self.commands_until_the_end(stream)
        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)

    @staticmethod
    def exactly(stream, size):
        got = stream.read(size)
        if len(got) < size:
            raise EOFError
        return got

    def frame(self, stream):
        """The next frame's body; commands are put aside."""
        while True:
            flags, size = self.exactly(stream, 2)
            if flags & 2:
                size = int.from_bytes(bytes([size]) + self.exactly(stream, 7), "big")
            body = self.exactly(stream, size)
            if not flags & 4:
                return body
            self.commands.append(body)

    def commands_until_the_end(self, stream):
        try:
            self.frame(stream)
        except (EOFError, OSError):
            pass

    def zmtp_2(self, connection, stream):
        connection.sendall(self.SIGNATURE)
        greeting = self.exactly(stream, 11)
        self.assertEqual((greeting[0], greeting[9] & 1), (0xff, 1))
        connection.sendall(bytes([1, self.ROUTER]) + b"\0\0")  # an anonymous one's identity
        self.exactly(stream, 3)  # its type, and an identity

    def zmtp_3(self, connection, stream, minor=0):
        connection.sendall(self.SIGNATURE + bytes([3, minor]) + b"NULL".ljust(20, b"\0") + b"\0" * 32)
        self.exactly(stream, 64)
        ready = b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"
        connection.sendall(bytes([4, len(ready)]) + ready)

    @staticmethod
    def quiet(seconds, seen):
        """What comes within some seconds."""
        def look(connection):
            connection.settimeout(seconds)
            try:
                seen.append(connection.recv(100))
            except socket.timeout:
                seen.append(b"")
            connection.settimeout(PATIENCE)
        return look

    def test_zmtp_2(self):
        seen = []
        self.serve(self.zmtp_2, self.quiet(6, seen))  # libzmq's time for a handshake is over by then
        self.assertEqual(rpcrew("call", "-t", "15", self.url, "m").out, '"old"\n')
        self.assertEqual(seen, [b""])

    def test_a_peer_that_knows_no_ping_can_be_sent_none(self):
        seen = []
        for query in "?heartbeat=1", "?heartbeat=0":
            self.serve(self.zmtp_3, self.quiet(2.5, seen))
            self.assertEqual(rpcrew("call", "-t", "15", self.url + query, "m").out, '"old"\n')
        self.assertIn(b"PING", seen[0])
        self.assertEqual(seen[1], b"")


if __name__ == "__main__":
    main()
