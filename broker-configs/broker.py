"""A private RabbitMQ broker: Debian's rabbitmq-server on free ports of 127.0.0.1, all it writes in a temporary
directory, with the configuration of this folder.

usage: broker.py                 runs one until SIGINT or SIGTERM; prints its URL
       broker.py --detach FILE   starts one and writes to FILE what --stop needs; the first line is its URL
       broker.py --stop FILE
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = "/usr/lib/rabbitmq/bin"  # the wrapper in sbin refuses ordinary users
PATIENCE = 90


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end(pid, number=signal.SIGTERM):
    """Ends a process that is ours, and waits until it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


class Broker:
    """Not started yet. stop() and start() again keep its data, ports and URL."""

    def __init__(self):
        self.room = tempfile.mkdtemp(prefix="rpcrew-broker-")
        self.port, distribution, self.epmd_port = free_ports(3)
        self.url = f"amqp://rpcrew:rpcrew@127.0.0.1:{self.port}/"
        self.node = f"rpcrew-{self.port}@localhost"
        self.pids = {}
        self.log = os.path.join(self.room, "log")
        shutil.copy(os.path.join(HERE, "rabbitmq.conf"), os.path.join(self.room, "rabbitmq.conf"))
        with open(os.path.join(self.room, "enabled_plugins"), "w", encoding="ascii") as plugins:
            plugins.write("[].\n")
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": self.room, "LANG": "C.UTF-8",
            "RPCREW_DEFINITIONS": os.path.join(HERE, "definitions.json"),
            "RABBITMQ_NODENAME": self.node, "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": os.path.join(self.room, "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.room, "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": os.path.join(self.room, "mnesia"),
            "RABBITMQ_LOG_BASE": self.room, "RABBITMQ_LOGS": "-", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def spawn(self, name, *command):
        with open(self.log, "ab") as log:
            self.pids[name] = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                               stderr=log, start_new_session=True).pid

    def start(self):
        if "epmd" not in self.pids:  # our own, or the node would leave one behind
            self.spawn("epmd", "/usr/bin/epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1")
        self.spawn("server", os.path.join(PROGRAMS, "rabbitmq-server"))
        limit = time.monotonic() + PATIENCE
        while not self.speaks_amqp():
            if time.monotonic() > limit:
                self.close()
                raise RuntimeError("the broker did not start")
            time.sleep(0.05)
        return self

    def speaks_amqp(self):
        """Whether a connection gets an AMQP method frame for its protocol header."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def ctl(self, *words):
        """rabbitmqctl; returns what it prints."""
        return subprocess.run([os.path.join(PROGRAMS, "rabbitmqctl"), "--quiet", "--node", self.node, *words],
                              env=self.environment, capture_output=True, text=True, timeout=60, check=True).stdout

    def stop(self, number=signal.SIGTERM):
        if "server" in self.pids:
            end(self.pids.pop("server"), number)

    def close(self):
        self.stop()
        if "epmd" in self.pids:
            end(self.pids.pop("epmd"))
        shutil.rmtree(self.room, ignore_errors=True)


def main(words):
    if words[:1] == ["--stop"]:
        with open(words[1], encoding="utf-8") as file:
            _, state = file.read().split("\n", 1)
        state = json.loads(state)
        for name in "server", "epmd":
            end(state["pids"][name])
        shutil.rmtree(state["room"], ignore_errors=True)
        os.remove(words[1])
        return 0
    broker = Broker()

    def leave(*_):
        for number in signal.SIGINT, signal.SIGTERM:  # a second one must not cut the tidying up short
            signal.signal(number, signal.SIG_IGN)
        sys.exit(0)
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, leave)
    try:
        broker.start()
        print(broker.url, flush=True)
        if words[:1] == ["--detach"]:
            with open(words[1], "w", encoding="utf-8") as file:
                file.write(broker.url + "\n" + json.dumps({"pids": broker.pids, "room": broker.room}))
            broker = None
            return 0
        signal.pause()
    finally:
        if broker:
            broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
