// MessagePack-RPC clients, which know streams only: each is given one whose other end is a ZeroMQ socket here, and
// the bytes go through as they are. usage: msgpack.mjs lite|neovim ADDRESS
import assert from "node:assert/strict";
import net from "node:net";
import lite from "msgpack-rpc-lite";
import { Transport } from "neovim/lib/utils/transport.js";
import * as zmq from "zeromq";
import { check, requests } from "./service.mjs";

const [kind, address] = process.argv.slice(2);
const dealer = new zmq.Dealer();
dealer.connect(address);

/** Resolves to a port: what comes there is sent to the worker, what the worker answers goes back. */
function bridge() {
  return new Promise((resolve) => {
    const server = net.createServer(async (socket) => {
      server.close();
      socket.on("data", (bytes) => dealer.send(["", bytes]).catch(() => {}));
      socket.on("close", () => dealer.close());
      for await (const frames of dealer) socket.write(frames.at(-1));
    });
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
}

/** A client's call and notify as functions of the same shape, and how to end it. */
async function connect() {
  const port = await bridge();
  if (kind === "lite") {
    const client = lite.createClient(port, "127.0.0.1");
    const call = async (method, ...params) => (await client.request(method, ...params))[0];
    return [call, (method, ...params) => client.notify(method, ...params), () => client.close()];
  }
  const socket = net.connect(port, "127.0.0.1");
  const transport = new Transport();
  transport.attach(socket, socket, {});
  const call = (method, ...params) =>
    new Promise((resolve, reject) =>
      transport.request(method, params, (error, result) => (error ? reject(error) : resolve(result))));
  return [call, (method, ...params) => transport.notify(method, params), () => socket.end()];
}

const [call, notify, end] = await connect();
const failure = (promise) => promise.then(() => assert.fail("it did not fail"), (error) => error);

assert.deepEqual(await call("get_data"), ["hello", 5]);
assert.equal(await call("subtract", 42, 23), 19);
const values = [null, true, -5, 1.5, "text", [1, [2]], { k: "v" }, 2 ** 31, -(2 ** 31)];
assert.deepEqual(await call("echo", ...values), values);
assert.deepEqual(Buffer.from(await call("echo", Buffer.from([0, 255, 128]))), Buffer.from([0, 255, 128]));
assert.deepEqual(await failure(call("nope")), [-32601, "Method not found"]);
assert.deepEqual(await failure(call("fail", 7, "no")), [7, "no"]);
const before = await call("count");
await notify("update", 1, 2);
while ((await call("count")) === before);
assert.equal(await call("count"), before + 1);
const replies = requests(200).map(({ id, method, params }) =>
  call(method, ...params).then((result) => ({ id, result }), ([code]) => ({ id, error: { code } })));
check(await Promise.all(replies));
end();
