"""What one peer of a ZeroMQ worker can do to another, and to the memory: figures beside their bounds (docs/limits.md).

usage: peers.py BIN    where the programs are. Loopback and unix sockets only; half a minute.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import zmq

PATIENCE_MS = 60000


def request(method, params, ident=1):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": ident}).encode()


class Worker:
    """The conformance worker on a socket of its own, and what it holds."""

    def __init__(self, programs, room, query=""):
        self.address = f"ipc://{room}/{time.monotonic_ns()}"
        self.process = subprocess.Popen([os.path.join(programs, "conformance"), "--listen", f"zmq+{self.address}{query}"],
                                        stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "serving" in line:
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.context = zmq.Context()
        self.before = self.memory()

    def memory(self, name="VmRSS"):
        """MB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

    def peer(self, kind=zmq.DEALER, **options):
        peer = self.context.socket(kind)
        peer.linger = 0
        for name, value in options.items():
            setattr(peer, name, value)
        peer.connect(self.address)
        return peer

    def ask(self, method, params, peer=None):
        """Seconds until the answer to a new peer's request, or to this one's."""
        peer = peer or self.peer(zmq.REQ)
        began = time.monotonic()
        peer.send(request(method, params))
        if not peer.poll(PATIENCE_MS):
            raise SystemExit(f"{method} was not answered; the worker's status: {self.process.poll()}")
        peer.recv()
        return time.monotonic() - began

    def end(self):
        self.context.destroy(linger=0)
        self.process.kill()
        self.process.wait()


def report(what, figure, unit, bound):
    print(f"  {what:<74} {figure:9.3f} {unit:<3}  bound {bound:g}", flush=True)


def report_memory(worker, what, bound):
    """The peak, and what is left once the others have gone."""
    report(what + ": peak", worker.memory("VmHWM"), "MB", bound)
    worker.context.destroy(linger=0)
    worker.context = zmq.Context()
    worker.ask("add", [1, 2])  # by then all that they sent is through
    time.sleep(6)
    report("  and when it has been quiet for a while", worker.memory(), "MB", 1.5 * worker.before + 16)


def batches(programs, room):
    worker = Worker(programs, room)
    greedy = worker.peer()
    batch = json.dumps([{"jsonrpc": "2.0", "method": "sleep_ms", "params": [5], "id": i} for i in range(1000)]).encode()
    for _ in range(64):
        greedy.send_multipart([b"", batch])
    time.sleep(0.5)
    report("64 batches of 1,000 calls of 5 ms; another peer's rpc.ping, worst of 20",
           max(worker.ask("rpc.ping", []) for _ in range(20)), "s", 0.1)
    report("  and its add, worst of 20", max(worker.ask("add", [1, 2]) for _ in range(20)), "s", 0.105)
    worker.end()


def slow_readers(programs, room):
    worker = Worker(programs, room)
    polite = worker.peer(zmq.REQ)
    alone = statistics.median(worker.ask("add", [1, 2], polite) for _ in range(1000))
    stop = threading.Event()

    def read_slowly():
        peer = worker.peer(rcvhwm=1, sndhwm=1000)
        while not stop.is_set():
            try:
                for _ in range(20):
                    peer.send_multipart([b"", request("blob", [20000])], zmq.NOBLOCK)
            except zmq.Again:
                pass
            if peer.poll(20):
                peer.recv_multipart()
            time.sleep(0.02)
        peer.close(0)
    threads = [threading.Thread(target=read_slowly) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    beside = statistics.median(worker.ask("add", [1, 2], polite) for _ in range(1000))
    stop.set()
    for thread in threads:
        thread.join()
    report(f"8 peers that read slowly; another's median, as a multiple of {alone * 1e6:.0f} us alone", beside / alone, "x", 2)
    worker.end()


def never_read(programs, room):
    worker = Worker(programs, room)
    peers = [worker.peer(rcvhwm=1, sndhwm=10000) for _ in range(20)]
    for _ in range(1000):
        for peer in peers:
            try:
                peer.send_multipart([b"", request("blob", [20000])], zmq.NOBLOCK)
            except zmq.Again:
                pass
    time.sleep(3)
    report_memory(worker, "20 peers that never read answers of 20 KB", 100)
    worker.end()


def large_requests(programs, room):
    worker = Worker(programs, room, "?in_flight=1&max_bytes=1048576")
    busy, flood = worker.peer(), worker.peer(sndhwm=1)
    busy.send_multipart([b"", request("sleep_ms", [6000])])
    time.sleep(0.3)
    body = b"x" * 4000000
    end = time.monotonic() + 4
    for _ in range(300):
        while time.monotonic() < end:
            try:
                flood.send_multipart([b"", body], zmq.NOBLOCK, copy=False)
                break
            except zmq.Again:
                time.sleep(0.001)
    report_memory(worker, "300 messages of 4 MB for a busy worker with in_flight=1", 100)
    worker.end()


def large_texts(programs, room):
    for item in b"{},", b"0,", b'{"":0},':
        worker = Worker(programs, room)
        peer = worker.peer(zmq.REQ)
        text = b'{"jsonrpc":"2.0","id":1,"method":"add","params":[' + item * ((15 << 20) // len(item)) + b"0]}"
        peer.send(text, copy=False)
        peer.poll(PATIENCE_MS)
        peer.recv()
        report_memory(worker, f"one message of 15 MiB of {item.decode()}", 18 * 15 + worker.before)
        worker.end()


def flooded_caller(programs, room):
    for size in 40, 100000:
        context = zmq.Context()
        evil = context.socket(zmq.ROUTER)
        evil.linger = 0
        address = f"ipc://{room}/evil{size}"
        evil.bind(address)
        began = time.monotonic()
        caller = subprocess.Popen([os.path.join(programs, "rpcrew"), "call", "-t", "0.5", "zmq+" + address, "add", "1", "2"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        caller_id = evil.recv_multipart()[0]
        stray = b'{"jsonrpc":"2.0","result":1,"id":77777}' + b" " * (size - 40)
        peak = 0
        while caller.poll() is None and time.monotonic() - began < 10:
            for _ in range(200):
                try:
                    evil.send_multipart([caller_id, b"", stray], zmq.NOBLOCK, copy=False)
                except zmq.ZMQError:
                    break
            try:
                with open(f"/proc/{caller.pid}/status", encoding="ascii") as status:
                    peak = max([peak] + [int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")])
            except OSError:
                pass
        caller.wait()
        report(f"a worker that floods its caller with answers of {size} bytes: the call of 0.5 s ends after",
               time.monotonic() - began, "s", 0.7)
        report("  and its peak", peak, "MB", 100)
        context.destroy(linger=0)


def main(words):
    print("What one peer can do to others (ZeroMQ), beside the bounds of docs/limits.md")
    with tempfile.TemporaryDirectory(prefix="rpcrew-peers-") as room:
        for attack in batches, slow_readers, never_read, large_requests, large_texts, flooded_caller:
            attack(words[0], room)


if __name__ == "__main__":
    main(sys.argv[1:])
