// A client of calc by what Node has itself, a call a request: nothing of rpcrew. usage: fetch_client.mjs URL
const url = process.argv[2];

async function call(method, params, id) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", method, params, id }),
  });
  const { result, error } = await response.json();
  if (error) throw new Error(error.message);
  return result;
}

const count = 1000, at_a_time = 50;
for (let first = 0; first < count; first += at_a_time) {
  const ids = Array.from({ length: at_a_time }, (_, i) => first + i);
  const results = await Promise.all(ids.map((id) => call("subtract", [id, 1], id)));
  if (results.some((result, i) => result !== ids[i] - 1)) throw new Error("a wrong result");
}
console.log("1000 calls, all right");
