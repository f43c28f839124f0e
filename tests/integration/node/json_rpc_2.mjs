// json-rpc-2.0, which leaves the transport to others: fetch and http, ws both ways.
// usage: json_rpc_2.mjs http|ws client|server PORT
import http from "node:http";
import { JSONRPCClient, JSONRPCServer } from "json-rpc-2.0";
import { WebSocket, WebSocketServer } from "ws";
import { check, requests } from "./service.mjs";

const [kind, mode, text] = process.argv.slice(2);
const port = Number(text), host = "127.0.0.1";

if (mode === "client") {
  let client, socket;
  if (kind === "http") {
    client = new JSONRPCClient(async (request) => {
      const response = await fetch(`http://${host}:${port}/`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request) });
      if (response.status !== 200) throw new Error(response.statusText);
      client.receive(await response.json());
    });
  } else {
    socket = new WebSocket(`ws://${host}:${port}/`);
    await new Promise((opened) => socket.on("open", opened));
    client = new JSONRPCClient(async (request) => socket.send(JSON.stringify(request)));
    socket.on("message", (data) => client.receive(JSON.parse(data.toString())));
  }
  check(await Promise.all(requests(200).map(async ({ id, method, params }) => {
    try {
      return { id, result: await client.request(method, params) };
    } catch (error) {
      return { id, error };
    }
  })));
  socket?.close();
} else {
  const server = new JSONRPCServer();
  server.addMethod("add", ([a, b]) => a + b);
  server.addMethod("echo", (params) => (params.length === 1 ? params[0] : params));
  if (kind === "http") {
    http.createServer(async (request, response) => {
      let body = "";
      for await (const part of request) body += part;
      const reply = await server.receive(JSON.parse(body));
      response.writeHead(reply ? 200 : 204, { "content-type": "application/json" });
      response.end(reply ? JSON.stringify(reply) : undefined);
    }).listen(port, host, () => console.log("serving"));
  } else {
    const sockets = new WebSocketServer({ host, port });
    sockets.on("connection", (socket) => socket.on("message", async (data) => {
      const reply = await server.receive(JSON.parse(data.toString()));
      if (reply) socket.send(JSON.stringify(reply));
    }));
    sockets.on("listening", () => console.log("serving"));
  }
}
