"""Ports of 127.0.0.1 that nobody uses, and that nobody is given before they are listened on: outside of those that the
kernel hands out to whoever connects or asks for any.

usage: free_ports.py N    prints so many
"""
import random
import socket
import sys

LOWEST = 10000  # below are those of well-known services


def free_ports(count):
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, last = map(int, file.read().split())
    others = [port for port in range(LOWEST, 65536) if not first <= port <= last]
    ports = []
    for port in random.sample(others, len(others)) if len(others) > 1000 else [0] * count:
        if len(ports) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(probe.getsockname()[1])
    return ports


def free_port():
    return free_ports(1)[0]


if __name__ == "__main__":
    print(*free_ports(int(sys.argv[1])))
