"""What a worker tells of itself: its metrics against what was sent, health and readiness, and each line of its log."""
import json
import os
import re
import signal
import socket
import subprocess
import uuid

import requests

from support import PATIENCE, Case, eventually, free_port, main, program, request, rpcrew

from broker import Broker  # which support has put on the path

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED = shared_file.readline().strip()

TOTAL = "rpc_server_call_duration_seconds"


def series(text):
    """{(name, {labels…}): value} of the text format."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r'(\w+)(?:\{(.*)\})? (\S+)', line).groups()
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
        key = (name, frozenset(pairs))
        assert key not in found, line
        found[key] = float(value)
    return found


class Reports(Case):
    def serve(self, *words, **more):
        self.admin = f"http://127.0.0.1:{free_port()}"
        return self.worker("conformance", "--admin", self.admin, *words, **more)

    def get(self, name):
        return requests.get(f"{self.admin}/{name}", timeout=PATIENCE)

    def metrics(self):
        return series(self.get("metrics").text)

    def counted(self, name=TOTAL + "_count", **labels):
        """The sum of all series that have these labels."""
        return sum(value for (its, pairs), value in self.metrics().items()
                   if its == name and set(labels.items()) <= set(pairs))


class Metrics(Reports):
    def calls_are_counted(self, url, protocol="jsonrpc"):
        """Some of each kind, and then each number is what was sent."""
        flags = ["-p", protocol]
        for _ in range(3):
            self.assertEqual(rpcrew("call", url, *flags, "add", "1", "2").out, "3\n")
        self.assertEqual(rpcrew("call", url, *flags, "sleep_ms", "30").out, "30\n")
        self.assertEqual(rpcrew("call", url, *flags, "fail", "7", "no").code, 1)
        self.assertEqual(rpcrew("call", url, *flags, "nope").code, 1)
        self.assertEqual(rpcrew("call", url, *flags, "invented").code, 1)
        self.assertEqual(rpcrew("call", url, *flags, "add", "x", "2").code, 1)
        self.assertEqual(rpcrew("notify", url, *flags, "update").code, 0)
        system = {"jsonrpc": "jsonrpc", "msgpack": "msgpackrpc"}[protocol]
        eventually(lambda: self.counted(rpc_method="update") == 1)
        for count, labels in ((3, {"rpc_method": "add", "error_type": ""}), (1, {"rpc_method": "sleep_ms"}),
                              (1, {"rpc_method": "fail", "rpc_status_code": "7", "error_type": "error"}),
                              (2, {"rpc_method": "_OTHER", "rpc_status_code": "-32601", "error_type": "unknown_method"}),
                              (1, {"rpc_method": "add", "rpc_status_code": "-32602", "error_type": "bad_params"})):
            if labels.get("error_type") == "":
                del labels["error_type"]
                self.assertEqual(self.counted(**labels) - self.counted(**labels, error_type="bad_params"), count)
            else:
                self.assertEqual(self.counted(rpc_system_name=system, **labels), count, labels)
        self.assertEqual(self.counted(TOTAL + "_bucket", rpc_method="sleep_ms", le="0.025"), 0)
        self.assertEqual(self.counted(TOTAL + "_bucket", rpc_method="sleep_ms", le="+Inf"), 1)
        for name in TOTAL + "_sum", "rpcrew_server_run_duration_seconds_sum":
            self.assertGreater(self.counted(name, rpc_method="sleep_ms"), 0.03)
        self.assertEqual(self.counted("rpcrew_calls_total"), 9)
        self.assertEqual(self.counted("rpcrew_messages_received_total"), 9)
        self.assertEqual(self.counted("rpcrew_messages_replied_total"), 8)
        eventually(lambda: self.counted("rpcrew_endpoint_in_flight") == 0)
        self.assertEqual(self.counted("rpcrew_endpoint_up"), 1)
        self.assertEqual(self.counted("rpcrew_ready"), 1)
        self.assertGreater(self.counted("process_resident_memory_bytes"), 1e6)
        self.assertGreater(self.counted("process_open_fds"), 3)

    def test_over_each_transport(self):
        for pattern in ("tcp://127.0.0.1:{}", "unix://" + self.socket_path(), "zmq+tcp://127.0.0.1:{}", "http://127.0.0.1:{}/rpc",
                        "ws://127.0.0.1:{}/rpc", SHARED + f"?queue=observe-{uuid.uuid4()}" + "-{}"):
            for protocol in "jsonrpc", "msgpack":
                with self.subTest(pattern, protocol=protocol):
                    url = pattern.format(free_port())
                    worker = self.serve("--listen", url)
                    self.calls_are_counted(url, protocol)
                    self.assertEqual(worker.stop(), 0)

    def test_promtool_takes_them(self):
        self.serve("--listen", "unix://" + self.socket_path('a"b'))
        rpcrew("call", "unix://" + self.socket_path('a"b'), "add", "1", "2")
        got = self.get("metrics")
        self.assertEqual(got.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        checked = subprocess.run(["promtool", "check", "metrics"], input=got.text, capture_output=True, text=True,
                                 timeout=60, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))

    def test_on_the_endpoint_itself_and_not(self):
        base = f"http://127.0.0.1:{free_port()}"
        self.worker("conformance", "--listen", base + "/rpc?reports=yes")
        self.assertIn(TOTAL, requests.get(base + "/metrics", timeout=PATIENCE).text)
        self.assertEqual(requests.get(base + "/healthz", timeout=PATIENCE).json(), {"status": "ok"})
        self.assertEqual(requests.get(base + "/rpc/metrics", timeout=PATIENCE).status_code, 404)
        self.assertEqual(requests.head(base + "/metrics", timeout=PATIENCE).status_code, 405)
        self.assertEqual(requests.head(base + "/readyz", timeout=PATIENCE).status_code, 200)
        self.assertEqual(requests.post(base + "/metrics", data=request("add", [1, 2]), timeout=PATIENCE).status_code, 404)
        got = requests.get(base + "/metrics", headers={"Origin": "http://evil.example"}, timeout=PATIENCE)
        self.assertEqual(got.status_code, 403)
        offers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": ""}
        self.assertEqual(requests.get(base + "/healthz", headers=offers, timeout=PATIENCE).status_code, 200)
        for option, statuses in ("no", (404, 404)), ("health", (200, 404)), ("", (200, 404)):
            other = f"http://127.0.0.1:{free_port()}"
            self.worker("conformance", "--listen", other + ("/?reports=" + option if option else "/"))
            self.assertEqual((requests.get(other + "/readyz", timeout=PATIENCE).status_code,
                              requests.get(other + "/metrics", timeout=PATIENCE).status_code), statuses)
            if statuses[0] == 200:  # whoever may call need not know to what else it listens
                self.assertEqual(requests.get(other + "/readyz", timeout=PATIENCE).text, '{"ready":true}\n')

    def test_endpoints_of_one_url_are_one(self):
        url = f"zmq+tcp://127.0.0.1:{free_port()}?mode=connect"
        self.serve("--listen", url, "--listen", url)
        self.assertEqual(self.counted("rpcrew_endpoint_up"), 2)
        self.assertEqual(sum(name == "rpcrew_endpoint_up" for name, _ in self.metrics()), 1)

    def test_codes_that_callers_choose_use_up_no_methods(self):
        url = "unix://" + self.socket_path()
        self.serve("--listen", url)
        lines = "".join(json.dumps({"method": "fail", "params": [code, "no"]}) + "\n" for code in range(1, 1101))
        rpcrew("batch", url, stdin=lines)
        self.assertEqual(rpcrew("call", url, "add", "1", "2").code, 0)
        self.assertEqual(self.counted(rpc_method="add"), 1)
        self.assertEqual(self.counted(rpc_method="fail"), 1100)
        self.assertEqual(self.counted(rpc_method="fail", rpc_status_code="1"), 1)
        self.assertGreater(self.counted(rpc_method="fail", rpc_status_code="_OTHER"), 500)
        self.assertEqual(self.counted("rpcrew_metrics_left_out_total"), 0)

    def test_an_admin_endpoint_serves_nothing_else(self):
        self.serve("--listen", "unix://" + self.socket_path())
        self.assertEqual(requests.post(self.admin, data=request("add", [1, 2]), timeout=PATIENCE).status_code, 404)
        self.assertEqual(self.get("").status_code, 404)
        self.assertEqual(self.get("openrpc.json").status_code, 404)


class Clients(Reports):
    """A worker whose handlers call another one."""

    def test_a_gateway(self):
        calc, url = "tcp://127.0.0.1:" + str(free_port()), f"http://127.0.0.1:{free_port()}/"
        self.admin = f"http://127.0.0.1:{free_port()}"
        behind = self.worker("calc", "--listen", calc)
        gateway = self.worker("gateway", "--calc", calc, "--listen", url, "--admin", self.admin)
        for _ in range(3):
            self.assertEqual(rpcrew("call", url, "subtract", "5", "2").out, "3\n")
        of_calls = {"rpc_method": "subtract", "endpoint": calc, "rpc_system_name": "jsonrpc"}
        self.assertEqual(self.counted("rpc_client_call_duration_seconds_count", **of_calls), 3)
        self.assertEqual(self.counted("rpc_client_call_duration_seconds_bucket", **of_calls, le="+Inf"), 3)
        self.assertEqual(self.counted(rpc_method="subtract", endpoint=url), 3)
        self.assertEqual(self.counted("rpcrew_client_response_bytes_total"), 3 * len(b'{"jsonrpc":"2.0","result":3,"id":1}'))
        self.assertEqual(self.counted("rpcrew_client_up", endpoint=calc), 1)
        self.assertEqual(self.counted("rpcrew_client_outstanding", endpoint=calc), 0)
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.get("metrics").text, capture_output=True, text=True,
                                 timeout=60, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))
        self.assertEqual(behind.stop(), 0)
        eventually(lambda: self.counted("rpcrew_client_up", endpoint=calc) == 0)
        self.worker("store", "--listen", calc, "--directory", self.directory)  # which cannot subtract
        eventually(lambda: self.counted("rpcrew_client_up", endpoint=calc) == 1)
        got = rpcrew("call", url, "subtract", "5", "2")
        self.assertIn("calc did not take the call (code 503, UNAVAILABLE)", got.err)
        self.assertEqual(self.counted("rpc_client_call_duration_seconds_count", **of_calls, error_type="remote_error",
                                      rpc_status_code="-32601"), 1)
        got = rpcrew("batch", url, stdin='{"method": "subtract", "params": [5, 2]}\n')
        error = json.loads(got.out)["error"]
        self.assertEqual((error["executed"], error["data"]), ("no", {"rpcrew": {"executed": "no", "name": "UNAVAILABLE"}}))
        self.assertEqual(gateway.stop(), 0)

    def test_calls_out_are_counted_over_each_transport(self):
        for pattern in ("tcp://127.0.0.1:{}", "unix://" + self.socket_path(), "zmq+tcp://127.0.0.1:{}", "http://127.0.0.1:{}/rpc",
                        "ws://127.0.0.1:{}/rpc", SHARED + f"?queue=observe-{uuid.uuid4()}"):
            with self.subTest(pattern):
                calc, url = pattern.format(free_port()), f"tcp://127.0.0.1:{free_port()}"
                self.admin = f"http://127.0.0.1:{free_port()}"
                behind = self.worker("calc", "--listen", calc)
                gateway = self.worker("gateway", "--calc", calc, "--listen", url, "--admin", self.admin)
                for _ in range(5):
                    self.assertEqual(rpcrew("call", url, "subtract", "5", "2").out, "3\n")
                self.assertEqual(self.counted("rpc_client_call_duration_seconds_count", rpc_method="subtract"), 5)
                self.assertEqual(self.counted("rpc_client_call_duration_seconds_bucket", le="+Inf"), 5)
                self.assertGreater(self.counted("rpc_client_call_duration_seconds_sum"), 0)
                request_bytes = len(b'{"jsonrpc":"2.0","method":"subtract","params":[5,2],"id":1}')
                self.assertEqual(self.counted("rpcrew_client_request_bytes_total"), 5 * request_bytes)
                self.assertEqual(self.counted("rpcrew_client_response_bytes_total"), 5 * len(b'{"jsonrpc":"2.0","result":3,"id":1}'))
                self.assertEqual((self.counted("rpcrew_client_up"), self.counted("rpcrew_client_outstanding")), (1, 0))
                self.assertEqual(gateway.stop(), 0)
                self.assertEqual(behind.stop(), 0)

    def test_every_panel_of_the_dashboard_shows_something(self):
        calc, url = "unix://" + self.socket_path(), f"http://127.0.0.1:{free_port()}/"
        admin, prometheus = free_port(), free_port()
        self.worker("calc", "--listen", calc)
        self.worker("gateway", "--calc", calc, "--listen", url, "--admin", f"http://127.0.0.1:{admin}")
        self.assertEqual(rpcrew("call", url, "subtract", "5", "2").out, "3\n")
        self.assertEqual(rpcrew("call", url, "subtract", "five", "2").code, 1)
        with open(os.path.join(self.directory, "prometheus.yml"), "w", encoding="utf-8") as file:
            json.dump({"scrape_configs": [{"job_name": "gateway", "scrape_interval": "1s",
                                           "static_configs": [{"targets": [f"127.0.0.1:{admin}"]}]}]}, file)
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(["prometheus", "--config.file", file.name, "--storage.tsdb.path", self.directory + "/data",
                                    "--web.listen-address", f"127.0.0.1:{prometheus}"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)

        def shows(expression):
            try:
                got = requests.get(f"http://127.0.0.1:{prometheus}/api/v1/query", params={"query": expression}, timeout=PATIENCE)
            except requests.ConnectionError:
                return False
            if got.status_code == 503:  # it starts
                return False
            self.assertEqual(got.status_code, 200, got.text)
            return bool(got.json()["data"]["result"])

        eventually(lambda: rpcrew("call", url, "subtract", "5", "2").code == 0 and shows(f"sum(rate({TOTAL}_count[1m])) > 0"), 60)
        with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "grafana.json"), encoding="utf-8") as file:
            dashboard = json.load(file)
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 20)
        for expression in expressions:
            for name, value in ("$__rate_interval", "1m"), ("$job", "gateway"), ("$instance", ".*"):
                expression = expression.replace(name, value)
            self.assertNotIn("$", expression)
            self.assertTrue(shows(expression), expression)


class Health(Reports):
    def ready(self):
        got = self.get("readyz")
        return got.status_code, got.json()["ready"], [reason["reason"] for reason in got.json()["reasons"]]

    def test_a_busy_pool_fails_neither(self):
        url = "unix://" + self.socket_path()
        self.serve("--listen", url, "--threads", "1", "--in-flight", "1")
        callers = [subprocess.Popen([program("rpcrew"), "call", url, "sleep_ms", "1500"], stdout=subprocess.DEVNULL)
                   for _ in range(6)]
        eventually(lambda: self.counted("rpcrew_pool_running") == 1)
        self.assertEqual(self.get("healthz").status_code, 200)
        self.assertEqual(self.ready(), (200, True, []))
        for caller in callers:
            caller.wait()

    def test_a_full_endpoint_tells_it_itself(self):
        base = f"http://127.0.0.1:{free_port()}/"
        worker = self.serve("--listen", base, "--threads", "1", "--in-flight", "1")
        callers = [subprocess.Popen([program("rpcrew"), "call", base, "sleep_ms", "1000"], stdout=subprocess.DEVNULL)
                   for _ in range(6)]
        eventually(lambda: self.counted("rpcrew_messages_received_total") >= 2)
        for name in "healthz", "readyz":
            self.assertEqual(requests.get(base + name, timeout=0.9).status_code, 200)
        self.assertLess(self.counted("rpcrew_messages_received_total"), 6)
        for caller in callers:
            self.assertEqual(caller.wait(), 0)
        self.assertEqual(worker.stop(), 0)

    def test_a_request_that_waits_for_room_is_no_half_one(self):
        base = f"http://127.0.0.1:{free_port()}/?idle_timeout_ms=200"
        self.serve("--listen", base, "--threads", "1", "--in-flight", "1")
        callers = [subprocess.Popen([program("rpcrew"), "call", base.partition("?")[0], "sleep_ms", "700"], stdout=subprocess.PIPE)
                   for _ in range(4)]
        self.assertEqual([caller.communicate()[0] for caller in callers], [b"700\n"] * 4)

    def test_it_starts_where_a_host_is_silent(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/?queue=x"
            worker = self.serve("--listen", url, "--wait", wait=False)
            eventually(lambda: worker.said("listening"))
            self.assertEqual(self.get("healthz").status_code, 200)
            self.assertEqual(self.ready(), (503, False, ["starting"]))
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_who_is_connected_is_told_that_it_drains(self):
        url = "unix://" + self.socket_path()
        worker = self.serve("--listen", url)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.socket_path())
            connection.sendall(request("sleep_ms", [1500], 1) + b"\n")
            eventually(lambda: self.counted("rpcrew_pool_running") == 1)
            worker.process.send_signal(signal.SIGTERM)
            eventually(lambda: worker.said("draining"))
            eventually(lambda: self.ready()[0] == 503)
            connection.sendall(request("rpc.health", [], 2) + b"\n" + request("add", [1, 2], 3) + b"\n")
            answers = {}
            with connection.makefile("rb") as lines:
                for line in lines:
                    answers[json.loads(line)["id"]] = json.loads(line)
        self.assertEqual(answers[2]["result"], {"status": "draining"})
        self.assertEqual(answers[3]["error"]["code"], -32040)
        self.assertEqual(answers[1]["result"], 1500)
        self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_not_ready_while_it_drains(self):
        url = "unix://" + self.socket_path()
        worker = self.serve("--listen", url)
        caller = subprocess.Popen([program("rpcrew"), "call", url, "sleep_ms", "1500"], stdout=subprocess.PIPE)
        eventually(lambda: self.counted("rpcrew_pool_running") == 1)
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: self.ready() == (503, False, ["draining"]))
        self.assertEqual(self.get("healthz").status_code, 200)
        self.assertEqual(rpcrew("call", url, "rpc.health").code, 3)
        self.assertEqual(caller.communicate()[0], b"1500\n")
        self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_not_ready_while_the_broker_is_away(self):
        broker = Broker()
        self.addCleanup(broker.close)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(self.socket_path("notify"))
            notify.settimeout(PATIENCE)
            worker = self.serve("--listen", broker.url + "?queue=ready", "--unready-ms", "300", "--wait", wait=False,
                                env={"NOTIFY_SOCKET": self.socket_path("notify")})
            eventually(lambda: worker.said("waiting for an endpoint to open"))
            self.assertEqual(self.ready()[0], 503)
            broker.start()
            self.assertEqual(notify.recv(200), b"READY=1")
        eventually(lambda: worker.said("serving"))
        eventually(lambda: self.ready() == (200, True, []))
        broker.stop()
        eventually(lambda: self.ready()[0] == 503)
        self.assertRegex(self.ready()[2][0], "not open for [0-9]+ s")
        self.assertEqual(self.counted("rpcrew_endpoint_up"), 0)
        self.assertEqual(self.get("healthz").status_code, 200)
        broker.start()
        eventually(lambda: self.ready() == (200, True, []), 60)
        self.assertEqual(worker.stop(), 0)

    def test_a_worker_that_waits_serves_when_something_listens(self):
        path = self.socket_path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(PATIENCE)
            url = f"amqp://127.0.0.1:{free_port()}/?queue=nobody"
            worker = self.serve("--listen", url, "--wait", wait=False, env={"NOTIFY_SOCKET": path})
            eventually(lambda: worker.said("waiting for an endpoint to open"))
            self.assertEqual(self.ready()[0], 503)
            self.assertFalse(worker.said("serving"))
            worker.process.send_signal(signal.SIGTERM)
            self.assertIn(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000", notify.recv(200))
            self.assertEqual(worker.process.wait(PATIENCE), 0)

    def test_systemd_is_told(self):
        for path in self.socket_path("notify"), f"\0rpcrew-{os.getpid()}":
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.bind(path)
                notify.settimeout(PATIENCE)
                worker = self.serve("--listen", "unix://" + self.socket_path(),
                                    env={"NOTIFY_SOCKET": path.replace("\0", "@")})
                self.assertEqual(notify.recv(200), b"READY=1")
                worker.stop()
                self.assertTrue(notify.recv(200).startswith(b"STOPPING=1\n"))

    def test_who_listens_slowly_holds_up_nothing(self):
        path = self.socket_path("notify")

        def fill():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, self.assertRaises(BlockingIOError):
                sender.setblocking(False)
                while True:
                    sender.sendto(b"others", path)

        def told():
            while (text := notify.recv(200)) == b"others":
                pass
            return text

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(PATIENCE)
            fill()
            worker = self.serve("--listen", "unix://" + self.socket_path(), "--drain-ms", "500", env={"NOTIFY_SOCKET": path})
            self.assertEqual(told(), b"READY=1")  # was tried until there was room
            fill()
            self.assertEqual(worker.stop(), 0)  # STOPPING=1 is not worth the drain's time

    def test_systemd_s_watchdog(self):
        path = self.socket_path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(PATIENCE)
            url = "unix://" + self.socket_path()
            worker = self.serve("--listen", url, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
            self.assertEqual(notify.recv(200), b"READY=1")
            self.assertEqual([notify.recv(200) for _ in range(5)], [b"WATCHDOG=1"] * 5)
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.process.wait(PATIENCE), 0)
            notify.setblocking(False)
            with self.assertRaises(BlockingIOError):
                while True:
                    notify.recv(200)
            notify.settimeout(PATIENCE)
            worker = self.serve("--listen", url, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
            rpcrew("ping", url)
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.process.wait(PATIENCE), 0)
            self.assertEqual(notify.recv(200), b"READY=1")
            self.assertTrue(notify.recv(200).startswith(b"STOPPING=1"))
        worker = self.serve("--listen", url, wait=False, env={"WATCHDOG_USEC": "soon"})
        self.assertEqual(worker.process.wait(PATIENCE), 2)
        self.assertTrue(worker.said("WATCHDOG_USEC='soon': it wants a number above 0"))

    def test_the_method(self):
        url = "unix://" + self.socket_path()
        self.serve("--listen", url)
        self.assertEqual(json.loads(rpcrew("call", url, "rpc.health").out), {"status": "serving"})


class Logs(Case):
    def serve(self, *words, **more):
        self.url = "unix://" + self.socket_path()
        return self.worker("conformance", "--listen", self.url + "?framing=content-length&max_bytes=2000", *words, **more)

    def send(self, *bodies):
        """Returns the answers' bytes."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.socket_path())
            for body in bodies:
                connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def lines(self, worker, words):
        return [line for line in worker.text().splitlines() if words in line]

    def test_what_goes_wrong_has_a_line(self):
        worker = self.serve()
        self.send(request("nope", []), b'{"jsonrpc":"2.0","method":5,"id":1}', b"{", request("blob", [5000]))
        eventually(lambda: worker.said("a call failed"))
        for words, level, more in (("there is no such method", "WARN", "method=nope"),
                                   ("a request cannot be read", "WARN", "Invalid Request"),
                                   ("a request cannot be read", "WARN", "Parse error"),
                                   ("a call failed", "ERROR", 'method=blob reason="the answer has more bytes than max_bytes allows, or stands deeper than max_depth"')):
            self.assertTrue([line for line in self.lines(worker, words) if level in line and more in line], worker.text())

    def test_a_flood_of_them_has_ten_and_a_number(self):
        worker = self.serve()
        self.send(*[request("nope", [], i) for i in range(500)])
        eventually(lambda: len(self.lines(worker, "there is no such method")) == 10)
        self.send(request("add", [1, 2]))
        self.assertEqual(len(self.lines(worker, "there is no such method")), 10)

    def test_the_level_changes_while_it_runs(self):
        worker = self.serve("--log-level", "warn", wait=False)
        eventually(lambda: os.path.exists(self.socket_path()))
        eventually(lambda: self.send(request("add", [1, 2])))
        self.assertEqual(worker.text(), "")
        worker.process.send_signal(signal.SIGUSR1)
        eventually(lambda: self.send(request("add", [1, 2])) and worker.said("ending=result"))
        worker.process.send_signal(signal.SIGUSR1)

        def is_quiet():
            count = len(self.lines(worker, "ending=result"))
            self.send(request("add", [1, 2]))
            return len(self.lines(worker, "ending=result")) == count
        eventually(is_quiet)

    def test_the_access_log(self):
        path = self.socket_path("access")
        for log_format, reads in (("text", None), ("logfmt", None), ("json", json.loads)):
            with self.subTest(log_format):
                worker = self.serve("--access-log=" + path, "--log-format", log_format)
                self.send(request("add", [1, 2], 7), request("nope", []), request("update", [], None))
                self.assertEqual(worker.stop(), 0)
                with open(path, encoding="utf-8") as log:
                    lines = log.read().splitlines()
                self.assertEqual(len(lines), 3)
                added = next(line for line in lines if "add" in line)
                if reads:
                    one = reads(added)
                    self.assertEqual((one["method"], one["ending"], one["id"], one["protocol"], one["peer"], one["out"]),
                                     ("add", "result", "7", "jsonrpc", f"uid:{os.getuid()}", 35))
                    self.assertEqual(one["endpoint"], self.url + "?framing=content-length&max_bytes=2000")
                else:
                    self.assertRegex(added, r"method=add ending=result id=7 us=\d+ wait_us=\d+ in=\d+ out=35 protocol=jsonrpc")
                os.remove(path)

    def test_who_called_is_where_that_is_known(self):
        path = self.socket_path("access")
        tcp, zmq, http = (f"{scheme}://127.0.0.1:{free_port()}" for scheme in ("tcp", "zmq+tcp", "http"))
        worker = self.worker("conformance", "--access-log=" + path, "--log-format", "json",
                             *(word for url in (tcp, zmq, http) for word in ("--listen", url)))
        with socket.create_connection(("127.0.0.1", int(tcp.rpartition(":")[2])), PATIENCE) as connection:
            connection.sendall(request("add", [1, 2]) + request("nope", []))
            connection.recv(1000)
            here = "{}:{}".format(*connection.getsockname())
            rpcrew("call", zmq, "add", "3", "4")
            rpcrew("call", http, "add", "5", "6")
        self.assertEqual(worker.stop(), 0)
        with open(path, encoding="utf-8") as log:
            lines = list(map(json.loads, log))
        self.assertEqual([line["address"] for line in lines if line["endpoint"] == tcp], [here, here])
        self.assertEqual([line["address"] for line in lines if line["endpoint"] == zmq], ["127.0.0.1"])
        self.assertRegex(next(line["address"] for line in lines if line["endpoint"] == http), r"^127\.0\.0\.1:\d+$")
        self.assertRegex(worker.text(), f'"method":"nope".*"address":"{here}"')

    def test_ids_of_messagepack_are_numbers(self):
        path, url = self.socket_path("access"), "unix://" + self.socket_path()
        worker = self.worker("conformance", "--listen", url, "--access-log=" + path, "--log-format", "json")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.socket_path())
            for ident, packed in (5, b"\x05"), (200, b"\xcc\xc8"), (2 ** 32 - 1, b"\xce\xff\xff\xff\xff"):
                connection.sendall(b"\x94\x00" + packed + b"\xa3add\x92\x01\x02")
                self.assertTrue(connection.recv(100))
                with open(path, encoding="utf-8") as log:
                    line = json.loads(log.read().splitlines()[-1])
                self.assertEqual((line["id"], line["method"], line["protocol"]), (str(ident), "add", "msgpack"))
        self.assertEqual(worker.stop(), 0)

    def test_nobody_writes_lines_into_it(self):
        worker = self.serve()
        name = "x\u2028y\u0085z\u009b2J\u202e\u007f"
        self.send(request(name, []))
        eventually(lambda: worker.said("there is no such method"))
        self.assertIn("method=\"x\\u2028y\\u0085z\\u009b2J\\u202e\\u007f\"", worker.text())

    def test_what_keeps_it_from_starting(self):
        bad = "unix:///nowhere/at/all"
        got = subprocess.run([program("conformance"), "--listen", bad, "--log-format", "json"], capture_output=True, text=True,
                             timeout=PATIENCE, check=False)
        self.assertEqual(got.returncode, 1)
        line = json.loads(got.stderr.splitlines()[-1])
        self.assertEqual((line["level"], line["msg"]), ("error", "cannot start"))
        self.assertIn("--listen: ", line["why"])
        self.assertIn("/nowhere/at/all", line["why"])
        got = subprocess.run([program("conformance"), "--listen", "unix://" + self.socket_path(), "--admin", "tcp://127.0.0.1:1"],
                             capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(got.returncode, 2)
        self.assertIn("is no http:// or https:// URL", got.stderr)
        got = subprocess.run([program("conformance"), "--listen", "unix://" + self.socket_path(), "--access-log=/nowhere/log"],
                             capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(got.returncode, 1)
        self.assertIn("--access-log: /nowhere/log: No such file", got.stderr)


if __name__ == "__main__":
    main()
