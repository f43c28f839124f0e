"""The worker program and the command line, as people use them."""
import base64
import hashlib
import http.client
import http.server
import json
import os
import re
import resource
import select
import signal
import subprocess
import threading
import zlib

import msgpack
import zmq

from support import PATIENCE, Case, eventually, free_port, main, program, request, rpcrew


def read_all(terminal):
    """What has been written to a terminal, which gives it out in pieces."""
    text = b""
    while select.select([terminal], [], [], 0.5)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # its other end has gone
            break
        text += piece
    return text.decode()


class CommandLine(Case):
    def setUp(self):
        super().setUp()
        self.url = "zmq+ipc://" + self.socket_path()
        self.conformance = self.worker("conformance", "--listen", self.url)

    def call(self, *words, **more):
        return rpcrew("call", self.url, *words, **more)

    def test_params_are_positional_or_named(self):
        self.assertEqual(self.call("subtract", "42", "23").out, "19\n")
        self.assertEqual(self.call("subtract", "subtrahend=23", "minuend=42").out, "19\n")
        for words, why in [(("a=1", "a=2"), "given twice"), (("-", "-"), "read once"), (("@/tmp",), "directory")]:
            got = self.call("echo", *words, stdin="")
            self.assertEqual(got.code, 2)
            self.assertIn(why, got.err)
        mixed = self.call("subtract", "42", "subtrahend=23")
        self.assertEqual((mixed.code, mixed.out), (2, ""))
        self.assertIn("name=value", mixed.err)

    def test_options_may_stand_anywhere(self):
        self.assertEqual(rpcrew("call", self.url, "add", "-5", "2", "-t", "9", "--compact").out, "-3\n")
        self.assertEqual(rpcrew("call", "-t", "9", self.url, "echo", "--", "-x", "-.5").out, '["-x","-.5"]\n')
        for command in "call", "notify":
            for words in ((self.url, "-t", "1"), ("-t", "1", self.url), (self.url, "--", "-m"), (self.url, "-x", "m")):
                got = rpcrew(command, *words)
                self.assertEqual((got.code, got.out), (2, ""), words)
                self.assertIn("METHOD" if "-x" not in words else "'-x' is not an option", got.err)
        before = int(self.call("count").out)
        self.assertEqual(rpcrew("notify", self.url, "-t", "9", "update").code, 0)
        eventually(lambda: int(self.call("count").out) == before + 1)

    def test_a_password_is_never_shown(self):
        for name, words in [("rpcrew", ("URL", "call", "x")), ("rpcrew", ("ping", "URL")), ("rpcrew", ("call", "URL", "m")),
                            ("rpcrew", ("call", "--url=URL", "m")), ("rpcrew", ("call", "-t", "URL")),
                            ("calc", ("URL",)), ("calc", ("--lisen=URL",)), ("calc", ("--threads", "URL")),
                            ("calc", ("--listen", "URL"))]:
            for url in ("gopher://me:S3CR3T@host/?queue=q", "amqp://me:S3C?R3T@host:x/", "amqp:/me:S3CR3T@host",
                        "amqp://host?queue=q&password=S3CR3T"):
                got = subprocess.run([program(name), *(word.replace("URL", url) for word in words)], timeout=60,
                                     capture_output=True, text=True, check=False)
                self.assertNotEqual(got.returncode, 0)
                self.assertNotRegex(got.stdout + got.stderr, "S3C|R3T", (words, url))

    def test_no_secret_is_in_the_list_of_processes(self):
        port = free_port()
        worker = self.worker("calc", "--listen", f"http://127.0.0.1:{port}/?reports=no")
        secret = f"http://me:S3CR3T@127.0.0.1:{port}/?query=S3CR3T"
        with subprocess.Popen([program("rpcrew"), "batch", "-H", "authorization: S3CR3T", "--header=x: S3CR3T", "-Hy: S3CR3T",
                               "-iH", "z: S3CR3T", "-iHa: S3CR3T", "--head", "b: S3CR3T", "--heade=c: S3CR3T", secret],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
            caller.stdin.write('{"method":"subtract","params":[5,2]}\n')
            caller.stdin.flush()
            self.assertEqual(json.loads(caller.stdout.readline())["result"], 3)
            with open(f"/proc/{caller.pid}/cmdline", encoding="utf-8") as file:
                words = file.read()
            self.assertNotIn("S3CR3T", words)
            self.assertIn(f"http://me:***@127.0.0.1:{port}/", words)
            caller.stdin.close()
        worker.stop()
        away = self.worker("calc", "--wait", "--listen", f"amqp://me:S3CR3T@127.0.0.1:{free_port()}/?queue=q", wait=False)
        eventually(lambda: "cannot open" in away.text())
        with open(f"/proc/{away.process.pid}/cmdline", encoding="utf-8") as file:
            self.assertIn("--listen\0amqp://me:***@127.0.0.1", file.read())

    def test_nothing_of_a_peer_controls_the_terminal(self):
        bad = "\x1b[2J\x7f\x9bm\r\n."
        got = self.call("fail", "7", json.dumps(bad), json.dumps([bad]))
        self.assertNotRegex(got.err.replace("\n", ""), "[\x00-\x1f\x7f-\x9f]")
        self.assertIn("\\u001b[2J\\u007f\\u009bm\\u000d\\u000a.", got.err)
        self.assertEqual(json.loads(self.call("echo", json.dumps(bad)).out), bad)
        self.assertNotRegex(self.call("echo", json.dumps(bad)).out[:-1], "[\x00-\x1f\x7f-\x9f]")

    def test_words_are_json_or_else_strings(self):
        for word, expected in [("5", 5), ("-5", -5), ("true", True), ("null", None), ("[1, 2]", [1, 2]),
                               ('"5"', "5"), ("hello", "hello"), ("", ""), ("a b", "a b"), ('"a=b"', "a=b"),
                               ("1.5e3", 1500), ("05", "05")]:
            got = self.call("echo", word)
            self.assertEqual(json.loads(got.out), expected, word)
        self.assertEqual(json.loads(self.call("echo", "a=1", "b=x").out), {"a": 1, "b": "x"})

    def test_files_and_standard_input_are_values(self):
        path = os.path.join(self.directory, "text")
        with open(path, "wb") as file:
            file.write(b"two\nlines\n")
        self.assertEqual(json.loads(self.call("echo", "@" + path).out), "two\nlines\n")
        self.assertEqual(json.loads(self.call("echo", "-", stdin="from stdin").out), "from stdin")
        with open(path, "wb") as file:
            file.write(b"\xff\x00")
        self.assertEqual(json.loads(self.call("echo", "@" + path).out), "/wA=")
        missing = self.call("echo", "@/nowhere")
        self.assertEqual(missing.code, 2)
        self.assertIn("No such file", missing.err)

    def test_output_is_plain_when_piped(self):
        self.assertEqual(self.call("get_data").out, '["hello",5]\n')
        self.assertEqual(rpcrew("call", "--pretty", self.url, "get_data").out, '[\n  "hello",\n  5\n]\n')
        self.assertEqual(rpcrew("call", "--raw", self.url, "echo", "x y").out, "x y\n")
        self.assertEqual(rpcrew("--raw", "call", self.url, "echo", "x y").out, "x y\n")

    def test_the_exit_status_tells_the_outcome(self):
        failed = self.call("fail", "7", "seven", '{"a": 1}')
        self.assertEqual((failed.code, failed.out), (1, ""))
        self.assertIn("seven (code 7)", failed.err)
        self.assertIn('{"a":1}', failed.err)
        self.assertEqual(self.call("nobody").code, 1)
        late = rpcrew("call", "--timeout", "2", self.url, "sleep_ms", "4000")
        self.assertEqual(late.code, 4)
        self.assertIn("no answer by the deadline", late.err)
        nobody = rpcrew("call", "-t", "0.1", "zmq+ipc://" + self.socket_path("nobody"), "m")
        self.assertEqual(nobody.code, 3)

    def test_mistakes_are_explained(self):
        for words, expected in [((), "usage"), (("call",), "wants a URL"), (("call", self.url), "wants a METHOD"),
                                (("fly",), "no command 'fly'"), (("call", "x", "m"), "scheme://"),
                                (("call", "pigeon://x", "m"), "zmq+tcp"), (("call", "-t", "x", self.url), "seconds"),
                                (("call", self.url + "?mod=bind", "m"), "mode, settle"),
                                (("call", "-p", "soap", self.url, "m"), "jsonrpc"), (("ping", self.url, "x"), "'x'"),
                                (("call", "--nonsense", self.url), "--help")]:
            got = rpcrew(*words)
            self.assertEqual((got.code, got.out), (2, ""), words)
            self.assertIn(expected, got.err, words)

    def test_output_that_cannot_be_written_is_an_error(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            for words in ("call", self.url, "get_data"), ("describe", self.url), ("ping", self.url):
                got = subprocess.run([program("rpcrew"), *words], stdout=full, stderr=subprocess.PIPE, text=True,
                                     timeout=60, check=False)
                self.assertEqual(got.returncode, 8, words)
                self.assertIn("No space left", got.stderr)

    def test_a_request_beyond_the_caller_s_limit_is_not_sent(self):
        got = rpcrew("call", self.url + "?max_bytes=100", "echo", "x" * 200)
        self.assertEqual(got.code, 2)
        self.assertIn("the request has 254 bytes, more than max_bytes allows", got.err)

    def test_batch_answers_each_line_in_order(self):
        lines = "".join(json.dumps({"method": "sleep_ms", "params": [20 - i], "id": i}) + "\n\n" for i in range(20))
        got = rpcrew("batch", self.url, "-c", "8", stdin=lines)
        self.assertEqual(got.code, 0, got.err)
        self.assertEqual([json.loads(line) for line in got.out.splitlines()],
                         [{"id": i, "result": 20 - i} for i in range(20)])
        self.assertEqual(got.err, "")  # no progress where there is no terminal

    def test_batch_shows_errors_and_goes_on(self):
        path = self.socket_path("lines")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"method":"fail","params":[7,"no",{"a":1}]}\n{"method":"add","params":{"a":1,"b":2},"id":"x"}')
        got = rpcrew("batch", self.url, path, "--summary", path + ".json")
        self.assertEqual(got.code, 1)
        first, second = map(json.loads, got.out.splitlines())
        self.assertEqual((first["error"]["code"], first["error"]["data"]), (7, {"a": 1}))
        self.assertEqual(first["error"]["status"], "CREW_REMOTE_ERROR")
        self.assertEqual((first["error"]["message"], first["error"]["endpoint"]), ("no", self.url))
        self.assertGreaterEqual(first["error"]["elapsed_ms"], 0)
        self.assertEqual(second, {"id": "x", "result": 3})
        with open(path + ".json", encoding="utf-8") as file:
            figures = json.load(file)
        self.assertEqual((figures["calls"], figures["errors"], figures["retried"]), (1, 1, 0))
        self.assertEqual(figures["error_kinds"], [{"status": "CREW_REMOTE_ERROR", "code": 7, "count": 1}])

    def test_batch_names_the_line_that_is_wrong(self):
        good = '{"method":"get_data"}\n'
        for bad, why in [("nonsense", ":2: "), ("[]", ':2: wants {"method"'), ('{"method":1}', ":2: wants"),
                         ('{"method":"m","params":1}', ":2: wants")]:
            got = rpcrew("batch", self.url, stdin=good + bad + "\n" + good)
            self.assertEqual((got.code, got.out), (2, '{"result":["hello",5]}\n'))
            self.assertIn(why, got.err)
        self.assertEqual(rpcrew("batch", self.url, "/nowhere").code, 2)
        self.assertEqual(rpcrew("batch", self.url, stdin="").code, 0)

    def test_batch_shows_progress_on_a_terminal(self):
        main_end, terminal = os.openpty()
        path = self.socket_path("lines")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"method":"sleep_ms","params":[60]}\n' * 10)
        subprocess.run([program("rpcrew"), "batch", self.url, path, "-c", "2"], stdout=subprocess.DEVNULL,
                       stderr=terminal, timeout=30, check=True)
        shown = read_all(main_end)
        self.assertRegex(shown, r"[#.]{40} \d+ calls")
        self.assertEqual(shown.count("\r\033[K"), 1)  # once, at the end: nothing else is on that terminal
        self.assertTrue(shown.endswith("\r\033[K"))
        subprocess.run([program("rpcrew"), "batch", self.url, path, "-c", "2"], stdout=terminal, stderr=terminal,
                       timeout=30, check=True, env={**os.environ, "NO_COLOR": "1"})
        os.close(terminal)
        shown = read_all(main_end)
        os.close(main_end)
        self.assertRegex(shown, r'"result":60\}\r\n\r[#.]{40} \d+ calls[^\n]*\r\033\[K\{"result":60\}\r\n')

    def test_colours_where_a_terminal_is(self):
        def shown(*words, status=0, **env):
            main_end, terminal = os.openpty()
            environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            got = subprocess.run([program("rpcrew"), *words], stdout=terminal, stderr=terminal, timeout=30, check=False,
                                 env={**environment, "TERM": "xterm", **env})
            self.assertEqual(got.returncode, status)
            os.close(terminal)
            text = read_all(main_end)
            os.close(main_end)
            return text.replace("\r\n", "\n")

        echo = ["call", "--compact", self.url, "echo", r'{"a\":": [1, "x:y", null], "b": "\u001b"}']
        key, text, other, plain = "\033[1;34m", "\033[32m", "\033[33m", "\033[0m"
        self.assertEqual(shown(*echo), f'{{{key}"a\\":"{plain}:[{other}1{plain},{text}"x:y"{plain},{other}null{plain}],'
                                       f'{key}"b"{plain}:{text}"\\u001b"{plain}}}\n')
        bare = '{"a\\":":[1,"x:y",null],"b":"\\u001b"}\n'
        self.assertEqual(shown(*echo, NO_COLOR="1"), bare)
        self.assertEqual(shown(*echo, TERM="dumb"), bare)
        self.assertEqual(rpcrew(*echo).out, bare)
        self.assertTrue(shown("call", self.url, "nope", status=1).startswith("\033[1;31mrpcrew:\033[0m nope at "))
        self.assertTrue(shown("call", self.url, "nope", status=1, NO_COLOR="1").startswith("rpcrew: nope at "))

    def test_batch_answers_while_it_waits_for_lines(self):
        with subprocess.Popen([program("rpcrew"), "batch", self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as batch:
            for number in range(3):
                batch.stdin.write(json.dumps({"method": "add", "params": [number, 1]}) + "\n")
                batch.stdin.flush()
                self.assertEqual(batch.stdout.readline(), f'{{"result":{number + 1}}}\n')
            batch.stdin.close()

    def test_a_call_where_nobody_listens_any_more_ends_at_once(self):
        for pattern in "tcp://127.0.0.1:{}", "http://127.0.0.1:{}/", "ws://127.0.0.1:{}/", "unix://" + self.socket_path("away"):
            with self.subTest(pattern):
                self.nobody_listens_any_more(pattern.format(free_port()))
        for scheme in "tcp", "http":  # one of two has never been there
            with self.subTest(scheme, hosts=2):
                dead, port = free_port(), free_port()
                self.nobody_listens_any_more(f"{scheme}://127.0.0.1:{port}", f"{scheme}://127.0.0.1:{dead},127.0.0.1:{port}")

    def test_retry_waits_and_ends_as_the_others_do(self):
        url = f"tcp://127.0.0.1:{free_port()}"
        worker = self.worker("calc", "--listen", url)
        with subprocess.Popen([program("rpcrew"), "batch", "--retry", "-t", "1.5", url], stdin=subprocess.PIPE, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as batch:
            def ask():
                batch.stdin.write('{"method":"subtract","params":[5,2]}\n')
                batch.stdin.flush()
                return json.loads(batch.stdout.readline()).get("error", {}).get("status")

            self.assertEqual(ask(), None)
            self.assertEqual(worker.stop(), 0)
            status = ask()
            while status == "CREW_DISCONNECTED":  # the loss itself may be the first to be told
                status = ask()
            self.assertEqual(status, "CREW_NO_SERVICE")
            batch.stdin.close()

    def nobody_listens_any_more(self, url, called=None):
        worker = self.worker("calc", "--listen", url)
        with subprocess.Popen([program("rpcrew"), "batch", "-t", "20", called or url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as batch:
            def ask():
                batch.stdin.write('{"method":"subtract","params":[5,2]}\n')
                batch.stdin.flush()
                return json.loads(batch.stdout.readline())

            self.assertEqual(ask(), {"result": 3})
            self.assertEqual(worker.stop(), 0)
            error = ask()["error"]
            while error["status"] == "CREW_DISCONNECTED":  # the loss itself may be the first to be told
                error = ask()["error"]
            self.assertEqual((error["status"], error["executed"]), ("CREW_NO_SERVICE", "no"), error)
            self.assertRegex(error["message"], "Connection refused|No such file")
            self.assertLess(error["elapsed_ms"], 10000)
            worker = self.worker("calc", "--listen", url)
            eventually(lambda: ask() == {"result": 3})
            batch.stdin.close()
        self.assertEqual(worker.stop(), 0)

    def test_batch_ends_with_its_reader(self):
        lines = '{"method":"get_data","params":null}\n' * 20000
        got = subprocess.run(f"{program('rpcrew')} batch {self.url} | head -n 1; echo ${{PIPESTATUS[0]}}", shell=True,
                             executable="/bin/bash", input=lines, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((got.stdout, got.stderr), ('{"result":["hello",5]}\n141\n', ""))  # by SIGPIPE, as others do

    def test_batch_keeps_to_the_client_s_limit(self):
        got = rpcrew("batch", self.url + "?in_flight=3", stdin='{"method":"get_data"}\n' * 500)
        self.assertEqual((got.code, got.out.count("hello")), (0, 500), got.err)

    def test_each_command_has_a_page(self):
        whole = rpcrew("--help")
        self.assertEqual((whole.code, whole.out), (0, rpcrew("help").out))
        for command in "call", "notify", "batch", "bench", "describe", "ping", "probe":
            page = rpcrew("help", command)
            self.assertEqual((page.code, page.err), (0, ""))
            self.assertEqual(page.out, rpcrew(command, "--help").out)
            self.assertTrue(page.out.startswith(f"usage: rpcrew {command} [options] URL"))
            self.assertLess(max(map(len, page.out.splitlines())), 121)
            self.assertEqual("--duration" in page.out, command == "bench")
        self.assertIn("no command 'nope'; there are call, notify, batch, bench, describe, ping, probe, help", rpcrew("nope").err)
        self.assertEqual(rpcrew("help", "nope").code, 2)
        self.assertIn("rpcrew call --help shows how", rpcrew("call", "--nonsense", self.url).err)
        self.assertIn("rpcrew ping --help shows how", rpcrew("ping").err)
        for words, option in (("ping", "-d", "3"), "duration"), (("call", "-c", "3"), "concurrency"), (("notify", "-r"), "raw"):
            got = rpcrew(*words, self.url, "add", "1", "2")
            self.assertEqual(got.code, 2)
            self.assertIn(f"--{option} is not for {words[0]}\nrpcrew {words[0]} --help shows what is\n", got.err)

    def test_more_kinds_of_errors_than_are_told_apart(self):
        lines = "".join(json.dumps({"method": "fail", "params": [code, "no"]}) + "\n" for code in range(1, 21))
        path = self.socket_path("figures")
        rpcrew("batch", self.url, "-s", path, stdin=lines)
        with open(path, encoding="utf-8") as file:
            kinds = json.load(file)["error_kinds"]
        self.assertEqual(len(kinds), 16)
        self.assertEqual([kind["count"] for kind in kinds], [1] * 15 + [5])
        self.assertEqual(kinds[15]["status"], "others")

    def test_a_word_that_is_no_string_is_told_how_to_be_one(self):
        self.assertIn("""rpcrew: a string is written '"TEXT"'\n""", rpcrew("call", self.url, "fail", "1", "5").err)
        self.assertIn("""written 'message="true"'\n""", rpcrew("call", self.url, "fail", "code=1", "message=true").err)
        self.assertEqual(rpcrew("call", self.url, "fail", "1", '"5"').code, 1)
        self.assertNotIn("is written", rpcrew("call", self.url, "fail", "x", "5").err)

    def test_probe(self):
        self.assertEqual((rpcrew("probe", self.url).code, rpcrew("probe", self.url).out), (0, "serving\n"))
        self.assertEqual(rpcrew("probe", "unix://" + self.socket_path("none")).code, 3)
        url = "zmq+ipc://" + self.socket_path("draining")
        worker = self.worker("conformance", "--listen", url, "--threads", "1")
        with zmq.Context() as context, context.socket(zmq.DEALER) as caller:
            caller.setsockopt(zmq.LINGER, 0)
            caller.setsockopt(zmq.RCVTIMEO, PATIENCE * 1000)
            caller.connect(url[4:])
            for call in request("sleep_ms", [3000], 1), request("rpc.ping", [], 2):
                caller.send_multipart([b"", call])
            self.assertIn(b'"id":2', caller.recv_multipart()[1])  # it is busy with the first by now
            worker.process.send_signal(signal.SIGTERM)
            eventually(lambda: worker.said("draining"))
            got = rpcrew("probe", "-t", "5", url)
            self.assertEqual((got.code, got.out), (1, "draining\n"))
            self.assertIn(b'"id":1', caller.recv_multipart()[1])
        self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_bench_prints_its_figures(self):
        got = rpcrew("bench", self.url, "add", "1", "2", "--duration", "0.2", "--concurrency", "4", "--json")
        figures = json.loads(got.out)
        self.assertEqual(set(figures), {"calls", "errors", "unfinished", "calls_per_s", "p50_us", "p90_us", "p99_us", "max_us", "error_kinds"})
        self.assertGreater(figures["calls"], 0)
        self.assertEqual(figures["errors"], 0)
        self.assertLessEqual(figures["p50_us"], figures["p99_us"])
        self.assertLessEqual(figures["p99_us"], figures["max_us"])
        shown = rpcrew("bench", "-d", "0.1", "-c", "3", self.url, "add", "1", "2").out
        self.assertRegex(shown, r"(?m)^\d+ calls in 0\.\d\d s, 3 at a time: \d+ calls/s$")
        self.assertRegex(shown, r"(?m)^latency: p50 [\d.]+ [um]?s, p90 [\d.]+ [um]?s, p99 [\d.]+ [um]?s, max [\d.]+ [um]?s$")
        self.assertRegex(shown, r"(?m)^  up to +[\d.]+ [um]?s +[\d.]+ %  #{40}$")

    def test_bench_counts_errors_by_kind_and_not_as_calls(self):
        worker = self.worker("conformance", "--listen", self.url + "-few", "--threads", "1")
        got = rpcrew("bench", self.url + "-few", "sleep_ms", "300", "-d", "1", "-c", "4", "-t", "0.7")
        self.assertEqual(got.code, 4, got.out)
        self.assertRegex(got.out, r"(?m)^\d+ errors, which are no calls above:$")
        self.assertRegex(got.out, r"(?m)^  \d+  CREW_TIMEOUT: no answer by the deadline$")
        calls = int(got.out.split()[0])
        self.assertLess(calls, 8)  # one after the other, for some two seconds
        self.assertEqual(worker.stop(), 0)

    def test_bench_ends_when_its_time_is_over(self):
        worker = self.worker("conformance", "--listen", self.url + "-gone", "--access-log")
        with subprocess.Popen([program("rpcrew"), "bench", self.url + "-gone", "add", "1", "2", "-d", "1.5", "-c", "4", "-j"],
                              stdout=subprocess.PIPE, text=True) as bench:
            eventually(lambda: worker.text().count("method=add") > 10)
            worker.stop(signal.SIGKILL)
            figures = json.loads(bench.communicate(timeout=PATIENCE)[0])
        self.assertNotEqual(bench.returncode, 0)
        self.assertAlmostEqual(figures["calls"] / figures["calls_per_s"], 1.5, delta=0.2)  # the rate is that of the time asked for

    def test_what_the_end_cuts_off_is_no_error(self):
        got = rpcrew("bench", self.url, "sleep_ms", "2500", "-d", "2.6", "-c", "2", "-j")
        figures = json.loads(got.out)
        self.assertEqual((got.code, figures["calls"], figures["errors"], figures["unfinished"]), (0, 2, 0, 2), got.err)
        got = rpcrew("bench", self.url, "sleep_ms", "4000", "-d", "2", "-c", "2", "-j")
        self.assertEqual((got.code, json.loads(got.out)["calls"]), (4, 0))
        self.assertIn("it does not answer any more", got.err)
        got = rpcrew("bench", self.url + "?timeout_ms=150", "sleep_ms", "100", "-d", "1", "-c", "9", "-j")  # the URL's time is in force
        self.assertNotEqual(got.code, 0, got.out)

    def test_bench_counts_errors_and_says_the_first(self):
        got = rpcrew("bench", self.url, "sleep_ms", "4000", "-d", "0.1", "-c", "3", "-t", "1.5")
        self.assertEqual((got.code, got.out), (4, ""))  # nobody answers in time: not worth a start
        self.assertEqual(rpcrew("bench", self.url, "nope", "-d", "0.1").code, 1)
        for flags in ("-c", "0"), ("-c", "-1"), ("-d", "0"), ("-d", "x"):
            self.assertEqual(rpcrew("bench", self.url, "add", "1", "2", *flags).code, 2)

    def test_files_as_bytes(self):
        path = self.socket_path("text")
        with open(path, "wb") as file:
            file.write(b"abc")
        self.assertEqual(rpcrew("call", "-b", self.url, "echo", "@" + path).out, '"YWJj"\n')
        self.assertEqual(rpcrew("call", self.url, "echo", "@" + path).out, '"abc"\n')

    def test_a_result_that_is_declared_as_bytes(self):
        path = self.socket_path("png")
        with open(path, "wb") as file:
            file.write(b"\xff\0GNP\x89")
        for flags in [], ["-p", "jsonrpc1"], ["-p", "msgpack"]:
            def call(*words):
                return subprocess.run([program("rpcrew"), "call", *flags, self.url, *words],  # pylint: disable=cell-var-from-loop
                                      capture_output=True, timeout=30, check=False)

            self.assertEqual(call("-b", "reverse", "@" + path).stdout, b"\x89PNG\0\xff")
            self.assertEqual(call("-b", "echo", '"YWJj"').stdout, b'"YWJj"\n')  # a text, whatever it looks like
            self.assertEqual(call("-b", "add", "1", "2").stdout, b"3\n")
        self.assertEqual(rpcrew("call", self.url, "reverse", '"YWJj"').out, '"Y2Jh"\n')

    def test_bytes_are_asked_for_before_anything_is_done(self):
        called = []

        class Service(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                called.append(body["method"])
                answer = {"jsonrpc": "2.0", "id": body["id"]}
                if body["method"] == "rpc.discover" and described is None:
                    return  # the connection ends
                answer |= described if body["method"] == "rpc.discover" else {"result": result}
                text = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        as_bytes = {"result": {"methods": [{"name": "photo", "result": {"schema": {"type": "string", "contentEncoding": "base64"}}}]}}
        for described, result, code, out, calls in (
                (as_bytes, "YWJj", 0, "abc", ["rpc.discover", "photo"]),
                ({"error": {"code": -32601, "message": "no"}}, "YWJj", 0, '"YWJj"\n', ["rpc.discover", "photo"]),
                ({"error": {"code": -32040, "message": "busy"}}, "YWJj", 5, "", ["rpc.discover"]),
                (None, "YWJj", 6, "", ["rpc.discover"]),
                (as_bytes, "YWJ", 7, "", ["rpc.discover", "photo"]), (as_bytes, 5, 7, "", ["rpc.discover", "photo"]),
                (as_bytes, None, 7, "", ["rpc.discover", "photo"])):
            called.clear()
            got = rpcrew("call", "-b", url, "photo")
            self.assertEqual((got.code, got.out, called), (code, out, calls), got.err)
        self.assertIn("the result was declared as bytes, and is null", got.err)

    def test_bytes_with_msgpack(self):
        path = self.socket_path("bytes")
        with open(path, "wb") as file:
            file.write(b"abc\0\xff")

        def call(*words, **more):
            return subprocess.run([program("rpcrew"), "call", "-p", "msgpack", *words], capture_output=True,
                                  timeout=30, check=True, **more)

        self.assertEqual(call(self.url, "echo", "@" + path).stdout, b'"61626300ff"\n')
        self.assertEqual(call(self.url, "echo", "-", input=b"text").stdout, b'"74657874"\n')
        self.assertEqual(call("-r", self.url, "echo", "@" + path).stdout, b"abc\0\xff")
        self.assertEqual(call(self.url, "echo", "x=@" + path, "y=1").stdout, b'{"x":"61626300ff","y":1}\n')
        self.assertIn(rb"> \x94\x00\x01\xa4echo\x91\xc4\x05abc\x00\xff" + b"\n",
                      call("-v", self.url, "echo", "@" + path).stderr)
        shown = call("-v", self.url, "echo", '"\\u001b[31mred"').stderr
        self.assertIn(rb"< \x94\x01\x01\xc0\xa8\x1b[31mred" + b"\n", shown)
        self.assertNotIn(b"\x1b", shown)
        self.assertEqual(call("--text", self.url, "echo", "-", input=b"text").stdout, b'"text"\n')
        lines = rpcrew("batch", "-p", "msgpack", self.url, stdin='{"method": "echo", "params": ["a"]}\n').out
        self.assertEqual(lines, '{"result":"a"}\n')

    def test_what_json_cannot_say_is_shown_in_words(self):
        url = "zmq+ipc://" + self.socket_path("odd")
        router = zmq.Context.instance().socket(zmq.ROUTER)
        self.addCleanup(router.close, 0)
        router.rcvtimeo = PATIENCE * 1000
        router.bind(url[len("zmq+"):])
        odd = {1: b"\x01", b"k": float("nan"), False: [float("-inf"), msgpack.ExtType(5, b"\xab")], None: {}}
        odd.update((i, 0) for i in range(2, 30000))  # many members take no time
        caller = subprocess.Popen([program("rpcrew"), "call", "-p", "msgpack", url, "odd"], stdout=subprocess.PIPE,
                                  text=True)
        *route, body = router.recv_multipart()
        router.send_multipart([*route, msgpack.packb([1, msgpack.unpackb(body)[1], None, odd])])
        shown = json.loads(caller.communicate(timeout=30)[0])
        self.assertEqual({shown.pop(str(i)) for i in range(2, 30000)}, {0})
        self.assertEqual(shown, {"1": "01", "6b": "NaN", "false": ["-Infinity", {"ext": 5, "data": "ab"}],
                                 "null": {}})

    def test_digests(self):
        url = "zmq+ipc://" + self.socket_path("digest")
        self.worker("digest", "--listen", url)
        data = bytes(range(256)) * 100
        for name in "sha256", "sha512", "sha1", "md5", "sha3-256", "blake2b_512":
            expected = hashlib.new(name.replace("blake2b_512", "blake2b").replace("-", "_"), data).hexdigest()
            got = json.loads(rpcrew("call", url, "digest", name, base64.b64encode(data).decode()).out)
            self.assertEqual((got["digest"], got["bytes"]), (expected, len(data)), name)
        got = json.loads(rpcrew("call", url, "digest", "crc32", base64.b64encode(data).decode()).out)
        self.assertEqual(int(got["digest"], 16), zlib.crc32(data))
        self.assertIn("SHA256", rpcrew("call", url, "algorithms").out)
        self.assertIn("'algorithm'", rpcrew("call", url, "digest", "rot13", "YWJj").err)
        self.assertIn("'data'", rpcrew("call", url, "digest", "md5", "!").err)

    def test_verbose_shows_the_wire(self):
        got = rpcrew("call", "-v", self.url, "add", "1", "2")
        self.assertIn('> {"jsonrpc":"2.0","method":"add","params":[1,2],"id":1}\n', got.err)
        self.assertIn('< {"jsonrpc":"2.0","result":3,"id":1}\n', got.err)

    def test_notifications_are_counted_and_print_nothing(self):
        for _ in range(3):
            sent = rpcrew("notify", self.url, "update", "1")
            self.assertEqual((sent.code, sent.out, sent.err), (0, "", ""))
        eventually(lambda: self.call("count").out == "3\n")

    def test_version_1_works_too(self):
        self.assertEqual(rpcrew("call", "-p", "jsonrpc1", self.url, "add", "1", "2").out, "3\n")

    def test_describe_and_ping(self):
        described = rpcrew("describe", self.url).out
        self.assertIn("conformance 1.0.0\n", described)
        self.assertIn("subtract(minuend: number, subtrahend: number) -> number\n    Returns minuend", described)
        self.assertIn("sum(numbers: number...) -> number", described)
        self.assertIn("fail(code: int, message: string, data: any?) -> null", described)
        self.assertIn("echo(any...) -> any", described)
        document = json.loads(rpcrew("describe", "--json", self.url).out)
        self.assertEqual(document["info"]["title"], "conformance")
        self.assertRegex(rpcrew("ping", self.url).out, r"answers in \d+\.\d+ ms")

    def test_a_killed_worker_ends_the_call_at_once(self):
        caller = subprocess.Popen([program("rpcrew"), "call", "-v", self.url, "sleep_ms", "60000"],
                                  stderr=subprocess.PIPE, text=True)
        self.assertIn("sleep_ms", caller.stderr.readline())  # it is written
        eventually(lambda: rpcrew("ping", self.url).code == 0)
        self.conformance.stop(signal.SIGKILL)
        self.assertEqual(caller.wait(20), 6)
        self.assertIn("the connection was lost", caller.stderr.read())
        caller.stderr.close()


class WorkerProgram(Case):
    def sleeping_worker(self, ms, *flags):
        """A worker that has a call in flight, and the socket that the call came from."""
        worker = self.worker("conformance", "--listen", "zmq+ipc://" + self.socket_path(), *flags)
        context = zmq.Context()
        self.addCleanup(context.destroy, 0)
        dealer = context.socket(zmq.DEALER)
        dealer.rcvtimeo = PATIENCE * 1000
        dealer.connect("ipc://" + self.socket_path())
        dealer.send_multipart([b"", request("sleep_ms", [ms], 1)])
        dealer.send_multipart([b"", request("get_data", None, 2)])
        self.assertEqual(json.loads(dealer.recv_multipart()[-1])["id"], 2)  # so the first has been taken, too
        return worker, dealer

    def test_a_worker_that_ends_takes_its_socket_file_along(self):
        path = self.socket_path("gone")
        worker = self.worker("calc", "--listen", "zmq+ipc://" + path)
        self.assertTrue(os.path.exists(path))
        self.assertEqual(worker.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_it_drains_on_sigterm(self):
        worker, dealer = self.sleeping_worker(500)
        self.assertEqual(worker.stop(), 0)
        self.assertTrue(worker.said("drained"), worker.text())
        self.assertEqual(json.loads(dealer.recv_multipart()[-1])["result"], 500)

    def test_a_second_signal_ends_it_at_once(self):
        worker, _ = self.sleeping_worker(3600000, "--drain-ms", "3600000")
        worker.process.send_signal(signal.SIGINT)
        eventually(lambda: worker.said("draining"))
        def has_ended():  # what comes within a tenth of a second of the first is the same one
            worker.process.send_signal(signal.SIGTERM)
            return worker.process.poll() is not None
        eventually(has_ended)
        self.assertEqual(worker.process.wait(PATIENCE), 3)

    def test_signals_that_come_together_are_one_and_sighup_drains(self):
        worker, dealer = self.sleeping_worker(1000)
        for number in signal.SIGHUP, signal.SIGTERM, signal.SIGINT:
            worker.process.send_signal(number)
        self.assertEqual(worker.process.wait(PATIENCE), 0, worker.text())
        self.assertEqual(json.loads(dealer.recv_multipart()[-1])["result"], 1000)

    def test_the_limit_of_descriptors_is_raised(self):
        worker = self.worker("calc", "--listen", "zmq+ipc://" + self.socket_path())
        soft, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
        self.assertEqual(soft, hard)

    def test_the_environment_counts_and_flags_win(self):
        url = "zmq+ipc://" + self.socket_path()
        worker = self.worker("calc", "--log-format", "json",
                             env={"RPCREW_LISTEN": url + " inproc://second", "RPCREW_LOG_FORMAT": "logfmt",
                                  "RPCREW_THREADS": "2"})
        lines = [json.loads(line) for line in worker.text().splitlines()]
        self.assertEqual([line["endpoint"] for line in lines if line["msg"] == "listening"], [url, "inproc://second"])
        self.assertEqual(worker.stop(), 0)

    def run_calc(self, *flags, env=None):
        return subprocess.run([program("calc"), *flags], capture_output=True, text=True, timeout=20, check=False,
                              env={**os.environ, **(env or {})})

    def test_bad_usage_is_2_and_says_what_is_wrong(self):
        for flags, expected in [((), "wants --listen"), (("--threads", "x"), "'x' is not a number"),
                                (("--threads", "0"), "from 1 to"), (("--log-level", "loud"), "debug"),
                                (("--listen",), "requires an argument"), (("--fly",), "--fly"), (("x",), "'x'")]:
            got = self.run_calc(*flags)
            self.assertEqual(got.returncode, 2, flags)
            self.assertIn(expected, got.stderr)
        self.assertEqual(self.run_calc("--help", env={"RPCREW_DRAIN_MS": "soon"}).returncode, 0)
        self.assertIn("neither 0 nor 1", self.run_calc(env={"RPCREW_WAIT": "yes"}).stderr)
        got = self.run_calc(env={"RPCREW_DRAIN_MS": "soon"})
        self.assertEqual(got.returncode, 2)
        self.assertIn("--drain-ms: 'soon'", got.stderr)

    def test_an_endpoint_that_cannot_be_opened_is_1_and_one_that_is_none_is_2(self):
        for url, code, expected in [("zmq+ipc:///nowhere/at/all", 1, "No such file"), ("zmq+tcp://nohost.invalid:5", 1, "binding"),
                                    ("zmq+tcp://127.0.0.1", 2, "wants zmq+tcp://host:port"), ("gopher://x", 2, "no transport"),
                                    ("inproc://x?in_flight=0", 2, "1 to"), ("zmq+tcp://u:p@127.0.0.1:5", 2, "asks for no user")]:
            got = self.run_calc("--listen", "unix://" + self.socket_path(), "--listen", url)
            self.assertEqual(got.returncode, code, url)
            self.assertIn(expected, got.stderr, url)
            self.assertEqual("listening" in got.stderr, code == 1)  # else nothing was opened before

    def test_an_ipc_path_that_is_in_use_is_left_alone(self):
        path = self.socket_path("file")
        with open(path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("no socket", self.run_calc("--listen", "zmq+ipc://" + path).stderr)
        with open(path, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")
        url = "zmq+ipc://" + self.socket_path()
        first = self.worker("calc", "--listen", url)
        second = self.run_calc("--listen", url)
        self.assertEqual(second.returncode, 1)
        self.assertIn("in use", second.stderr)
        self.assertEqual(rpcrew("call", url, "subtract", "3", "1").out, "2\n")
        first.stop(signal.SIGKILL)  # leaves its socket behind
        self.worker("calc", "--listen", url)
        self.assertEqual(rpcrew("call", url, "subtract", "3", "1").out, "2\n")

    def test_help_lists_the_methods(self):
        got = self.run_calc("--help")
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        self.assertIn("subtract(minuend:number subtrahend:number) -> number", got.stdout)
        self.assertEqual(self.run_calc("--version").stdout, "calc 1.0.0\n")


class Documents(Case):
    """What the README and docs show is what is there."""
    root = os.path.join(os.path.dirname(__file__), "..", "..")

    def read(self, *path):
        with open(os.path.join(self.root, *path), encoding="utf-8") as file:
            return file.read()

    def test_the_readme_s_worker_is_calc(self):
        code = self.read("README.md").split("```c\n")[1].split("```")[0]
        self.assertEqual(self.read("workers", "calc", "calc.c").split("\n", 1)[1], code)

    def test_the_manual_pages_have_exactly_the_options_that_there_are(self):
        for name, help_ in ("rpcrew.1", [program("rpcrew"), "--help"]), ("rpcrew-worker.7", [program("calc"), "--help"]):
            page = self.read("docs", "man", name)
            shown = subprocess.run(help_, capture_output=True, text=True, timeout=30, check=True).stdout
            options = set(re.findall(r"^ +(?:-\w, )?--([\w-]+)", shown, re.M))
            self.assertEqual(set(re.findall(r"^\.It .*Fl Fl ([\w-]+)", page, re.M)), options)
            letters = set(re.findall(r"^ +-(\w), --", shown, re.M))
            self.assertEqual(set(re.findall(r"^\.It Fl (\w) ,", page, re.M)), letters)
            linted = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True,
                                    timeout=30, check=False)
            self.assertEqual((linted.returncode, linted.stdout), (0, ""))
            for line in shown.split("exit status: ")[1].split("\n\n")[0].replace("\n", " ").split(", "):
                number, words = line.split(" ", 1)
                self.assertIn(f".It {number}\n{words.strip()}\n", page)

    def test_the_url_page_has_exactly_the_options_that_there_are(self):
        page = self.read("docs", "urls.md")
        sections = {part.split("\n", 1)[0]: set(re.findall(r"^\| `(\w+)` \|", part, re.M))
                    for part in page.split("\n## ")[1:]}
        for scheme, name in [("inproc://x", "Options of inproc"), ("zmq+tcp://127.0.0.1:1", "Options of ZeroMQ"),
                             ("amqp://127.0.0.1", "Options of RabbitMQ"), ("amqps://127.0.0.1", "Options of TLS"),
                             ("http://127.0.0.1:1", "Options of HTTP and WebSocket"),
                             ("ws://127.0.0.1:1", "Options of HTTP and WebSocket"),
                             ("https://127.0.0.1:1", "Options of HTTP and WebSocket"),
                             ("wss://127.0.0.1:1", "Options of HTTP and WebSocket")]:
            told = rpcrew("ping", scheme + "?nonsense=1").err.split("there are ")[1].strip().split(", ")
            expected = sections["Options of all schemes"] | sections[name]
            if scheme.startswith("amqps"):
                expected |= sections["Options of RabbitMQ"]
            if scheme.startswith(("https", "wss")):
                expected |= sections["Options of TLS over streams (tls, https, wss)"]
            self.assertEqual(set(told), expected)

    def test_the_guide_s_five_minutes(self):
        block = self.read("docs", "guide.md").split("```\n")[1]
        block = block.replace("build/release/bin/", program("")).replace("zmq+tcp://127.0.0.1:5555",
                                                                        "zmq+ipc://" + self.socket_path())
        commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        commands.insert(1, f"until [ -S {self.socket_path()} ]; do :; done")
        got = subprocess.run(["bash", "-c", "\n".join(commands)], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(got.stdout.splitlines(), [line for line in block.splitlines() if not line.startswith("$ ")])

    def test_the_image_has_what_its_programs_need(self):
        dockerfile = self.read("Dockerfile")
        self.assertIn("RUN ./dev build\n", dockerfile)
        installed = set(re.findall(r"\blib[a-z-]+[\d.]+(?:t64)?\b", dockerfile))
        copied = re.findall(r"build/release/bin/(\w+)", dockerfile)
        needed = set()
        for name in copied:
            libraries = re.findall(r"=> (/\S+)", subprocess.run(["ldd", program(name)], capture_output=True, text=True,
                                                                check=True).stdout)
            direct = subprocess.run(["objdump", "-p", program(name)], capture_output=True, text=True, check=True).stdout
            for library in libraries:
                if f"NEEDED               {os.path.basename(library)}\n" in direct:
                    needed.add(self.package_of(library))
        needed -= {"libc6", "libasan8", "libubsan1", "libtsan2"}
        def plain(names):  # Debian 12 and 13 spell them differently
            return {name.replace("-", "").removesuffix("t64") for name in names}
        self.assertLessEqual(plain(needed), plain(installed))
        compose = self.read("docker-compose.yml")
        for name in re.findall(r'command: \["(\w+)"', compose):
            self.assertIn(name, copied)
        for file in re.findall(r"\./(broker-configs/[\w.]+)", compose):
            self.assertTrue(self.read(file))

    @staticmethod
    def package_of(library):
        for name in library, os.path.realpath(library), library.removeprefix("/usr"), "/usr" + library:
            found = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return found.stdout.split(":")[0]
        raise AssertionError(library)

    def test_the_caller_example(self):
        url = "zmq+ipc://" + self.socket_path()
        self.worker("calc", "--listen", url)
        got = subprocess.run([program("caller"), url], capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual(sorted(got.stdout.split("\n")),
                         sorted(["", "now: 19", "later: 5"] + [f"many: {10 - i}" for i in range(5)]))
        self.assertEqual(got.stderr, "")

    def test_the_stdio_example(self):
        lines = ['{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
                 '{"jsonrpc": "2.0", "method": "greet"}', "rubbish",
                 '{"jsonrpc": "2.0", "method": "greet", "params": ["you"], "id": 2}']
        got = subprocess.run([program("stdio")], input="\n".join(lines) + "\n", capture_output=True, text=True,
                             timeout=30, check=True).stdout.splitlines()
        self.assertIn('{"jsonrpc":"2.0","result":19,"id":1}', got)
        answers = {answer["id"]: answer for answer in map(json.loads, got)}  # in the order of being ready
        self.assertEqual(len(got), 3)
        self.assertEqual(answers[None]["error"]["code"], -32700)
        self.assertEqual(answers[2]["result"], {"hello": "you", "letters": 3})
        name = "n" * 200000
        last = '{"jsonrpc": "2.0", "method": "greet", "params": ["%s"], "id": 1}' % name  # and no newline behind it
        got = subprocess.run([program("stdio")], input=last, capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual(json.loads(got.stdout)["result"], {"hello": name, "letters": 200000})

    def test_the_http_example(self):
        server = subprocess.Popen([program("http"), "0"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        port = int(server.stdout.readline().split()[-1])

        def post(body, content_type=None, method="POST", path="/"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            self.addCleanup(connection.close)
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read()

        call = b'{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}'
        good = (200, "application/json", b'{"jsonrpc":"2.0","result":19,"id":1}')
        for content_type in (None, "application/json", "application/json; charset=utf-8",
                             "application/x-www-form-urlencoded"):
            self.assertEqual(post(call, content_type), good)
        self.assertEqual(post(call, "text/plain")[0], 415)
        self.assertEqual(post(b'{"jsonrpc": "2.0", "method": "subtract"}'), (204, None, b""))
        self.assertEqual(post(b"{")[:2], (200, "application/json"))
        self.assertEqual(post(b"hello"), (415, None, b""))
        self.assertEqual(post(None, method="PUT"), (405, None, b""))
        status, kind, page = post(None, method="GET")
        self.assertEqual((status, kind), (200, "text/html; charset=utf-8"))
        self.assertIn(b"/openrpc.json", page)
        status, kind, document = post(None, method="GET", path="/openrpc.json")
        self.assertEqual((status, kind), (200, "application/json"))
        self.assertEqual([one["name"] for one in json.loads(document)["methods"]], ["subtract"])
        self.assertEqual(post(None, method="GET", path="/elsewhere")[0], 404)
        self.assertEqual(post(b" " * (1 << 20) + b"{}")[0], 413)
        self.assertEqual(post(b"\x94\x00\x01\xa8subtract\x92\x2a\x17"),
                         (200, "application/msgpack", b"\x94\x01\x01\xc0\xcb\x40\x33\0\0\0\0\0\0"))

    def test_the_examples_of_the_protocol_alone(self):
        url = f"http://127.0.0.1:{free_port()}/"
        self.worker("calc", "--listen", url)
        got = subprocess.run([program("curl_caller"), url], capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual(got.stdout, "42 - 23 = 19\n23 - 42 = -19\n")
        server = subprocess.Popen([program("event_loop")], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        url = f"tcp://127.0.0.1:{server.stdout.readline().split()[-1]}"
        self.assertEqual([rpcrew("call", url, "count").out for _ in range(2)], ["1\n", "2\n"])
        self.assertIn("Method not found (code -32601)", rpcrew("call", url, "other").err)
        got = rpcrew("batch", "-c", "10", url, stdin='{"method":"count"}\n' * 50)
        self.assertEqual(len(set(got.out.splitlines())), 50)

    def test_a_program_of_ones_own(self):
        url, folder = "unix://" + self.socket_path(), os.path.join(self.directory, "texts")
        os.mkdir(folder)
        shown = subprocess.run([program("store"), "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
        self.assertRegex(shown, r"of this program:\n  --directory DIR +where the texts are\n  --read-only +refuses put\n")
        for words, code, says in (([], 2, "wants --directory DIR"), (["--directory", "/nowhere"], 1, "/nowhere: No such file"),
                                  (["--directory"], 2, "requires an argument"), (["--read-only=1"], 2, "--read-only")):
            got = subprocess.run([program("store"), "--listen", url, *words], capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual(got.returncode, code, got.stderr)
            self.assertIn(says, got.stderr)
            self.assertFalse(os.path.exists(self.socket_path()))
        worker = self.worker("store", "--listen", url, "--directory", folder)
        self.assertEqual(rpcrew("call", url, "put", "greeting", "naïve").code, 0)
        self.assertEqual(rpcrew("call", url, "get", "greeting").out, '"naïve"\n')
        self.assertEqual(os.listdir(folder), ["greeting"])
        self.assertIn("(code 404)", rpcrew("call", url, "get", "other").err)
        self.assertIn("param 'name' wants 1 to 100 letters", rpcrew("call", url, "get", "../x").err)
        self.assertEqual(worker.stop(), 0)
        self.worker("store", "--listen", url, "--directory", folder, "--read-only")
        self.assertEqual(rpcrew("call", url, "get", "greeting").out, '"naïve"\n')
        self.assertIn("the store is read only (code 403)", rpcrew("call", url, "put", "greeting", "x").err)

    def test_the_ledger_example(self):
        url = "zmq+ipc://" + self.socket_path()
        self.worker("ledger", "--listen", url, "--listen", url + "-data?error=data")
        for flags in [], ["-p", "msgpack"]:
            def call(*words, to=url):
                return rpcrew("call", *flags, to, *words)  # pylint: disable=cell-var-from-loop

            self.assertEqual(call("due", "2024-02-28").out, '"2024-03-29"\n')
            self.assertEqual(call("due", "from=2023-12-31", "days=1").out, '"2024-01-01"\n')
            self.assertIn("param 'from' wants a date, not a string that is none", call("due", "2023-02-29").err)
            self.assertIn("param 'from' wants a date, not int", call("due", "20230229").err)
            name = "ann" + "".join(flags)
            self.assertEqual(call("deposit", name, '"12.50"').out, '{"balance":"12.50"}\n')
            self.assertEqual(call("withdraw", name, '"0.05"').out, '{"balance":"12.45"}\n')
            self.assertIn("there is no account 'bob' (code 404", call("withdraw", "bob", '"1.00"').err)
            much = call("withdraw", name, '"100.00"', to=url + "-data")
            self.assertEqual(much.code, 1)
            self.assertIn("not enough in the account (code 402, NOT_ENOUGH)", much.err)
            self.assertIn('{"balance":"12.45","rpcrew":{"name":"NOT_ENOUGH"}}', much.err)
        self.assertIn("not enough room", rpcrew("call", url, "deposit", "rich", '"999999999999999.99"').err
                      + "".join(rpcrew("call", url, "deposit", "rich", '"999999999999999.99"').err
                                for _ in range(95)))
        self.assertIn("cannot be a new account", rpcrew("call", url, "deposit", '"a\\u0000b"', '"1.00"').err)
        self.assertIn("the number does not fit", rpcrew("call", url, "due", "9999-12-31").err)
        described = rpcrew("describe", url).out
        self.assertIn("due(from: date, days: uint?) -> date\n", described)
        self.assertIn("\nerrors\n    404 NO_ACCOUNT: there is no such account\n", described)

    def test_the_poll_loop_example(self):
        url = "zmq+ipc://" + self.socket_path()
        loop = subprocess.Popen([program("poll_loop"), url])
        self.addCleanup(loop.wait)
        self.addCleanup(loop.kill)
        eventually(lambda: int(rpcrew("call", "--retry", "-t", "20", url, "ticks").out) > 0)
        self.assertEqual(rpcrew("call", url, "reset").out, "null\n")
        loop.terminate()
        self.assertEqual(loop.wait(30), 0)

    def test_the_python_client_example(self):
        address = "ipc://" + self.socket_path()
        self.worker("calc", "--listen", "zmq+" + address)
        got = subprocess.run(["/usr/bin/python3", os.path.join(self.root, "examples", "req_client.py"), address],
                             capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(got.stdout, "1000 calls, all right\n")


if __name__ == "__main__":
    main()
