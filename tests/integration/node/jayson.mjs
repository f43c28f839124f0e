// jayson over TCP, whose messages are lines, HTTP and WebSocket.
// usage: jayson.mjs tcp|http|websocket client|server PORT
import jayson from "jayson/promise/index.js";
import { check, requests } from "./service.mjs";

const [kind, mode, text] = process.argv.slice(2);
const port = Number(text), host = "127.0.0.1";

if (mode === "client") {
  const client = kind === "websocket" ? jayson.Client.websocket({ url: `ws://${host}:${port}/` }) : jayson.Client[kind]({ port, host });
  if (kind === "websocket") await new Promise((opened) => client.ws.on("open", opened));
  check(await Promise.all(requests(200).map(({ id, method, params }) => client.request(method, params, id))));
  if (kind === "websocket") client.ws.close();
} else {
  const server = new jayson.Server({
    add: async ([a, b]) => a + b,
    echo: async (params) => (params.length === 1 ? params[0] : params),
  });
  if (kind === "websocket")
    server.websocket({ host, port }).on("listening", () => console.log("serving"));
  else
    server[kind]().listen(port, host, () => console.log("serving"));
}
