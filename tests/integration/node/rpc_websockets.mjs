// rpc-websockets, client and server. usage: rpc_websockets.mjs client|server PORT
import { Client, Server } from "rpc-websockets";
import { check, requests } from "./service.mjs";

const [mode, text] = process.argv.slice(2);
const port = Number(text), host = "127.0.0.1";

if (mode === "client") {
  const client = new Client(`ws://${host}:${port}`);
  await new Promise((opened) => client.on("open", opened));
  check(await Promise.all(requests(200).map(async ({ id, method, params }) => {
    try {
      return { id, result: await client.call(method, params) };
    } catch (error) {
      return { id, error };
    }
  })));
  client.close();
} else {
  const server = new Server({ port, host });
  server.register("add", ([a, b]) => a + b);
  server.register("echo", (params) => (params.length === 1 ? params[0] : params));
  server.on("listening", () => console.log("serving"));
}
