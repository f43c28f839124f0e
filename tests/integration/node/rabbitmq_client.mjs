// rabbitmq-client: its RPCClient and Consumer. usage: rabbitmq_client.mjs client|server URL QUEUE
import { Connection } from "rabbitmq-client";
import { check, handle, requests } from "./service.mjs";

const [mode, url, queue] = process.argv.slice(2);
const rabbit = new Connection(url);
rabbit.on("error", (error) => { console.error(error); process.exit(1); });

if (mode === "server") {
  const consumer = rabbit.createConsumer({ queue, queueOptions: { durable: true }, qos: { prefetchCount: 64 } },
    async (message, reply) => {
      const answer = handle(message.body);
      if (answer) await reply(answer);
    });
  consumer.on("ready", () => console.log("serving"));
} else {
  const client = rabbit.createRPCClient({ confirm: true });
  const replies = await Promise.all(requests(200).map(async (request) => (await client.send(queue, request)).body));
  check(replies.map((body) => (Buffer.isBuffer(body) ? JSON.parse(body.toString()) : body)));
  await client.close();
  await rabbit.close();
}
