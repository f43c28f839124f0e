// amqplib: RabbitMQ's tutorial six, both sides. usage: amqplib.mjs client|direct|server URL QUEUE
import amqp from "amqplib";
import { check, handle, requests } from "./service.mjs";

const [mode, url, queue] = process.argv.slice(2);
const connection = await amqp.connect(url);
const channel = await connection.createChannel();

if (mode === "server") {
  await channel.assertQueue(queue, { durable: true });
  await channel.prefetch(64);
  await channel.consume(queue, (message) => {
    const reply = handle(message.content);
    if (reply)
      channel.sendToQueue(message.properties.replyTo, Buffer.from(JSON.stringify(reply)), {
        correlationId: message.properties.correlationId,
      });
    channel.ack(message);
  });
  console.log("serving");
} else {
  const count = 200, replies = [];
  const replyTo = mode === "direct" ? "amq.rabbitmq.reply-to" : (await channel.assertQueue("", { exclusive: true })).queue;
  const all = new Promise((done) =>
    channel.consume(replyTo, (message) => {
      const reply = JSON.parse(message.content.toString());
      if (message.properties.correlationId !== `id-${reply.id}`) throw new Error("mixed up");
      if (replies.push(reply) === count) done();
    }, { noAck: true }));
  for (const request of requests(count))
    channel.sendToQueue(queue, Buffer.from(JSON.stringify(request)), {
      correlationId: `id-${request.id}`, replyTo, expiration: 20000, contentType: "application/json",
      headers: { "rpcrew-deadline": Date.now() + 20000 },
    });
  await all;
  check(replies);
  await connection.close();
}
