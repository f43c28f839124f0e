"""The main job on real input: every file of a tree digested by three workers behind a private RabbitMQ, one of
which is killed and one told to stop on the way.

usage: digest_tree.py BIN [TREE]     BIN: where digest and rpcrew are; exits 0 only if all of it went well
"""
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "broker-configs"))
from broker import Broker, exit_on_signals  # noqa: E402

FILES_MOST, BYTES_MOST = 1000, 256 << 10


def say(text):
    print("dev: " + text, flush=True)


def check(good, text):
    if not good:
        raise SystemExit("dev: that is wrong: " + text)


def files_of(tree):
    """Regular files, up to a number and a size, in order of their names."""
    found = []
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) <= BYTES_MOST:
                found.append(path)
    step = max(1, len(found) // FILES_MOST)
    return found[::step][:FILES_MOST]


def write_requests(paths, name):
    with open(name, "w", encoding="utf-8") as requests:
        for number, path in enumerate(paths):
            with open(path, "rb") as file:
                data = base64.b64encode(file.read()).decode()
            request = {"id": number, "method": "digest", "params": {"algorithm": "sha256", "data": data}}
            requests.write(json.dumps(request) + "\n")


def sha256sum(paths):
    """What coreutils say."""
    printed = subprocess.run(["xargs", "-0", "sha256sum", "--zero"], input="\0".join(paths), capture_output=True,
                             text=True, check=True).stdout
    return [line.split("  ", 1)[0].lstrip("\\") for line in printed.rstrip("\0").split("\0")]


class Workers:
    def __init__(self, program, url, room):
        self.processes, self.logs = [], []
        for number in range(3):
            self.logs.append(os.path.join(room, f"worker-{number}"))
            with open(self.logs[-1], "ab") as log:
                self.processes.append(subprocess.Popen([program, "--listen", url], stderr=log,
                                                       stdin=subprocess.DEVNULL))

    def await_serving(self):
        end = time.monotonic() + 30
        while not all("serving" in self.log(number) for number in range(3)):
            check(time.monotonic() < end and all(each.poll() is None for each in self.processes),
                  "the workers did not start:\n" + self.log(0))
            time.sleep(0.01)

    def log(self, number):
        with open(self.logs[number], encoding="utf-8") as log:
            return log.read()

    def redelivered(self):
        """Requests that one of them had before another; the drained ones tell it with their last words."""
        return sum(int(number) for worker in range(3) for number in re.findall(r"redelivered=(\d+)", self.log(worker)))

    def end(self):
        for each in self.processes:
            if each.poll() is None:
                each.kill()
            each.wait()


def run_batch(command, workers, total):
    """Reads the answers as they come; kills the first worker after a third of them, stops the second after two."""
    answers = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as batch:
        for line in batch.stdout:
            answers.append(json.loads(line))
            for number, how in (0, signal.SIGKILL), (1, signal.SIGTERM):
                if len(answers) == (number + 1) * total // 3:
                    workers.processes[number].send_signal(how)
    return answers, batch.returncode


def print_table(workers, answers, summary):
    endings = "killed (SIGKILL)", "drained (SIGTERM)", "drained at the end"
    done_by = [answer.get("result", {}).get("worker") for answer in answers]
    print(f"\n  {'worker':>8}  {'calls':>6}  end")
    for worker, ending in zip(workers.processes, endings):
        print(f"  {worker.pid:>8}  {done_by.count(worker.pid):>6}  {ending}")
    print(f"\n  {summary['calls']} calls, {summary['calls_per_s']:.0f} calls/s, "
          f"p50 {summary['p50_us'] / 1000:.1f} ms, p99 {summary['p99_us'] / 1000:.1f} ms, "
          f"{workers.redelivered() + summary['resent'] + summary['retried']} retries (requests that a second worker "
          f"got, or that were sent again), {summary['errors']} errors\n")
    return [done_by.count(worker.pid) for worker in workers.processes]


def run(programs, tree, room, broker):
    url = f"{broker.url}?queue=digest&prefetch=16"
    paths = files_of(tree)
    check(len(paths) >= 100, f"{tree} has no 100 files")
    requests, figures = os.path.join(room, "requests"), os.path.join(room, "figures")
    write_requests(paths, requests)
    workers = Workers(os.path.join(programs, "digest"), url, room)
    try:
        workers.await_serving()
        say(f"{len(paths)} files of {tree} through the queue, to three workers; after a third of them one is killed, "
            "after two thirds one is told to stop")
        answers, code = run_batch([os.path.join(programs, "rpcrew"), "batch", url, requests, "--idempotent",
                                   "--summary", figures], workers, len(paths))
        workers.processes[2].send_signal(signal.SIGTERM)
        endings = [each.wait(30) for each in workers.processes]
    finally:
        workers.end()
    with open(figures, encoding="utf-8") as file:
        counts = print_table(workers, answers, json.load(file))
    check(code == 0, f"rpcrew batch ended with {code}")
    check(endings == [-signal.SIGKILL, 0, 0], f"the workers ended with {endings}:\n{workers.log(1)}{workers.log(2)}")
    check([answer["id"] for answer in answers] == list(range(len(paths))), "answers are missing")
    check(sum(counts) == len(paths) and all(counts), f"the workers' calls are {counts}")
    check([answer["result"]["digest"] for answer in answers] == sha256sum(paths), "a digest is another one")
    say(f"all {len(paths)} digests came, and equal those of sha256sum")


def main(words):
    programs, tree = words[0], words[1] if len(words) > 1 else "/usr/include"
    room = tempfile.mkdtemp(prefix="rpcrew-demo-")
    exit_on_signals()
    say("starting a private RabbitMQ")
    broker = Broker()
    pids = []
    try:
        broker.start()
        pids = list(broker.pids.values())
        run(programs, tree, room, broker)
    finally:
        broker.close()
        shutil.rmtree(room, ignore_errors=True)
    check(not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the broker is still there")


if __name__ == "__main__":
    main(sys.argv[1:])
