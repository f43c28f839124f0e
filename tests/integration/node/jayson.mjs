// jayson over TCP, whose messages are lines. usage: jayson.mjs client|server PORT
import jayson from "jayson/promise/index.js";
import { check, requests } from "./service.mjs";

const [mode, port] = process.argv.slice(2);

if (mode === "client") {
  const client = jayson.Client.tcp({ port: Number(port), host: "127.0.0.1" });
  check(await Promise.all(requests(200).map(({ id, method, params }) => client.request(method, params, id))));
} else {
  const server = new jayson.Server({
    add: async ([a, b]) => a + b,
    echo: async (params) => (params.length === 1 ? params[0] : params),
  });
  server.tcp().listen(Number(port), "127.0.0.1", () => console.log("serving"));
}
