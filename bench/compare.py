"""rpcrew beside the same work on the bare libraries, by turns in one run; prints calls/s, latencies, CPU per call
and the ratios.

usage: compare.py [--against BIN NAME] BIN [SECONDS [ROUNDS [PATHS]]]
       BIN: where the programs are; PATHS: amqp,zmq,tcp,unix,tls,http,ws; --against: beside another build of rpcrew, called NAME, instead
"""
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "broker-configs"))
from broker import Broker, exit_on_signals  # noqa: E402
from free_ports import free_port, free_ports  # noqa: E402

CALLS_AT_A_TIME = 1, 16, 64, 256, 1000
CALL = "subtract", "42", "23"
TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pids):
    """Seconds of CPU that processes have used."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            ticks += sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
    return ticks / TICK


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        direct = [int(word) for word in file.read().split()]
    return direct + [pid for child in direct for pid in children(child)]


class Side:
    """A server that runs, and the client to be run against it."""

    def __init__(self, name, server, client, ready, log):
        self.name, self.client = name, client
        with open(log, "wb") as output:
            self.process = subprocess.Popen(server, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            with open(log, encoding="utf-8") as said:
                if ready in said.read():
                    return
            time.sleep(0.01)
        self.end()
        raise SystemExit(f"{name} did not start: {log}")

    def run(self, calls_at_a_time, seconds, broker_pids):
        before, broker_before = cpu_of([self.process.pid]), cpu_of(broker_pids)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        printed = subprocess.run(self.client(calls_at_a_time, seconds), capture_output=True, text=True, check=False)
        if printed.returncode:
            raise SystemExit(f"{self.name}: {printed.stderr}")
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = json.loads(printed.stdout.splitlines()[-1])
        if figures["errors"]:
            raise SystemExit(f"{self.name}: {figures['errors']} errors")
        both = cpu_of([self.process.pid]) - before + now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
        figures["cpu_us"] = both / figures["calls"] * 1e6
        figures["broker_us"] = (cpu_of(broker_pids) - broker_before) / figures["calls"] * 1e6
        return figures

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Client(Side):
    """Another client of a side's server."""

    def __init__(self, name, side, client):  # pylint: disable=super-init-not-called
        self.name, self.process, self.client = name, side.process, client


def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def compare(title, sides, seconds, rounds, broker_pids=(), numbers=CALLS_AT_A_TIME):
    """The first side is rpcrew; the others are floors, or another build of it."""
    print(f"\n{title}: {rounds} rounds of {seconds} s, medians; ratio: rpcrew to that floor, median (least to most)")
    print(f"  {'at a time':>9}  {'':<22} {'calls/s':>9} {'p50 us':>8} {'p99 us':>8} {'CPU us':>7}"
          + (f" {'broker us':>9}" if broker_pids else "") + "  ratio")
    for at_a_time in numbers:
        runs = {side: [] for side in sides}
        for number in range(rounds):
            for side in sides if number % 2 else sides[::-1]:
                runs[side].append(side.run(at_a_time, seconds, broker_pids))
        for side in sides:
            ratios = [own["calls_per_s"] / floor["calls_per_s"] for own, floor in zip(runs[sides[0]], runs[side])]
            ratio = "" if side is sides[0] else \
                f"  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"  {at_a_time:>9}  {side.name:<22} {middle(runs[side], 'calls_per_s'):>9.0f} "
                  f"{middle(runs[side], 'p50_us'):>8.0f} {middle(runs[side], 'p99_us'):>8.0f} "
                  f"{middle(runs[side], 'cpu_us'):>7.1f}"
                  + (f" {middle(runs[side], 'broker_us'):>9.1f}" if broker_pids else "") + ratio, flush=True)


def own_side(name, programs, url, log, protocol="jsonrpc"):
    """calc behind a URL, and rpcrew's own client."""
    return Side(name, [programs + "calc", "--listen", url],
                lambda n, s: [programs + "rpcrew", "bench", "--json", "-p", protocol, "-c", str(n), "-d", str(s), url, *CALL],
                "serving", log)


def bench_amqp(programs, rival, room, seconds, rounds):
    broker = Broker()
    sides = []
    try:
        broker.start()
        sides.append(own_side("rpcrew", programs, broker.url + "?queue=bench", os.path.join(room, "amqp")))
        if rival:
            sides.append(own_side(rival[1], rival[0], broker.url + "?queue=rival", os.path.join(room, "amqp-rival")))
        else:
            floor = ["127.0.0.1", str(broker.port), "bench-floor"]
            sides.append(Side("rabbitmq-c", [programs + "floor_amqp", "server", *floor],
                              lambda n, s: [programs + "floor_amqp", "client", *floor, str(n), str(s)],
                              "serving", os.path.join(room, "amqp-floor")))
        pids = list(broker.pids.values())
        compare("RabbitMQ", sides, seconds, rounds, pids + [child for pid in pids for child in children(pid)])
    finally:
        for side in sides:
            side.end()
        broker.close()


def bench_zmq(programs, rival, room, seconds, rounds):
    sides = []
    try:
        address = f"ipc://{room}/zmq"
        sides.append(own_side("rpcrew", programs, "zmq+" + address, os.path.join(room, "zmq-log")))
        if rival:
            sides.append(own_side(rival[1], rival[0], f"zmq+{address}-rival", os.path.join(room, "zmq-rival-log")))
        for mode, name in () if rival else (("server", "libzmq"), ("threads", "libzmq, 2 threads")):
            floor = f"{address}-{mode}"
            sides.append(Side(name, [programs + "floor_zmq", mode, floor],
                              lambda n, s, floor=floor: [programs + "floor_zmq", "client", floor, str(n), str(s)],
                              "serving", os.path.join(room, "zmq-" + mode + "-log")))
        compare("ZeroMQ", sides, seconds, rounds)
    finally:
        for side in sides:
            side.end()


def bench_streams(path, programs, rival, room, seconds, rounds):
    """JSON beside a bare epoll loop and, one at a time, bare sockets; MessagePack beside our ZeroMQ."""
    def address(name):
        return str(free_port()) if path == "tcp" else os.path.join(room, name)

    def url(where):
        return f"tcp://127.0.0.1:{where}" if path == "tcp" else f"unix://{where}"

    def floor(name, server, client):
        where = address(server)
        return Side(name, [programs + "floor_stream", server, where],
                    lambda n, s: [programs + "floor_stream", client, where, str(n), str(s)], "serving",
                    os.path.join(room, f"{path}-{server}"))

    sides = []
    try:
        sides.append(own_side("rpcrew", programs, url(address("own")), os.path.join(room, path)))
        if rival:
            sides.append(own_side(rival[1], rival[0], url(address("rival")), os.path.join(room, path + "-rival")))
        else:
            sides += [floor("epoll, jansson", "server", "client"), floor("ping-pong", "echo", "ping")]
        compare(f"{path}, JSON", sides, seconds, rounds)
        if rival:
            return
        zmq = f"zmq+tcp://127.0.0.1:{free_port()}" if path == "tcp" else f"zmq+ipc://{room}/zmq-beside"
        pair = [own_side("rpcrew", programs, url(address("msgpack")), os.path.join(room, path + "-mp"), "msgpack"),
                own_side("rpcrew, " + zmq.partition(":")[0], programs, zmq, os.path.join(room, path + "-zmq"), "msgpack")]
        sides += pair
        compare(f"{path}, MessagePack", pair, seconds, rounds)
    finally:
        for side in sides:
            side.end()


class Idle:
    """Connections that say nothing, beside those that are measured."""

    def __init__(self, port, count):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 200)), hard))
        self.connections = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(count)]

    def end(self):
        for connection in self.connections:
            connection.close()


def bench_http(programs, rival, room, seconds, rounds):
    """Workers under wrk, alone and beside idle connections; and our caller beside libcurl's, both to our worker."""
    def server(name, words, port, client):
        return Side(name, words, client, "serving", os.path.join(room, "http-" + port))

    def wrk(port):
        return lambda n, s: ["wrk", "-t", "1", "-c", str(n), "-d", f"{max(1, round(s))}s", "-s",
                             os.path.join(os.path.dirname(os.path.abspath(__file__)), "post.lua"), f"http://127.0.0.1:{port}/"]

    def ours(name, bin_, port, client):
        return server(name, [bin_ + "calc", "--listen", f"http://127.0.0.1:{port}/?idle_timeout_ms=86400000"], port, client)

    sides, idle = [], []
    try:
        port, other = map(str, free_ports(2))
        sides.append(ours("rpcrew", programs, port, wrk(port)))
        if rival:
            sides.append(ours(rival[1], rival[0], other, wrk(other)))
        else:
            sides.append(server("epoll, http_parser", [programs + "floor_http", "server", other], other, wrk(other)))
        compare("http, wrk calls", sides, seconds, rounds)
        idle += [Idle(port, 1000), Idle(other, 1000)]
        compare("http, wrk calls, beside 1,000 idle connections", sides, seconds, rounds, numbers=(1, 64))
        for one in idle:
            one.end()
        port = str(free_port())
        url = f"http://127.0.0.1:{port}/"
        pair = [ours("rpcrew", programs, port, lambda n, s: [programs + "rpcrew", "bench", "--json", "-c", str(n), "-d", str(s),
                                                              url + "?connections=1000", *CALL])]
        if rival:
            return
        sides += pair
        pair.append(Client("libcurl's multi", pair[0], lambda n, s: [programs + "floor_http", "client", url, str(n), str(s)]))
        compare("http, callers of our worker", pair, seconds, rounds)
    finally:
        for one in sides:
            one.end()


def bench_beside_tcp(scheme, programs, rival, room, seconds, rounds):
    own = ""
    if scheme == "tls":
        own = f"?certfile={room}/server.pem&keyfile={room}/server.key&cacertfile={room}/ca.pem"
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(["sh", os.path.join(here, "..", "tests", "support", "certificates.sh"), room], check=True)

    def side(name, bin_, scheme, more):
        return own_side(name, bin_, f"{scheme}://127.0.0.1:{free_port()}{more}", os.path.join(room, f"{scheme}-{len(sides)}"))

    sides = []
    try:
        sides.append(side("rpcrew", programs, scheme, own))
        sides.append(side(rival[1], rival[0], scheme, own) if rival else side("rpcrew, tcp", programs, "tcp", ""))
        compare(f"{scheme}, JSON", sides, seconds, rounds)
    finally:
        for one in sides:
            one.end()


def main(words):
    rival = None
    if words[0] == "--against":
        rival = os.path.join(words[1], ""), words[2][:20]
        words = words[3:]
    programs = os.path.join(words[0], "")
    seconds, rounds = float(words[1]) if len(words) > 1 else 1, int(words[2]) if len(words) > 2 else 5
    paths = words[3].split(",") if len(words) > 3 else ["amqp", "zmq", "tcp", "unix", "tls", "http", "ws"]
    room = tempfile.mkdtemp(prefix="rpcrew-bench-")
    exit_on_signals()
    try:
        for path in paths:
            {"amqp": bench_amqp, "zmq": bench_zmq, "http": bench_http, "ws": partial(bench_beside_tcp, "ws"), "tls": partial(bench_beside_tcp, "tls"), "tcp": partial(bench_streams, "tcp"),
             "unix": partial(bench_streams, "unix")}[path](programs, rival, room, seconds, rounds)
    finally:
        shutil.rmtree(room, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
