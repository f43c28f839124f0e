"""Streams of bytes, from sockets that nobody of ours has made: framings, ends, programs run and handed sockets,
peers that misbehave; neovim and pynvim both ways."""
import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import msgpack
from support import PATIENCE, Case, eventually, free_port, main, program, request, rpcrew


def cpu_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="utf-8") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def unread_bytes(connection):
    """What has been sent, and the other end has not taken from its socket."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)


def read_all(connection):
    """What comes until the other end closes."""
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


class Streams(Case):
    def serve(self, options="", name="conformance", **more):
        self.path = self.socket_path()
        return self.worker(name, "--listen", f"unix://{self.path}{options}", **more)

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.settimeout(PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def exchange(self, text):
        """Sends all, half-closes, and returns all that comes."""
        with self.connect() as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def adds(self, url):
        got = rpcrew("call", url, "add", "1", "2")
        self.assertEqual((got.out, got.err), ("3\n", ""))

    def still_serves(self):
        self.adds(f"unix://{self.path}")


class With(Streams):
    """What our callers say of their next request, to workers of ours."""
    def test_headers_are_those_of_the_next_request(self):
        self.serve("?in_flight=1")
        said = {"jsonrpc": "2.0", "method": "rpc.with", "params": {"timeout_ms": 9000, "headers": {"x-tenant": "blue", "é": "\x01"}}}
        lines = [said, {"jsonrpc": "2.0", "method": "headers", "id": 1}, {"jsonrpc": "2.0", "method": "headers", "id": 2},
                 said, {**said, "params": {"headers": {"a": "b"}}}, {"jsonrpc": "2.0", "method": "headers", "id": 3}]
        got = self.exchange(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        results = {reply["id"]: reply["result"] for reply in map(json.loads, got.splitlines())}
        self.assertEqual(results, {1: said["params"]["headers"], 2: None, 3: {"a": "b"}})
        objects = [[2, "rpc.with", [{"timeout_ms": 9000, "headers": {"x": "y"}}]], [0, 1, "headers", []], [2, "rpc.with", []], [0, 2, "headers", []]]
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.exchange(b"".join(map(msgpack.packb, objects))))
        self.assertEqual(sorted(unpacker), [[1, 1, None, {"x": "y"}], [1, 2, None, None]])

    def test_what_is_said_wrongly_is_a_notification_as_others_are(self):
        self.serve()
        for params in ({"timeout_ms": -1}, {"timeout_ms": "9"}, {"timeout_ms": 1 << 40}, {"headers": ["a"]}, {"headers": {"a": 1}}, {"headers": {"a": "x" * 20000}}, [1, 2], []):
            lines = {"jsonrpc": "2.0", "method": "rpc.with", "params": params}, {"jsonrpc": "2.0", "method": "headers", "id": 1}
            got = self.exchange(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            self.assertIsNone(json.loads(got)["result"], params)
        call = {"jsonrpc": "2.0", "method": "rpc.with", "params": {"headers": {"a": "b"}}, "id": 7}  # one that wants an answer is none
        self.assertEqual(json.loads(self.exchange(json.dumps(call).encode()))["error"]["code"], -32601)
        self.still_serves()

    def test_who_leaves_behind_it_is_gone(self):
        worker = self.serve()
        self.still_serves()
        said = json.dumps({"jsonrpc": "2.0", "method": "rpc.with", "params": {"timeout_ms": 9000}}).encode()
        descriptors = f"/proc/{worker.process.pid}/fd"
        before = len(os.listdir(descriptors))
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.path)
                connection.sendall(said + b"\n")
        eventually(lambda: len(os.listdir(descriptors)) <= before)
        late = json.dumps({"jsonrpc": "2.0", "params": {"headers": {"a": "b" * 100}}, "method": "rpc.with"})  # in any order
        self.assertIn(b'"a":"bbb', self.exchange(late.encode() + b"\n" + request("headers", [])))

    def test_what_has_expired_is_not_run(self):
        self.path = self.socket_path()
        url = f"unix://{self.path}"
        worker = self.worker("conformance", "--listen", url, "--threads", "1", "--access-log")
        for protocol in "jsonrpc", "msgpack":
            with self.connect() as slow:
                slow.sendall(request("sleep_ms", [1500], 1) + request("rpc.ping", [], 2))
                self.assertIn(b'"id":2', slow.recv(100))  # it is busy with the first by now
                got = rpcrew("call", "-p", protocol, "-t", "0.3", url + "?peer=rpcrew", "update", "1")
                self.assertEqual(got.code, 4, got.err)
                self.assertIn(b'"id":1', slow.recv(100))
            eventually(lambda p=protocol: re.search(f"method=update ending=expired .*protocol={p}", worker.text()))

    def test_our_caller_says_it_where_that_is_promised(self):
        self.serve()
        url = f"unix://{self.path}"
        for more in (), ("-p", "msgpack"):
            got = rpcrew("call", *more, "-H", "X-Tenant: blue", url + "?peer=rpcrew", "headers")
            self.assertEqual(got.out, '{"x-tenant":"blue"}\n', got.err)
            got = rpcrew("call", *more, "-H", "X-Tenant: blue", url, "headers")
            self.assertIn("headers do not travel there", got.err)
            lines = "".join(f'{{"method":"add","params":[{i},1]}}\n' for i in range(300))
            got = rpcrew("batch", *more, "-c", "100", url + "?peer=rpcrew", stdin=lines)
            self.assertEqual(sorted(json.loads(line)["result"] for line in got.out.splitlines()), list(range(1, 301)))
        run = f"exec://{program('conformance')}?arg=--listen&arg=stdio%3A%2F%2F&arg=--log-level&arg=error"
        self.assertEqual(rpcrew("call", "-H", "A: b", run + "&peer=rpcrew", "headers").out, '{"a":"b"}\n')

    def test_others_hear_nothing_of_it(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.socket_path())
            listener.listen()
            with subprocess.Popen([program("rpcrew"), "call", "-t", "5", f"unix://{self.socket_path()}", "add", "1", "2"],
                                  stdout=subprocess.PIPE, text=True) as caller:
                connection = listener.accept()[0]
                self.assertEqual(json.loads(connection.makefile().readline())["method"], "add")
                connection.sendall(b'{"jsonrpc":"2.0","result":3,"id":1}\n')
                self.assertEqual(caller.communicate(timeout=PATIENCE)[0], "3\n")
                self.assertEqual(connection.recv(100), b"")


class Framings(Streams):
    def test_json_in_every_framing_is_answered_in_it(self):
        self.serve()
        one, two = request("add", [1, 2], 1), request("add", [3, 4], 2)
        replies = {b'{"jsonrpc":"2.0","result":3,"id":1}', b'{"jsonrpc":"2.0","result":7,"id":2}'}
        for text in one + b"\n" + two + b"\n", one + two, one + b"\r\n" + two, b"\xef\xbb\xbf" + one + b"\n" + two:
            self.assertEqual(set(self.exchange(text).splitlines()), replies)
        pretty = json.dumps(json.loads(one), indent=2).encode()
        self.assertEqual(set(self.exchange(pretty + two).splitlines()), replies)
        framed = b"".join(b"Content-Length: %d\r\n\r\n%s" % (len(text), text) for text in (one, two))
        self.assertEqual(sorted(self.exchange(framed).split(b"Content-Length: 35\r\n\r\n")), [b""] + sorted(replies))

    def test_messagepack_is_a_stream_of_objects(self):
        self.serve()
        calls = [[0, i, "add", [i, 1]] for i in range(100)]
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.exchange(b"".join(map(msgpack.packb, calls))))
        self.assertEqual(sorted(unpacker), [[1, i, None, i + 1] for i in range(100)])

    def test_a_byte_at_a_time_is_as_good(self):
        self.serve()
        for text in request("add", [1, 2]), b"Content-Length: 51\r\n\r\n" + request("add", [1, 20]), \
                msgpack.packb([0, 1, "add", [1, 2]]):
            with self.connect() as connection:
                for i in range(len(text)):
                    connection.sendall(text[i:i + 1])
                connection.shutdown(socket.SHUT_WR)
                self.assertTrue(read_all(connection))

    def test_answers_come_as_they_are_completed(self):
        self.serve()
        got = self.exchange(request("sleep_ms", [300], "slow") + b"\n" + request("add", [1, 2], "fast") + b"\n")
        self.assertEqual([json.loads(line)["id"] for line in got.splitlines()], ["fast", "slow"])

    def test_a_line_that_is_no_json_costs_itself(self):
        self.serve()
        got = self.exchange(request("add", [1, 2]) + b'\n{"jsonrpc": "2.0", "method\n' + request("add", [1, 2]) + b"\n")
        codes = sorted(json.loads(line).get("error", {}).get("code", 0) for line in got.splitlines())
        self.assertEqual(codes, [-32700, 0, 0])

    def test_what_cannot_be_read_any_further_is_told_and_closed(self):
        self.serve("?max_bytes=1000")
        for text in b"\x94\x00\xc1", b"Content-Length: x\r\n\r\n", b"hello", b"x" * 10000, \
                b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n" + request("add", [1, 2]):
            with self.connect() as connection:
                connection.sendall(text)
                self.assertRegex(read_all(connection), b"-32[67]00|\xd1\x80[\x44\xa8]", text)
        self.still_serves()

    def test_a_fixed_framing_takes_nothing_else(self):
        self.serve("?framing=lines")
        self.assertIn(b"-32700", self.exchange(b"Content-Length: 2\n"))
        got = rpcrew("call", "-p", "msgpack", f"unix://{self.path}?framing=lines", "add", "1", "2")
        self.assertNotEqual(got.code, 0)
        self.assertIn("carries no application/msgpack", got.err)

    def test_notifications_run_though_their_sender_leaves_at_once(self):
        self.serve()
        for _ in range(5):
            self.assertEqual(rpcrew("notify", f"unix://{self.path}", "update").code, 0)
        for _ in range(100):
            with self.connect() as connection:
                connection.sendall(request("update", [], None) + b"\n")
        eventually(lambda: rpcrew("call", f"unix://{self.path}", "count").out == "105\n")


class Programs(Streams):
    def run_worker(self, text, *flags):
        return subprocess.run([program("conformance"), "--listen", "stdio://", *flags], input=text,
                              capture_output=True, timeout=PATIENCE, check=False)

    def test_a_worker_on_stdio_answers_all_and_exits(self):
        done = self.run_worker(b"".join(request("add", [i, 1], i) + b"\n" for i in range(500)))
        self.assertEqual(done.returncode, 0)
        self.assertEqual(sorted(json.loads(line)["result"] for line in done.stdout.splitlines()),
                         list(range(1, 501)))
        self.assertEqual(self.run_worker(b"").returncode, 0)

    def test_input_and_output_may_be_files(self):
        given, taken = self.socket_path("in"), self.socket_path("out")
        with open(given, "wb") as file:
            file.write(request("add", [1, 2]) + request("add", [3, 4]))
        with open(given, "rb") as stdin, open(taken, "wb") as stdout:
            stdout.write(b"before\n")
            stdout.flush()
            code = subprocess.run([program("conformance"), "--listen", "stdio://"], stdin=stdin, stdout=stdout,
                                  stderr=subprocess.DEVNULL, timeout=PATIENCE, check=False).returncode
        self.assertEqual(code, 0)
        with open(taken, "rb") as file:
            lines = file.read().splitlines()
        self.assertEqual((lines[0], len(lines)), (b"before", 3))

    def test_a_reader_that_stops_is_the_end(self):
        with subprocess.Popen([program("conformance"), "--listen", "stdio://"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.close()
            process.stdin.write(request("add", [1, 2]) + b"\n")
            process.stdin.flush()
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_a_caller_runs_its_worker(self):
        url = f"exec://{program('conformance')}?arg=--listen&arg=stdio://&arg=--log-level&arg=off"
        self.adds(url)
        self.assertEqual(rpcrew("call", "-p", "msgpack", url, "echo", '"ä"').out, '"ä"\n')
        self.assertIn("exit status 2", rpcrew("call", f"exec://{program('conformance')}", "add").err)
        self.assertIn("No such file", rpcrew("call", "exec:///nowhere/at/all", "add").err)

    def test_a_program_that_reads_no_more_may_still_answer(self):
        answer = '{"jsonrpc": "2.0", "result": "late", "id": 1}'
        with open(self.socket_path("service"), "w", encoding="utf-8") as file:
            file.write(f"read line; exec <&-; sleep 0.3; echo '{answer}'")
        self.assertEqual(rpcrew("call", f"exec://sh?arg={file.name}", "any").out, '"late"\n')

    def test_under_inetd_nothing_but_answers_is_in_the_socket(self):
        ours, theirs = socket.socketpair()
        with ours, subprocess.Popen([program("conformance"), "--listen", "stdio://"], stdin=theirs, stdout=theirs,
                                    stderr=theirs) as process:
            theirs.close()
            ours.sendall(request("add", [1, 2]) + b"\n")
            ours.shutdown(socket.SHUT_WR)
            ours.settimeout(PATIENCE)
            self.assertEqual(read_all(ours), b'{"jsonrpc":"2.0","result":3,"id":1}\n')
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_an_end_of_input_leaves_the_other_endpoints(self):
        with subprocess.Popen([program("conformance"), "--listen", "stdio://", "--listen",
                               f"unix://{self.socket_path()}", "--drain-ms", "3600000"], stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            eventually(lambda: os.path.exists(self.socket_path()))
            self.adds(f"unix://{self.socket_path()}")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_what_is_somebody_else_s_is_not_replaced(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(self.socket_path())
            for scheme in "unix", "zmq+ipc":
                worker = self.worker("conformance", "--listen", f"{scheme}://{self.socket_path()}", wait=False)
                self.assertEqual(worker.process.wait(PATIENCE), 1)
                self.assertIn("another kind", worker.text())
            self.assertTrue(os.path.exists(self.socket_path()))

    def test_of_many_that_start_together_one_serves(self):
        workers = [self.worker("conformance", "--listen", f"unix://{self.socket_path()}", wait=False)
                   for _ in range(8)]
        eventually(lambda: sum(worker.process.poll() is None for worker in workers) == 1)
        self.adds(f"unix://{self.socket_path()}")

    def test_a_program_that_does_not_end_is_ended(self):
        url = "exec://sh?arg=-c&arg=echo%20$$%20%3E%26%32;%20trap%20%27%27%20TERM;%20while%20:;%20do%20sleep%201;%20done"
        done = rpcrew("call", "-t", "0.5", url, "add")
        self.assertIn("no answer by the deadline", done.err)
        pid = int(done.err.split()[0])
        eventually(lambda: not os.path.exists(f"/proc/{pid}") or "zombie" in open(f"/proc/{pid}/status").read())

    def test_sockets_are_handed_over(self):
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            unix.bind(self.socket_path())
            unix.listen()
            fds = [tcp.fileno(), unix.fileno()]
            wrapper = ("import fcntl, os, sys; fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 50) for fd in sys.argv[1:3]];"
                       "[os.dup2(fd, 3 + i) for i, fd in enumerate(fds)];"
                       "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='web:local');"
                       "os.execv(sys.argv[3], sys.argv[3:])")
            with subprocess.Popen(["/usr/bin/python3", "-c", wrapper, *map(str, fds), program("conformance"),
                                   "--listen", "tcp://?listen=fd:web", "--listen", "unix://?listen=fd:4"],
                                  pass_fds=fds, stderr=subprocess.DEVNULL) as process:
                for url in f"tcp://127.0.0.1:{tcp.getsockname()[1]}", f"unix://{self.socket_path()}":
                    self.adds(url)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(PATIENCE), 0)
            self.assertTrue(os.path.exists(self.socket_path()))  # it is its maker's
        worker = self.worker("conformance", "--listen", "tcp://?listen=fd:web", wait=False)
        self.assertEqual(worker.process.wait(PATIENCE), 1)
        self.assertIn("LISTEN_FDS", worker.text())

    def test_a_path_is_its_owner_s(self):
        worker = self.serve("?mode=600")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        second = self.worker("conformance", "--listen", f"unix://{self.path}", wait=False)
        self.assertEqual(second.process.wait(PATIENCE), 1)
        self.assertIn("in use", second.text())
        worker.stop(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path))
        worker = self.serve()  # nobody serves it any more
        self.still_serves()
        worker.stop()
        self.assertFalse(os.path.exists(self.path))
        self.assertIn("No such file", rpcrew("call", f"unix://{self.path}", "add").err)
        name = "@" + os.path.basename(self.directory)
        self.worker("conformance", "--listen", f"unix://{name}")
        self.adds(f"unix://{name}")


def loopback(is_up):
    """Of this process's own network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 if is_up else 0))  # SIOCSIFFLAGS, IFF_UP


def connections_at(port):
    """How many are established there, as the kernel sees it."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [row.split() for row in file.readlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


class Alone(Case):
    """In a network of its own, whose one cable can be drawn."""
    def setUp(self):
        if not os.environ.get("RPCREW_ALONE"):
            words = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
            name = ".".join(self.id().split(".")[1:])
            got = subprocess.run(words + [sys.executable, __file__, name], env={**os.environ, "RPCREW_ALONE": "1"},
                                 capture_output=True, text=True, check=False)
            self.assertEqual(got.returncode, 0, got.stdout + got.stderr)
            self.alone = False
            return
        self.alone = True
        super().setUp()
        loopback(True)

    def test_a_host_that_goes_without_a_word_is_noticed(self):
        for scheme in ("tcp", "ws", "http") if self.alone else ():
            port = free_port()
            url = f"{scheme}://127.0.0.1:{port}/?keepalive_ms=2000"
            worker = self.worker("conformance", "--listen", url + ("" if scheme == "tcp" else "&idle_timeout_ms=3600000"))
            with subprocess.Popen([program("rpcrew"), "batch", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as caller:
                def call():
                    caller.stdin.write('{"method":"add","params":[1,2]}\n')
                    caller.stdin.flush()
                    return json.loads(caller.stdout.readline())
                self.assertEqual(call()["result"], 3)
                loopback(False)
                ended = call()["error"]  # long before its deadline
                self.assertRegex(ended["message"], "confirmed nothing for 2000 ms|has gone")
                eventually(lambda: connections_at(port) == 0, 30)  # the worker has noticed too
                loopback(True)
                eventually(lambda: call().get("result") == 3)
                loopback(False)  # with nothing under way
                eventually(lambda: connections_at(port) == 0, 30)
                loopback(True)
                eventually(lambda: call().get("result") == 3)
                caller.stdin.close()
            worker.stop()


class Enemies(Streams):
    def test_a_message_that_takes_too_long_ends(self):
        self.serve("?receive_timeout_ms=300")
        slow = [self.connect() for _ in range(3)]
        for connection, text in zip(slow, (b'{"jsonrpc"', b"Content-Length: 1000\r\n\r\n{", b"\x94\x00\x01\xda\x10\x00")):
            connection.sendall(text)
        end = time.monotonic() + PATIENCE
        while slow and time.monotonic() < end:  # each of them goes on, a byte at a time
            for connection in select.select(slow, [], [], 0.05)[0]:
                if not connection.recv(1000):
                    slow.remove(connection)
            for connection in slow:
                try:
                    connection.sendall(b" ")
                except OSError:
                    pass
        self.assertEqual(slow, [])
        self.still_serves()
        with self.connect() as connection:
            connection.sendall(b'{"jsonrpc":')
            self.assertIn(b"it took too long to come", connection.recv(1000))

    def test_what_is_no_message_is_told_why(self):
        self.serve()
        for text, why in ((b"Content-Length: -1\r\n\r\nabc", b"no number"),
                          (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nabc", b"two that differ"),
                          (b"Content-Length: 99999999999\r\n\r\n", b"too large"),
                          (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"neither JSON nor MessagePack"),
                          (b'{"jsonrpc":', b"cut short at offset 11")):
            got = self.exchange(text)
            self.assertIn(why, got, text)
            self.assertIn(b"-32700", got)
        self.still_serves()

    def test_who_does_not_read_loses_its_connection(self):
        worker = self.serve("?send_timeout_ms=300")
        deaf = self.connect()
        deaf.sendall(b"".join(request("blob", [100000], i) + b"\n" for i in range(50)))
        eventually(lambda: select.select([deaf], [], [], 0)[0])
        self.still_serves()
        # what the kernel has is all that comes
        poll = select.poll()
        poll.register(deaf, select.POLLHUP)
        eventually(lambda: poll.poll(0))
        self.still_serves()
        self.assertEqual(worker.stop(), 0)

    def test_a_thousand_idle_connections_cost_little(self):
        worker = self.serve()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.still_serves()
        before = resident_bytes(worker.process.pid)
        idle = [self.connect() for _ in range(1000)]
        idle[-1].sendall(request("add", [1, 2]) + b"\n")
        self.assertIn(b":3", idle[-1].recv(1000))
        if "asan" not in program("") and "tsan" not in program(""):
            self.assertLess((resident_bytes(worker.process.pid) - before) / 1000, 4096)
        used = cpu_of(worker.process.pid)
        poll = select.poll()
        for connection in idle:
            poll.register(connection, select.POLLIN)
        self.assertEqual(poll.poll(500), [])
        self.assertLess(cpu_of(worker.process.pid) - used, 0.1)
        self.assertEqual(worker.stop(), 0)

    def test_half_a_message_costs_no_time_until_its_rest_comes(self):
        worker = self.serve()
        for half, rest in ((request("add", [1, 2])[:20], request("add", [1, 2])[20:] + b"\n"),
                           (b"Content-Length: 5000\r\n\r\n" + request("add", [1, 2]), b" " * 5000),
                           (b"\x94\x00\x01\xa3add\x92\x01", b"\x02")):
            connection = self.connect()
            connection.sendall(half)
            eventually(lambda one=connection: unread_bytes(one) == 0)
            used = cpu_of(worker.process.pid)
            self.assertEqual(select.select([connection], [], [], 0.5)[0], [])
            self.assertLess(cpu_of(worker.process.pid) - used, 0.1)
            connection.sendall(rest)
            self.assertTrue(connection.recv(1000))
        self.assertEqual(worker.stop(), 0)

    def test_no_more_connections_than_are_allowed(self):
        worker = self.serve("?connections=2")
        first, second, third = self.connect(), self.connect(), self.connect()
        third.sendall(request("add", [1, 2]) + b"\n")
        for connection in first, second:
            connection.sendall(request("add", [1, 2]) + b"\n")
            self.assertIn(b":3", connection.recv(1000))
        eventually(lambda: worker.said("connections="))
        self.assertEqual(select.select([third], [], [], 0)[0], [])
        first.close()
        self.assertIn(b":3", third.recv(1000))

    def test_ten_thousand_connects(self):
        worker = self.serve()
        for i in range(10000):
            with self.connect() as connection:
                if i % 100 == 0:
                    connection.sendall(request("add", [1, 2]))
        self.still_serves()
        with open(f"/proc/{worker.process.pid}/status", encoding="utf-8"):
            eventually(lambda: len(os.listdir(f"/proc/{worker.process.pid}/fd")) < 30)

    def test_one_that_floods_does_not_stop_the_others(self):
        self.serve("?in_flight=4")
        flood = self.connect()
        flood.setblocking(False)
        text = request("sleep_ms", [1]) + b"\n"
        for _ in range(20):
            try:
                for _ in range(1000):
                    flood.send(text)
            except BlockingIOError:
                pass
            self.still_serves()

    def test_a_busy_worker_neither_spins_nor_blames_its_peers(self):
        worker = self.serve("?in_flight=1&receive_timeout_ms=300")
        busy, large, slow = self.connect(), self.connect(), self.connect()
        busy.sendall(request("sleep_ms", [1500]) + b"\n" + request("sleep_ms", [1]) + b"\n")
        eventually(lambda: cpu_of(worker.process.pid) >= 0 and not select.select([busy], [], [], 0.05)[0])
        broken = b'{"jsonrpc": "2.0", "method":\n'
        large.sendall(request("echo", ["x" * 100000], 1) + b"\n" + broken + request("add", [1, 2], 2) + b"\n")
        text = request("add", [1, 2], 3) + b"\n"
        slow.sendall(text[:10])
        eventually(lambda: unread_bytes(slow) == 0)  # the worker has begun to read the message
        slow.sendall(text[10:])
        used = cpu_of(worker.process.pid)
        self.assertIn(b":1500", busy.recv(1000))
        self.assertLess(cpu_of(worker.process.pid) - used, 0.5)
        self.assertIn(b'"result":3', slow.recv(1000))
        large.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in read_all(large).splitlines()]
        self.assertEqual([(one["id"], "error" in one) for one in sorted(answers, key=lambda one: str(one["id"]))],
                         [(1, False), (2, False), (None, True)])
        slow.sendall(text)
        self.assertIn(b'"result":3', slow.recv(1000))

    def test_a_drain_answers_what_has_come(self):
        worker = self.serve()
        connection = self.connect()
        connection.sendall(request("sleep_ms", [500], 1) + b"\n")
        eventually(lambda: worker.said("serving"))
        self.still_serves()  # so the first one has begun
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.said("draining"))
        connection.sendall(request("add", [1, 2], 2) + b"\n")
        got = [json.loads(line) for line in read_all(connection).splitlines()]
        self.assertEqual([reply.get("result") for reply in got if reply["id"] == 1], [500])
        refused = [reply["error"]["code"] for reply in got if reply["id"] == 2]
        self.assertIn(refused, [[-32040], []])
        self.assertEqual(worker.process.wait(PATIENCE), 0)


class Neovim(Streams):
    def test_we_call_neovim(self):
        url = "exec://nvim?arg=--embed&arg=--headless&arg=-u&arg=NONE"
        self.assertEqual(rpcrew("call", "-p", "msgpack", url, "nvim_eval", '"6 * 7"').out, "42\n")
        failed = rpcrew("call", "-p", "msgpack", url, "nvim_eval", '"no such thing"')
        self.assertEqual(failed.code, 1)
        self.assertIn("E121", failed.err)

    def test_neovim_calls_us(self):
        self.serve("?error=nvim")
        script = f"""
let channel = sockconnect('pipe', '{self.path}', {{'rpc': v:true}})
call writefile([string(rpcrequest(channel, 'add', 1, 2))], '{self.directory}/result')
call rpcnotify(channel, 'update')
try
  call rpcrequest(channel, 'fail', 7, 'too bad')
catch
  call writefile([v:exception], '{self.directory}/error')
endtry
call rpcrequest(channel, 'sleep_ms', 1)
call writefile([string(rpcrequest(channel, 'ask_caller', 'nvim_eval', ['6 * 7']))], '{self.directory}/asked')
qall!
"""
        with open(self.socket_path("script.vim"), "w", encoding="utf-8") as file:
            file.write(script)
        subprocess.run(["nvim", "--headless", "-u", "NONE", "-S", file.name], timeout=PATIENCE, check=True,
                       capture_output=True)
        with open(f"{self.directory}/result", encoding="utf-8") as file:
            self.assertIn(file.read().strip(), ("3", "3.0"))
        with open(f"{self.directory}/error", encoding="utf-8") as file:
            self.assertIn("too bad", file.read())
        with open(f"{self.directory}/asked", encoding="utf-8") as file:
            self.assertEqual(file.read().strip(), "42")  # it was called back
        self.assertEqual(rpcrew("call", f"unix://{self.path}", "count").out, "1\n")

    def test_a_caller_that_leaves_amid_a_call_back_holds_nothing(self):
        worker = self.serve()
        for half in False, True:
            connection = self.connect()
            for i in range(64):
                connection.sendall(request("ask_caller", ["m", [1]], i) + b"\n")
            self.assertIn(b'"method":"m"', connection.recv(4096))
            if half:
                connection.shutdown(socket.SHUT_WR)
                self.assertIn(b"the caller", read_all(connection))  # each is answered that it cannot be
            else:
                connection.close()
            self.still_serves()
        before = time.monotonic()
        self.assertEqual(worker.stop(), 0)
        self.assertLess(time.monotonic() - before, 5)

    def test_an_answer_that_comes_late_ends_nobody_s_call(self):
        self.serve()
        connection = self.connect()
        lines = connection.makefile("rb")
        connection.sendall(request("ask_caller", ["m", [1]], 7) + b"\n")
        call = json.loads(lines.readline())
        answer = json.dumps({"jsonrpc": "2.0", "result": 5, "id": call["id"]}).encode() + b"\n"
        connection.sendall(answer + answer)
        self.assertEqual(json.loads(lines.readline()), {"jsonrpc": "2.0", "result": 5, "id": 7})
        connection.sendall(answer + request("add", [1, 2], call["id"]) + b"\n")
        self.assertEqual(json.loads(lines.readline()), {"jsonrpc": "2.0", "result": 3, "id": call["id"]})

    def test_pynvim_calls_us(self):
        self.serve("?error=string")
        code = ("import sys; from pynvim import msgpack_rpc as m; s = m.socket_session(sys.argv[1]);"
                "print([s.request('add', i, 1) for i in range(100)] == list(range(1, 101)))")
        done = subprocess.run(["/usr/bin/python3", "-W", "ignore", "-c", code, self.path], timeout=PATIENCE,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout, "True\n", done.stderr)

    def test_pynvim_is_called_back(self):
        self.serve("?error=string")
        code = ("import sys; from pynvim import msgpack_rpc as m; s = m.socket_session(sys.argv[1]);"
                "got = [];"
                "def_ = lambda: (got.append(s.request('ask_caller', 'double', [21])), s.stop());"
                "s.run(lambda name, args: 2 * args[0], lambda *_: None, def_); print(got)")
        done = subprocess.run(["/usr/bin/python3", "-W", "ignore", "-c", code, self.path], timeout=PATIENCE,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout, "[42]\n", done.stderr)


if __name__ == "__main__":
    main()
