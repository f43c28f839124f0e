"""A client in plain Python: JSON-RPC over a ZeroMQ REQ socket.  usage: req_client.py ADDRESS"""
import json
import sys

import zmq

socket = zmq.Context().socket(zmq.REQ)
socket.connect(sys.argv[1])
for i in range(1000):
    socket.send_json({"jsonrpc": "2.0", "method": "subtract", "params": [i, 1], "id": i})
    reply = json.loads(socket.recv())
    if reply != {"jsonrpc": "2.0", "result": i - 1, "id": i}:
        sys.exit(f"wrong: {reply}")
print("1000 calls, all right")
