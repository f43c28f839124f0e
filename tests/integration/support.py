"""What the integration tests share: our programs, started and ended by pid, and their answers."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "broker-configs"))
from free_ports import free_port  # noqa: E402,F401  for the tests

BIN = os.environ["RPCREW_BIN"]
PATIENCE = 20  # seconds, for anything to happen


def program(name):
    return os.path.join(BIN, name)


def eventually(what, patience=PATIENCE):
    """Waits until what() is true; returns it."""
    end = time.monotonic() + patience
    while not (got := what()):
        if time.monotonic() > end:
            raise AssertionError(f"in vain: {what}")
        time.sleep(0.01)
    return got


class Worker:
    """A worker process. Ready when its log says 'serving'."""

    def __init__(self, name, *flags, env=None, wait=True):
        self.log = tempfile.NamedTemporaryFile()
        with open(self.log.name, "ab") as appended:  # a file position of its own: text() must not move it
            self.process = subprocess.Popen([program(name), *flags], stderr=appended, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})})
        if not wait:
            return
        try:
            eventually(lambda: self.said("serving") or self.process.poll() is not None)
        except AssertionError as error:
            self.stop(signal.SIGKILL)
            raise AssertionError(self.text()) from error
        assert self.process.poll() is None, self.text()

    def text(self):
        with open(self.log.name, encoding="utf-8") as log:
            return log.read()

    def said(self, words):
        return words in self.text()

    def stop(self, number=signal.SIGTERM):
        """Sends a signal; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class Done:
    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr


def rpcrew(*words, stdin=None, env=None):
    """Runs the command line to its end."""
    return Done(subprocess.run([program("rpcrew"), *words], input=stdin, capture_output=True, text=True,
                               timeout=60, env={**os.environ, **(env or {})}, check=False))


def request(method, params=None, ident=1):
    message = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    if ident is not None:
        message["id"] = ident
    return json.dumps(message).encode()


class Case(unittest.TestCase):
    """A test with a directory of its own, and workers that are ended after it."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="rpcrew-")
        self.addCleanup(shutil.rmtree, self.directory, True)

    def worker(self, name, *flags, **more):
        worker = Worker(name, *flags, **more)
        self.addCleanup(worker.log.close)
        self.addCleanup(worker.stop, signal.SIGKILL)
        return worker

    def socket_path(self, name="socket"):
        return os.path.join(self.directory, name)


def main():
    result = unittest.main(exit=False, verbosity=2, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed", flush=True)
    sys.exit(1 if bad or result.skipped or not result.testsRun else 0)
