"""A client of calc in plain Python over TCP, a message a line: nothing of rpcrew. usage: line_client.py HOST:PORT"""
import json
import socket
import sys

host, _, port = sys.argv[1].rpartition(":")
with socket.create_connection((host, int(port)), 10) as connection, connection.makefile("rw") as lines:
    for i in range(1000):
        lines.write(json.dumps({"jsonrpc": "2.0", "method": "subtract", "params": [i, 1], "id": i}) + "\n")
    lines.flush()
    replies = [json.loads(lines.readline()) for _ in range(1000)]  # in whatever order they are done
assert sorted(reply["id"] for reply in replies) == list(range(1000))
assert all(reply["result"] == reply["id"] - 1 for reply in replies)
print("1000 calls, all right")
