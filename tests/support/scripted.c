#include "support/scripted.h"

struct fake_broker *broker;
char url[200];
static crew_dispatcher *dispatcher;
crew_server *server;
crew_client *client;
crew_error why;

static crew_status thrice(crew_call *call)
{
    const crew_value *one = crew_arg(call, 0);
    return crew_reply(call, "[ooo]", one, one, one);
}

static const crew_method methods[] = {
    { "add", add, "a:int b:int" },
    { "pass", pass, "padding:any?" },
    { "echo", echo, "value:any" },
    { "thrice", thrice, "value:any" },
    { "until_cancelled", until_cancelled, "" },
    { 0 },
};
static const crew_service service = { .name = "scripted", .methods = methods };

int scripted_setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    return 0;
}

int scripted_teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    crew_client_free(client);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    client = NULL;
    server = NULL;
    if (broker)
        fake_stop(broker);
    broker = NULL;
    return 0;
}

void start_broker(const struct fake_options *options)
{
    broker = fake_start(options);
    (void)snprintf(url, sizeof url, "%s?queue=%s", fake_url(broker), QUEUE);
}

void serve(const crew_server_options *options)
{
    assert_ok_why(crew_server_new(&server, dispatcher, options, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
}

void connect_client(void)
{
    assert_ok_why(crew_client_new(&client, url, NULL, &why), why);
}

void put(const char *method, unsigned id)
{
    char body[100], correlation[20];
    (void)snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"id\":%u}", method, id);
    (void)snprintf(correlation, sizeof correlation, "%u", id);
    const amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_REPLY_TO_FLAG |
                                                           AMQP_BASIC_CORRELATION_ID_FLAG,
                                                 .reply_to = amqp_cstring_bytes("answers"),
                                                 .correlation_id = amqp_cstring_bytes(correlation) };
    fake_put(broker, QUEUE, &properties, body);
}

bool has_redelivered(void *count)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.redelivered >= *(uint64_t *)count;
}

bool is_empty(void *unused)
{
    (void)unused;
    return !fake_unacked(broker, QUEUE) && !fake_ready(broker, QUEUE);
}

unsigned answers_published(void)
{
    return fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) - fake_count(broker, AMQP_CONNECTION_OPEN_METHOD);
}

bool has_published(void *count)
{
    return fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) >= *(unsigned *)count;
}

void drop(struct fake_connection *connection, void *context)
{
    (void)context;
    fake_drop(connection);
}
