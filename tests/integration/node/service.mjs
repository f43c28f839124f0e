// A small JSON-RPC service, for what is written with other libraries: bytes or an object in, an object or nothing out.
const methods = {
  add: (a, b) => a + b,
  echo: (...params) => (params.length === 1 ? params[0] : params),
};

export function handle(request) {
  if (Buffer.isBuffer(request) || typeof request === "string") request = JSON.parse(request.toString());
  const { id, method, params } = request;
  if (id === undefined) return null;
  if (!methods[method])
    return { jsonrpc: "2.0", error: { code: -32601, message: "Method not found" }, id };
  return { jsonrpc: "2.0", result: methods[method](...params), id };
}

export const request = (id, method, ...params) => ({ jsonrpc: "2.0", method, params, id });

// What a client's calls must come back as, whatever their order; prints what the test reads.
export function check(replies) {
  const right = replies.every(({ id, result, error }) =>
    id === 0 ? error?.code === -32601 : result === id + 1);
  console.log(`${replies.length} replies, ${right ? "all right" : "wrong: " + JSON.stringify(replies)}`);
}

export const requests = (count) =>
  Array.from({ length: count }, (_, id) => (id ? request(id, "add", id, 1) : request(0, "nope")));
