/* The floor on RabbitMQ: rabbitmq-c as its examples use it. The server acknowledges behind its answer, with a
 * prefetch of 64; the client takes answers from an exclusive queue.
 *
 * usage: floor_amqp server HOST PORT QUEUE | client HOST PORT QUEUE CALLS_AT_A_TIME SECONDS */
#include "floor.h"
#include "transport/rabbitmq_c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFETCH = 64 };

static void expect(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        floor_fail(what);
}

static amqp_connection_state_t connect_to(char **words)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *sock = amqp_tcp_socket_new(connection);
    if (amqp_socket_open(sock, words[0], (int)strtol(words[1], NULL, 10)) != AMQP_STATUS_OK)
        floor_fail("cannot connect");
    expect(amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "rpcrew", "rpcrew"), "login");
    amqp_channel_open(connection, 1);
    expect(amqp_get_rpc_reply(connection), "channel");
    return connection;
}

static void publish(amqp_connection_state_t connection, amqp_bytes_t queue, amqp_bytes_t correlation_id,
                    amqp_bytes_t reply_to, char *body)
{
    amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG |
                                                     AMQP_BASIC_DELIVERY_MODE_FLAG |
                                                     AMQP_BASIC_CORRELATION_ID_FLAG,
                                           .content_type = amqp_cstring_bytes("application/json"),
                                           .delivery_mode = AMQP_DELIVERY_NONPERSISTENT,
                                           .correlation_id = correlation_id,
                                           .reply_to = reply_to };
    if (reply_to.len)
        properties._flags |= AMQP_BASIC_REPLY_TO_FLAG;
    if (amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 0, 0, &properties,
                           amqp_cstring_bytes(body)) != AMQP_STATUS_OK)
        floor_fail("publish");
    free(body);
}

static void take(amqp_connection_state_t connection, amqp_envelope_t *envelope)
{
    amqp_maybe_release_buffers(connection);
    expect(amqp_consume_message(connection, envelope, NULL, 0), "consume");
}

static _Noreturn void serve(char **words)
{
    amqp_connection_state_t connection = connect_to(words);
    amqp_bytes_t queue = amqp_cstring_bytes(words[2]);
    amqp_queue_declare(connection, 1, queue, 0, 1, 0, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "declare");
    amqp_basic_qos(connection, 1, 0, PREFETCH, 0);
    amqp_basic_consume(connection, 1, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "consume");
    puts("serving");
    (void)fflush(stdout);
    for (;;) {
        amqp_envelope_t envelope;
        take(connection, &envelope);
        const amqp_basic_properties_t *p = &envelope.message.properties;
        publish(connection, p->reply_to, p->correlation_id, amqp_empty_bytes,
                floor_answer(envelope.message.body.bytes, envelope.message.body.len));
        if (amqp_basic_ack(connection, 1, envelope.delivery_tag, 0) != AMQP_STATUS_OK)
            floor_fail("ack");
        amqp_destroy_envelope(&envelope);
    }
}

static int call(char **words)
{
    amqp_connection_state_t connection = connect_to(words);
    const amqp_queue_declare_ok_t *ok =
        amqp_queue_declare(connection, 1, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "declare");
    amqp_bytes_t replies = amqp_bytes_malloc_dup(ok->queue), queue = amqp_cstring_bytes(words[2]);
    amqp_basic_consume(connection, 1, replies, amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "consume");
    struct floor_client *client = floor_client_new(words[3], words[4]);
    unsigned long count = 0;
    bool more = true;
    while (more) {
        amqp_envelope_t envelope;
        char id[24];
        for (char *request; (request = floor_client_request(client));) {
            (void)snprintf(id, sizeof id, "%lu", ++count);
            publish(connection, queue, amqp_cstring_bytes(id), replies, request);
        }
        take(connection, &envelope);
        more = floor_client_answer(client, envelope.message.body.bytes, envelope.message.body.len);
        amqp_destroy_envelope(&envelope);
    }
    return floor_client_end(client);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "server") == 0)
        serve(argv + 2);
    if (argc == 7 && strcmp(argv[1], "client") == 0)
        return call(argv + 2);
    floor_fail("usage: floor_amqp server HOST PORT QUEUE | client HOST PORT QUEUE CALLS_AT_A_TIME SECONDS");
}
