"""A client of calc over WebSocket, by Debian's python3-websocket: nothing of rpcrew. usage: ws_client.py URL"""
import json
import sys

import websocket

connection = websocket.create_connection(sys.argv[1], timeout=10)
for i in range(1000):
    connection.send(json.dumps({"jsonrpc": "2.0", "method": "subtract", "params": [i, 1], "id": i}))
replies = [json.loads(connection.recv()) for _ in range(1000)]  # in whatever order they are done
connection.close()
assert sorted(reply["id"] for reply in replies) == list(range(1000))
assert all(reply["result"] == reply["id"] - 1 for reply in replies)
print("1000 calls, all right")
