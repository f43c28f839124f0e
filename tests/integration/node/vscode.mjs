// vscode-jsonrpc, as editors speak: Content-Length headers, over a program's standard input and output or a socket.
// usage: vscode.mjs client PROGRAM ARG... | vscode.mjs server | vscode.mjs socket PATH
import { spawn } from "node:child_process";
import net from "node:net";
import rpc from "vscode-jsonrpc/node.js";
import { check, requests } from "./service.mjs";

const [mode, ...words] = process.argv.slice(2);

async function call(reader, writer) {
  const connection = rpc.createMessageConnection(new rpc.StreamMessageReader(reader), new rpc.StreamMessageWriter(writer));
  connection.listen();
  const replies = await Promise.all(requests(200).map(({ id, method, params }) =>
    connection.sendRequest(method, ...params).then((result) => ({ id, result }), (error) => ({ id, error }))));
  check(replies);
  connection.end();
}

if (mode === "client") {
  const child = spawn(words[0], words.slice(1), { stdio: ["pipe", "pipe", "ignore"] });
  await call(child.stdout, child.stdin);
  child.stdin.end();
} else if (mode === "socket") {
  const socket = net.connect(words[0]);
  await call(socket, socket);
  socket.end();
} else {
  const connection = rpc.createMessageConnection(process.stdin, process.stdout);
  connection.onRequest("add", (a, b) => a + b);
  connection.onRequest("echo", (...params) => (params.length === 2 ? params[0] : params.slice(0, -1))); // a token is last
  connection.listen();
}
