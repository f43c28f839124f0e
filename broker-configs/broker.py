"""A private RabbitMQ broker: Debian's rabbitmq-server on free ports of 127.0.0.1, all it writes in a temporary
directory, with the configuration of this folder.

usage: broker.py                 runs one until SIGINT or SIGTERM; prints its URLs: plain, and with TLS
       broker.py --detach FILE   starts one and writes to FILE its URLs, a line each, and then what --stop needs
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

from free_ports import free_ports

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = "/usr/lib/rabbitmq/bin"  # the wrapper in sbin refuses ordinary users
PATIENCE = 90


def lives(group):
    """Whether a process group has members other than zombies."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                state, _, its_group = stat.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def environment_of(pid):
    try:
        with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as environment:
            return environment.read()
    except OSError:
        return ""


def exit_on_signals():
    """SIGINT and SIGTERM raise SystemExit, once, so that what was started is ended; a second one does not cut that
    short."""
    told = []

    def leave(*_):
        if not told:
            told.append(True)
            sys.exit(0)
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, leave)


def end(group, number=signal.SIGTERM):
    """Ends what spawn() started, and waits until it is gone: rabbitmq-server is a shell around Erlang."""
    try:
        os.kill(group, number)
    except ProcessLookupError:
        return
    limit = time.monotonic() + 30
    while lives(group) and time.monotonic() < limit:
        time.sleep(0.02)
    while lives(group):
        os.killpg(group, signal.SIGKILL)
        time.sleep(0.02)
    try:
        os.waitpid(group, os.WNOHANG)
    except ChildProcessError:
        pass


def remove(room):
    """Once nobody is left who might write there: helpers of Erlang's outlive it for a moment."""
    limit = time.monotonic() + 10
    absent = 0  # looks in a row; one that was just ending may make it anew
    while absent < 3 and time.monotonic() < limit:
        if not any(room in environment_of(pid) for pid in os.listdir("/proc") if pid.isdigit()):
            shutil.rmtree(room, ignore_errors=True)
        absent = 0 if os.path.exists(room) else absent + 1
        time.sleep(0.02)
    shutil.rmtree(room, ignore_errors=True)


def rabbitmqctl(environment, node, *words):
    """Returns what it prints."""
    return subprocess.run([os.path.join(PROGRAMS, "rabbitmqctl"), "--quiet", "--node", node, *words],
                          env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


class Broker:
    """Not started yet. stop() and start() again keep its data, ports and URL."""

    def __init__(self, plugins=()):
        self.room = tempfile.mkdtemp(prefix="rpcrew-broker-")
        self.port, self.tls_port, distribution, self.epmd_port, self.mqtt_port = free_ports(5)
        self.url = f"amqp://rpcrew:rpcrew@127.0.0.1:{self.port}/"
        certificate = os.path.join(self.room, "certificate.pem")
        self.tls_url = f"amqps://rpcrew:rpcrew@localhost:{self.tls_port}/?cacertfile={certificate}"
        self.node = f"rpcrew-{self.port}@localhost"
        self.pids = {}
        self.log = os.path.join(self.room, "log")
        self.configure(certificate, os.path.join(self.room, "key.pem"), "rabbitmq_mqtt" in plugins)
        with open(os.path.join(self.room, "enabled_plugins"), "w", encoding="ascii") as enabled:
            enabled.write(f"[{','.join(plugins)}].\n")
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

    def configure(self, certificate, key, mqtt):
        """The shared configuration, and TLS with a certificate that signs itself."""
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", key, "-out", certificate], capture_output=True, check=True)
        with open(os.path.join(HERE, "rabbitmq.conf"), encoding="utf-8") as shared, \
             open(os.path.join(self.room, "rabbitmq.conf"), "w", encoding="utf-8") as own:
            own.write(shared.read() + f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n"
                      f"ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n")
            if mqtt:
                own.write(f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.mqtt_port}\n")

    def spawn(self, name, *command):
        with open(self.log, "ab") as log:
            self.pids[name] = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                               stderr=log, start_new_session=True).pid

    def start(self):
        if "epmd" not in self.pids:  # our own, or the node would leave one behind
            self.spawn("epmd", "/usr/bin/epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1")
            limit = time.monotonic() + PATIENCE
            while not self.answers(self.epmd_port) and time.monotonic() < limit:  # else the node starts one itself
                time.sleep(0.01)
        before = self.boots()
        self.spawn("server", os.path.join(PROGRAMS, "rabbitmq-server"))
        limit = time.monotonic() + PATIENCE
        while self.boots() == before or not self.speaks_amqp():
            if time.monotonic() > limit or not lives(self.pids["server"]):
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    said = log.read()[-3000:]
                self.close()
                raise RuntimeError("the broker did not start:\n" + said)
            time.sleep(0.05)
        return self

    def boots(self):
        """How many times it has come up, all of it: one that is told to stop before that may hang."""
        if not os.path.exists(self.log):
            return 0
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read().count(" completed with ")

    @staticmethod
    def answers(port):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def speaks_amqp(self):
        """Whether a connection gets an AMQP method frame for its protocol header."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def ctl(self, *words):
        return rabbitmqctl(self.environment, self.node, *words)

    def stop(self, number=signal.SIGTERM):
        if "server" in self.pids:
            end(self.pids.pop("server"), number)

    def close(self):
        self.stop()
        if "epmd" in self.pids:
            end(self.pids.pop("epmd"))
        remove(self.room)


def main(words):
    if words[:1] == ["--stop"]:
        with open(words[1], encoding="utf-8") as file:
            state = json.loads(file.read().split("\n", 2)[2])
        for pid in state["pids"]["server"], state["pids"]["epmd"]:
            if state["room"] in environment_of(pid):  # else it has gone, and the number is somebody else's
                end(pid)
        remove(state["room"])
        os.remove(words[1])
        return 0
    broker = Broker()
    exit_on_signals()
    try:
        broker.start()
        print(broker.url, broker.tls_url, sep="\n", flush=True)
        if words[:1] == ["--detach"]:
            with open(words[1], "w", encoding="utf-8") as file:
                file.write(f"{broker.url}\n{broker.tls_url}\n" + json.dumps({
                    "pids": broker.pids, "room": broker.room, "node": broker.node, "environment": broker.environment}))
            broker = None
            return 0
        signals = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # from here on they wait for us, also those that are early
        signal.sigwait(signals)
    finally:
        if broker:
            broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
