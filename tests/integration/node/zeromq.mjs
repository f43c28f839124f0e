// zeromq: sockets of all kinds that speak REQ's envelope. usage: zeromq.mjs req|dealer|reply|router ADDRESS
import * as zmq from "zeromq";
import { check, handle, requests } from "./service.mjs";

const [mode, address] = process.argv.slice(2);
const encode = (value) => Buffer.from(JSON.stringify(value));

if (mode === "req") {
  const socket = new zmq.Request(), replies = [];
  socket.connect(address);
  for (const request of requests(200)) {
    await socket.send(encode(request));
    replies.push(JSON.parse((await socket.receive()).toString()));
  }
  check(replies);
} else if (mode === "dealer") {
  const socket = new zmq.Dealer(), replies = [];
  socket.connect(address);
  for (const request of requests(200)) await socket.send(["", encode(request)]);
  while (replies.length < 200) replies.push(JSON.parse((await socket.receive()).at(-1).toString()));
  check(replies);
} else {
  const socket = mode === "router" ? new zmq.Router() : new zmq.Reply();
  await socket.bind(address);
  console.log("serving");
  for await (const frames of socket)
    await socket.send([...frames.slice(0, -1), encode(handle(frames.at(-1)))]);
}
