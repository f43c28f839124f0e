/* Workers and callers against a broker that does what a script says. */
#include "support/fake_broker.h"
#include "support/gate.h"
#include "support/test.h"

#include "transport/amqp_apart.h"

#include <poll.h>
#include <pthread.h>
#include <rpcrew/impl/message.h>
#include <rpcrew/log.h>

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define QUEUE "q"

static struct gate gate = GATE_INITIALIZER;
static struct fake_broker *broker;
static char url[200];
static crew_dispatcher *dispatcher;
static crew_server *server;
static crew_client *client;
static crew_error why;

static crew_status add(crew_call *call)
{
    return crew_reply_int(call, crew_arg_int(call, 0) + crew_arg_int(call, 1));
}

static crew_status echo(crew_call *call)
{
    return crew_reply_value(call, crew_arg(call, 0));
}

static crew_status thrice(crew_call *call)
{
    const crew_value *one = crew_arg(call, 0);
    return crew_reply(call, "[ooo]", one, one, one);
}

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_int(call, 1);
}

static atomic_int was_raised;

static crew_status until_cancelled(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    gate_pass(&gate);
    atomic_store(&was_raised, poll(&fd, 1, 20000) == 1 && crew_call_cancelled(call) ? 1 : -1);
    return crew_reply_null(call);
}

static const crew_method methods[] = {
    { "add", add, "a:int b:int" },
    { "pass", pass, "" },
    { "echo", echo, "value:any" },
    { "thrice", thrice, "value:any" },
    { "until_cancelled", until_cancelled, "" },
    { 0 },
};
static const crew_service service = { .name = "scripted", .methods = methods };

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    return 0;
}

static int teardown(void **state)
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

static void start_broker(const struct fake_options *options)
{
    broker = fake_start(options);
    (void)snprintf(url, sizeof url, "%s?queue=%s", fake_url(broker), QUEUE);
}

static void serve(const crew_server_options *options)
{
    assert_ok_why(crew_server_new(&server, dispatcher, options, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
}

static void connect_client(void)
{
    assert_ok_why(crew_client_new(&client, url, NULL, &why), why);
}

/* A request that nobody waits for the answer of. */
static void put(const char *method, unsigned id)
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

static void drop(struct fake_connection *connection, void *context)
{
    (void)context;
    fake_drop(connection);
}

static void who_waits_for_a_token_is_told_of_a_lost_connection(void **state)
{
    (void)state;
    start_broker(NULL);
    atomic_store(&was_raised, 0);
    put("until_cancelled", 1);
    serve(NULL);
    assert_true(gate_await(&gate, 1));
    gate_let(&gate, 1);
    fake_each(broker, drop, NULL);
    assert_true(gate_await(&gate, 2)); /* the broker gives it out again, on the next connection */
    assert_int_equal(atomic_load(&was_raised), 1);
}

/* ---- what comes again ---- */

static bool has_redelivered(void *count)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.redelivered >= *(uint64_t *)count;
}

static bool is_empty(void *unused)
{
    (void)unused;
    return !fake_unacked(broker, QUEUE) && !fake_ready(broker, QUEUE);
}

/* Each opening of the worker asks first whether it may answer. */
static unsigned answers_published(void)
{
    return fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) - fake_count(broker, AMQP_CONNECTION_OPEN_METHOD);
}

static void close_channel(struct fake_connection *connection, void *context)
{
    (void)context;
    fake_close_channel(connection, 1, 406,
                       "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out");
}

static void what_still_runs_is_not_run_beside_itself(void **state)
{
    (void)state;
    start_broker(NULL);
    for (unsigned i = 1; i <= 3; i++)
        put("pass", i);
    serve(&(crew_server_options){ .threads = 2 });
    assert_true(gate_await(&gate, 2)); /* the third waits */
    for (uint64_t times = 1; times <= 3; times++) {
        uint64_t all = 3 * times;
        fake_each(broker, close_channel, NULL);
        assert_true(eventually(has_redelivered, &all));
    }
    gate_open(&gate);
    assert_true(eventually(is_empty, NULL)); /* answered and acknowledged, by their latest tags */
    assert_int_equal(gate_entered(&gate), 3);
    assert_int_equal(answers_published(), 3);
    assert_int_equal(fake_count(broker, AMQP_BASIC_ACK_METHOD), 3);
}

static void equal_requests_of_one_delivery_are_two(void **state)
{
    (void)state;
    uint64_t two = 2;
    start_broker(NULL);
    put("pass", 1);
    put("pass", 1);
    serve(&(crew_server_options){ .threads = 4 });
    assert_true(gate_await(&gate, 2));
    fake_each(broker, drop, NULL);
    assert_true(eventually(has_redelivered, &two));
    gate_open(&gate);
    assert_true(eventually(is_empty, NULL));
    assert_int_equal(gate_entered(&gate), 2);
    assert_int_equal(answers_published(), 2);
}

/* ---- stopping ---- */

static void *stop_once(void *unused)
{
    (void)unused;
    crew_server_stop(server);
    return crew_server_wait(server) == CREW_OK ? server : NULL;
}

static bool is_ready_again(void *count)
{
    return fake_ready(broker, QUEUE) == *(size_t *)count;
}

static bool has_cancelled(void *unused)
{
    (void)unused;
    return fake_count(broker, AMQP_BASIC_CANCEL_METHOD) == 1;
}

/* Gives out one more, as what was on its way, before it hears of the cancel. */
static bool send_one_more(void *context, const struct fake_event *event)
{
    (void)context;
    static const char body[] = "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":9}";
    if (event->method != AMQP_BASIC_CANCEL_METHOD)
        return false;
    amqp_basic_deliver_t method = { .consumer_tag =
                                        ((const amqp_basic_cancel_t *)event->decoded)->consumer_tag,
                                    .delivery_tag = 100 };
    amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_REPLY_TO_FLAG,
                                           .reply_to = amqp_cstring_bytes("answers") };
    fake_send_content(event->connection, event->channel, AMQP_BASIC_DELIVER_METHOD, &method, &properties,
                      amqp_cstring_bytes(body));
    return false;
}

static void what_was_prefetched_is_run_rather_than_given_back(void **state)
{
    (void)state;
    pthread_t thread;
    void *drained;
    start_broker(&(struct fake_options){ .script = send_one_more });
    for (unsigned i = 1; i <= 5; i++)
        put("pass", i);
    serve(&(crew_server_options){ .threads = 1, .drain_ms = 600000 });
    assert_true(gate_await(&gate, 1));
    assert_int_equal(pthread_create(&thread, NULL, stop_once, NULL), 0);
    assert_true(eventually(has_cancelled, NULL));
    gate_open(&gate);
    pthread_join(thread, &drained);
    assert_non_null(drained);
    assert_int_equal(gate_entered(&gate), 6); /* the one that was on its way, too */
    assert_int_equal(fake_count(broker, AMQP_BASIC_REJECT_METHOD), 0);
    assert_int_equal(fake_count(broker, AMQP_BASIC_ACK_METHOD), 6);
    assert_int_equal(fake_ready(broker, QUEUE), 0);
}

static void what_the_drain_s_time_does_not_reach_is_given_back_once(void **state)
{
    (void)state;
    pthread_t thread;
    start_broker(NULL);
    for (unsigned i = 1; i <= 5; i++)
        put("pass", i);
    serve(&(crew_server_options){ .threads = 1, .drain_ms = 100 });
    assert_true(gate_await(&gate, 1));
    assert_int_equal(pthread_create(&thread, NULL, stop_once, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(fake_count(broker, AMQP_BASIC_REJECT_METHOD),
                     4); /* in words; the running one by the close */
    assert_true(eventually(has_cancelled, NULL));
}

struct order {
    bool cancelled, wrong;
};

static bool note_order(void *context, const struct fake_event *event)
{
    struct order *order = context;
    order->cancelled |= event->method == AMQP_BASIC_CANCEL_METHOD;
    order->wrong |= event->method == AMQP_BASIC_REJECT_METHOD && !order->cancelled;
    return false;
}

static void a_classic_queue_gets_back_what_nobody_has_started_behind_the_cancel(void **state)
{
    (void)state;
    pthread_t thread;
    struct order order = { false, false };
    start_broker(&(struct fake_options){ .script = note_order, .context = &order });
    (void)snprintf(url + strlen(url), sizeof url - strlen(url), "&queue_type=classic");
    for (unsigned i = 1; i <= 5; i++)
        put("pass", i);
    serve(&(crew_server_options){ .threads = 1, .drain_ms = 600000 });
    assert_true(gate_await(&gate, 1));
    size_t given_back = 4;
    assert_int_equal(pthread_create(&thread, NULL, stop_once, NULL), 0);
    assert_true(eventually(is_ready_again, &given_back));
    gate_open(&gate);
    void *drained;
    pthread_join(thread, &drained);
    assert_non_null(drained);
    assert_true(order.cancelled && !order.wrong);
    assert_int_equal(gate_entered(&gate), 1);
    assert_int_equal(fake_count(broker, AMQP_BASIC_REJECT_METHOD), 4); /* none of them twice */
}

/* ---- callers ---- */

/* context: how many were published on this connection. */
static bool nack(void *context, const struct fake_event *event)
{
    if (event->method != AMQP_BASIC_PUBLISH_METHOD)
        return false;
    amqp_basic_nack_t method = { .delivery_tag = ++*(uint64_t *)context };
    fake_send(event->connection, event->channel, AMQP_BASIC_NACK_METHOD, &method);
    return true;
}

static void a_nack_says_not_executed_only_of_a_single_queue(void **state)
{
    (void)state;
    uint64_t published = 0;
    start_broker(&(struct fake_options){ .script = nack, .context = &published });
    connect_client();
    assert_status(crew_client_notify(client, "add", &why, NULL), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_contains(why.message, "refused");
    crew_client_free(client);
    published = 0;
    (void)snprintf(url, sizeof url, "%s?exchange=several&routing_key=k", fake_url(broker));
    connect_client();
    const crew_call_options retry = { .retry = CREW_RETRY_OVERLOADED };
    assert_status(crew_client_notify_value(client, "add", NULL, &retry, &why), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    assert_int_equal(stats.retried, 0);
    const crew_call_options again = { .retry = CREW_RETRY_OVERLOADED, .idempotent = true, .timeout_ms = 200 };
    assert_status(crew_client_notify_value(client, "add", NULL, &again, &why), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    crew_client_stats_get(client, &stats);
    assert_true(stats.retried > 0);
}

/* ---- what is too large for the broker ---- */

enum { BROKER_MOST = 20000 };

static void note_end(void *context, crew_result *result, const crew_error *error)
{
    atomic_store((atomic_int *)context, (int)error->status + 1);
    crew_result_free(result);
}

static bool has_ended(void *status)
{
    return atomic_load((atomic_int *)status) != 0;
}

static crew_status call_with(const char *method, size_t size, crew_result **result)
{
    crew_arena *arena;
    const crew_value *params;
    char *text = calloc(1, size + 1);
    memset(text, 'x', size);
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[s]", text));
    const crew_call_options options = { .idempotent = true, .timeout_ms = 20000 };
    crew_status status = crew_client_call_value(client, method, params, &options, result, &why);
    crew_arena_free(arena);
    free(text);
    return status;
}

static bool has_published(void *count)
{
    return fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) >= *(unsigned *)count;
}

static bool has_closed_a_channel(void *unused)
{
    (void)unused;
    return fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD) > 0;
}

static void a_request_that_is_too_large_costs_only_itself(void **state)
{
    (void)state;
    static atomic_int other;
    atomic_store(&other, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_start(client, "pass", note_end, &other, &why, NULL), why);
    assert_true(gate_await(&gate, 1));
    for (int times = 0; times < 3; times++) {
        assert_status(call_with("echo", BROKER_MOST, NULL), CREW_LIMIT);
        assert_int_equal(why.executed, CREW_EXECUTED_NO);
        assert_contains(why.message, "configured max size 20000");
    }
    assert_true(eventually(has_closed_a_channel, NULL));
    assert_int_equal(fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD),
                     1); /* from then on the limit is known */
    assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
    assert_ok_why(call_with("echo", BROKER_MOST / 2, NULL), why);
    gate_open(&gate);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_OK + 1);
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    assert_int_equal(stats.resent, 0);
}

static void an_answer_that_is_too_large_is_an_error_once(void **state)
{
    (void)state;
    static atomic_int other;
    atomic_store(&other, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_start(client, "pass", note_end, &other, &why, NULL), why);
    assert_true(gate_await(&gate, 1));
    for (int times = 0; times < 3; times++) {
        crew_result *result;
        crew_string reason;
        assert_status(call_with("thrice", BROKER_MOST / 2, &result), CREW_REMOTE_ERROR);
        assert_int_equal(why.code, CREW_CODE_INTERNAL_ERROR);
        assert_int_equal(why.executed, CREW_EXECUTED_YES);
        assert_ok(crew_value_string(
            crew_value_get(crew_value_get(crew_result_error_data(result), "rpcrew"), "reason"), &reason));
        assert_true(crew_string_equal(reason, crew_str("too_large")));
        crew_result_free(result);
    }
    gate_open(&gate);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_OK + 1);
    assert_true(eventually(is_empty, NULL));
    assert_int_equal(fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD), 1);
    assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.redelivered, 0);
}

static void with_one_channel_all_goes_over_it(void **state)
{
    (void)state;
    for (unsigned channels = 1; channels <= 3; channels++) {
        start_broker(&(struct fake_options){ .channel_max = channels });
        serve(NULL);
        connect_client();
        assert_ok_why(call_with("echo", BROKER_MOST, NULL), why);
        assert_ok_why(crew_client_notify(client, "add", &why, "[ii]", 1, 2), why);
        const crew_call_options brief = { .timeout_ms = 300 }; /* so that the queue is asked after */
        assert_status(crew_client_call_value(client, "pass", NULL, &brief, NULL, &why), CREW_TIMEOUT);
        gate_open(&gate);
        assert_ok_why(call_with("echo", 1, NULL), why);
        assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
        crew_client_free(client);
        crew_server_free(server);
        fake_stop(broker);
        client = NULL;
        server = NULL;
        broker = NULL;
        gate_reset(&gate);
    }
}

/* ---- requesters of other protocols, through the broker's plugins ---- */

struct answer {
    char exchange[100], key[100], correlation_id[100], body[200];
};

static bool note_answer(void *context, const struct fake_event *event)
{
    struct answer *answer = context;
    const amqp_basic_publish_t *m = event->decoded;
    if (event->method != AMQP_BASIC_PUBLISH_METHOD)
        return false;
    const amqp_basic_properties_t *p = event->properties;
    bool has_id = p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG;
    (void)snprintf(answer->exchange, sizeof answer->exchange, "%.*s", (int)m->exchange.len,
                   (const char *)m->exchange.bytes);
    (void)snprintf(answer->key, sizeof answer->key, "%.*s", (int)m->routing_key.len,
                   (const char *)m->routing_key.bytes);
    (void)snprintf(answer->correlation_id, sizeof answer->correlation_id, "%.*s",
                   has_id ? (int)p->correlation_id.len : 0, (const char *)p->correlation_id.bytes);
    (void)snprintf(answer->body, sizeof answer->body, "%.*s", (int)event->body.len,
                   (const char *)event->body.bytes);
    return false;
}

static void answers_go_where_other_protocols_want_them(void **state)
{
    (void)state;
    static const char body[] = "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}";
    static const struct {
        const char *reply_to, *correlation_id, *message_id, *header, *value; /* NULL: absent */
        const char *exchange, *key, *id;
    } cases[] = {
        { "plain", "c", "m", NULL, NULL, "", "plain", "c" },
        { "/queues/a%2Fb%20c", NULL, "m", NULL, NULL, "", "a/b c", "m" },
        { "/queue/old%20", "c", NULL, NULL, NULL, "", "old%20", "c" },
        { "/amq/queue/x", NULL, NULL, "x-message-id", "long", "", "x", "long" },
        { "/queues/x", NULL, "m", "x-correlation-id", "binary", "", "x", "binary" },
        { NULL, "c", NULL, "x-reply-to-topic", "replies.me", "amq.topic", "replies.me", "c" },
        { "/queues/100%", NULL, "m", NULL, NULL, "", "100%", "m" },
    };
    struct answer answer;
    start_broker(&(struct fake_options){ .script = note_answer, .context = &answer });
    serve(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        amqp_table_entry_t entry = { .value = { .kind = AMQP_FIELD_KIND_UTF8 } };
        amqp_basic_properties_t p = { ._flags = 0 };
        if (cases[i].reply_to)
            p._flags |= AMQP_BASIC_REPLY_TO_FLAG;
        if (cases[i].correlation_id)
            p._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
        if (cases[i].message_id)
            p._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
        p.reply_to = amqp_cstring_bytes(cases[i].reply_to ? cases[i].reply_to : "");
        p.correlation_id = amqp_cstring_bytes(cases[i].correlation_id ? cases[i].correlation_id : "");
        p.message_id = amqp_cstring_bytes(cases[i].message_id ? cases[i].message_id : "");
        if (cases[i].header) {
            p._flags |= AMQP_BASIC_HEADERS_FLAG;
            entry.key = amqp_cstring_bytes(cases[i].header);
            entry.value.value.bytes = amqp_cstring_bytes(cases[i].value);
            p.headers = (amqp_table_t){ 1, &entry };
        }
        unsigned published = fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) + 1;
        fake_put(broker, QUEUE, &p, body);
        assert_true(eventually(has_published, &published));
        assert_string_equal(answer.exchange, cases[i].exchange);
        assert_string_equal(answer.key, cases[i].key);
        assert_string_equal(answer.correlation_id, cases[i].id);
        assert_contains(answer.body, "\"result\":3");
    }
    crew_server_stats stats;
    const amqp_basic_properties_t nowhere = { ._flags = 0 };
    fake_put(broker, QUEUE, &nowhere, body);
    assert_true(eventually(is_empty, NULL));
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.unanswerable, 1);
}

static void a_string_of_amqp_1_0_is_read(void **state)
{
    (void)state;
    static const char json[] = "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}";
    struct answer answer = { .body = "" };
    crew_buffer body = { 0 };
    unsigned published = 1;
    const amqp_basic_properties_t p = { ._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_TYPE_FLAG,
                                        .reply_to = amqp_cstring_bytes("x"),
                                        .type = amqp_cstring_bytes("amqp-1.0") };
    start_broker(&(struct fake_options){ .script = note_answer, .context = &answer });
    serve(NULL);
    for (; published <= 2; published++) {
        crew_buffer_clear(&body);
        crew_buffer_append(&body, "\0\x53\x77", 3);
        crew_buffer_append(&body, published == 1 ? "\xA1" : "\xB1\0\0\0", published == 1 ? 1 : 4);
        crew_buffer_append(&body, &(char){ (char)(sizeof json - 1) }, 1);
        crew_buffer_append(&body, json, sizeof json - 1);
        fake_put_bytes(broker, QUEUE, &p, (amqp_bytes_t){ body.size, body.data });
        unsigned all = 1 + published; /* the worker has asked whether it may answer */
        assert_true(eventually(has_published, &all));
        assert_contains(answer.body, "\"result\":3");
        answer.body[0] = '\0';
    }
    crew_buffer_fini(&body);
}

static bool note_binding(void *context, const struct fake_event *event)
{
    const amqp_queue_bind_t *m = event->decoded;
    if (event->method == AMQP_QUEUE_BIND_METHOD && fake_is(m->exchange, "amq.topic") &&
        fake_is(m->routing_key, "calc.#") && fake_is(m->queue, QUEUE))
        ++*(unsigned *)context;
    return false;
}

static bool note_arguments(void *context, const struct fake_event *event)
{
    const amqp_queue_declare_t *m = event->decoded;
    bool right = event->method == AMQP_QUEUE_DECLARE_METHOD && m->arguments.num_entries == 2 &&
                 fake_is(m->arguments.entries[0].key, "x-queue-type") &&
                 fake_is(m->arguments.entries[0].value.value.bytes, "quorum") &&
                 fake_is(m->arguments.entries[1].key, "x-consumer-timeout") &&
                 m->arguments.entries[1].value.value.i64 == 7200000;
    *(unsigned *)context += right;
    return false;
}

static void cancel(struct fake_connection *connection, void *context)
{
    (void)context;
    amqp_basic_cancel_t method = { .consumer_tag = amqp_cstring_bytes("any"), .nowait = 1 };
    fake_send(connection, 1, AMQP_BASIC_CANCEL_METHOD, &method);
}

static bool is_bound_twice(void *bound)
{
    (void)bound;
    return fake_count(broker, AMQP_QUEUE_BIND_METHOD) == 2;
}

static void a_queue_is_bound_and_bound_again(void **state)
{
    (void)state;
    unsigned bound = 0;
    start_broker(&(struct fake_options){ .script = note_binding, .context = &bound });
    (void)snprintf(url + strlen(url), sizeof url - strlen(url), "&bind=amq.topic:calc.%%23");
    serve(NULL);
    fake_each(broker, cancel, NULL);
    assert_true(eventually(is_bound_twice, NULL));
    assert_int_equal(fake_count(broker, AMQP_BASIC_CANCEL_METHOD),
                     1); /* the broker's was for a time-out, perhaps */
    fake_stop(broker);
    broker = NULL;
    assert_int_equal(bound, 2);
}

static bool is_declared_twice(void *unused)
{
    (void)unused;
    return fake_count(broker, AMQP_QUEUE_DECLARE_METHOD) == 2;
}

static void a_queue_is_declared_with_its_arguments(void **state)
{
    (void)state;
    unsigned declared = 0;
    start_broker(&(struct fake_options){ .script = note_arguments, .context = &declared });
    (void)snprintf(url + strlen(url), sizeof url - strlen(url),
                   "&queue_type=quorum&consumer_timeout=7200000");
    serve(NULL);
    fake_each(broker, cancel, NULL);
    assert_true(eventually(is_declared_twice, NULL));
    fake_stop(broker);
    broker = NULL;
    assert_int_equal(declared, 2);
}

/* A broker that closes the connection at some addresses, or has had enough of one at all. */
struct addresses {
    unsigned good, acked, opened;
    bool silent;  /* it closes without a word */
    bool refuses; /* a second connection */
};

static bool note_addresses(void *context, const struct fake_event *event)
{
    struct addresses *a = context;
    const amqp_basic_publish_t *publish = event->decoded;
    a->acked += event->method == AMQP_BASIC_ACK_METHOD;
    if (event->method == AMQP_CONNECTION_OPEN_METHOD && ++a->opened > 1 && a->refuses) {
        fake_close_connection(event->connection, 530, "NOT_ALLOWED - connection limit is reached");
        return true;
    }
    if (event->method != AMQP_BASIC_PUBLISH_METHOD)
        return false;
    bool bad = memmem(publish->routing_key.bytes, publish->routing_key.len, "bad", 3) != NULL;
    a->good += memmem(publish->routing_key.bytes, publish->routing_key.len, "good", 4) != NULL;
    if (bad && a->silent)
        fake_drop(event->connection);
    else if (bad)
        fake_close_connection(event->connection, 541, "INTERNAL_ERROR");
    return bad;
}

static void put_for(const char *address, unsigned id)
{
    char body[100];
    const amqp_basic_properties_t p = { ._flags = AMQP_BASIC_REPLY_TO_FLAG,
                                        .reply_to = amqp_cstring_bytes(address) };
    (void)snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":%u}",
                   id);
    fake_put(broker, QUEUE, &p, body);
}

static bool has_acked(void *count)
{
    return fake_count(broker, AMQP_BASIC_ACK_METHOD) >= *(unsigned *)count;
}

/* All that may cost the connection they go on, beside one that runs meanwhile. */
static void answer_all(struct addresses *a)
{
    static const char *const addresses[] = { "amq.rabbitmq.reply-to.bad", "amq.direct.reply-to.good",
                                             "/queues/amq.rabbitmq.reply-to.bad",
                                             "/queues/amq%2Erabbitmq.reply-to.good",
                                             "/queue/amq.rabbitmq.reply-to.good" };
    unsigned count = sizeof addresses / sizeof *addresses;
    start_broker(&(struct fake_options){ .script = note_addresses, .context = a });
    put("pass", 100);
    for (unsigned i = 0; i < count; i++)
        put_for(addresses[i], i);
    serve(NULL);
    assert_true(gate_await(&gate, 1));
    assert_true(eventually(has_acked, &count));
    gate_open(&gate);
    assert_true(eventually(is_empty, NULL));
}

static void an_address_that_costs_its_connection_costs_nobody_else(void **state)
{
    (void)state;
    for (int silent = 0; silent < 2; silent++) {
        struct addresses a = { .silent = silent };
        crew_server_stats stats;
        gate_reset(&gate);
        answer_all(&a);
        crew_server_stats_get(server, &stats);
        assert_int_equal(stats.redelivered, 0); /* the connection that they came on has lasted */
        assert_int_equal(stats.replied, 6);
        assert_int_equal(stats.lost, 2);
        crew_server_free(server);
        server = NULL;
        fake_stop(broker);
        broker = NULL;
        assert_true(a.good >= 3);
    }
}

/* Then they go on the worker's own, acknowledged first: what costs it does not come round. */
static void without_a_connection_for_them_such_answers_are_acknowledged_first(void **state)
{
    (void)state;
    struct addresses a = { .refuses = true };
    start_broker(&(struct fake_options){ .script = note_addresses, .context = &a });
    put_for("amq.rabbitmq.reply-to.good", 1);
    serve(NULL);
    assert_true(eventually(is_empty, NULL));
    fake_stop(broker);
    broker = NULL;
    assert_int_equal(a.good, 1);
    assert_int_equal(a.acked, 1);
}

static void answers_that_wait_apart_are_bounded(void **state)
{
    (void)state;
    struct amqp_apart apart = { .config = NULL };
    crew_list left = { 0 };
    for (int i = 0; i < 1024; i++)
        assert_true(amqp_apart_take(&apart, crew_message_new()));
    crew_message *beyond = crew_message_new();
    assert_false(amqp_apart_take(&apart, beyond));
    amqp_apart_close(&apart, 0, &left);
    assert_int_equal(left.count, 1024);
    crew_list_free(&left);
    for (int i = 0; i < 65; i++) {
        static char mebibyte[1 << 20];
        crew_message *m = crew_message_new();
        crew_buffer_append(&m->reply, mebibyte, sizeof mebibyte);
        bool taken = amqp_apart_take(&apart, m);
        assert_int_equal(taken, i < 64);
        if (!taken)
            crew_message_free(m);
    }
    amqp_apart_close(&apart, 0, &left);
    crew_list_free(&left);
    crew_message_free(beyond);
}

/* Headers that have grown on their way: the broker sends them whole, whatever was agreed on. */
static void put_with_headers(size_t size)
{
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    text[size] = '\0';
    amqp_table_entry_t entry = { .key = amqp_cstring_bytes("x-death"),
                                 .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                            .value.bytes = amqp_cstring_bytes(text) } };
    const amqp_basic_properties_t p = { ._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_HEADERS_FLAG,
                                        .reply_to = amqp_cstring_bytes("answers"),
                                        .headers = { 1, &entry } };
    fake_put(broker, QUEUE, &p, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}");
    free(text);
}

static bool has_told_twice(void *log_fd)
{
    char text[10000];
    ssize_t size = pread(*(int *)log_fd, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    const char *first = strstr(text, "cannot be read");
    return first && strstr(first + 1, "cannot be read");
}

static void headers_beyond_what_was_agreed_are_read_or_told(void **state)
{
    (void)state;
    int64_t begun = crew_now_ms();
    start_broker(&(struct fake_options){ .frame_max = 4096 });
    serve(NULL);
    put_with_headers(100000);
    assert_true(eventually(is_empty, NULL));
    assert_int_equal(answers_published(), 1);
    int log_fd = memfd_create("log", MFD_CLOEXEC);
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_ERROR, .fd = log_fd });
    put_with_headers(2 << 20);
    assert_true(eventually(has_told_twice, &log_fd));
    crew_server_free(server);
    server = NULL;
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_OFF });
    close(log_fd);
    assert_int_equal(answers_published(), 1);
    assert_true(crew_now_ms() - begun >= 25); /* there is a pause before it comes again, and they grow */
}

static void a_large_note_that_nobody_takes_is_not_confirmed(void **state)
{
    (void)state;
    crew_arena *arena;
    const crew_value *params;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    start_broker(NULL);
    connect_client();
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[s]", text));
    const crew_call_options once = { 0 }, again = { .retry = CREW_RETRY_NO_SERVICE, .timeout_ms = 300 };
    assert_status(crew_client_notify_value(client, "x", params, &once, &why), CREW_NO_SERVICE);
    assert_status(crew_client_notify_value(client, "x", params, &again, &why), CREW_NO_SERVICE);
    crew_arena_free(arena);
}

/* ---- clocks ---- */

static void put_with_deadline(unsigned id, int64_t unix_ms, bool as_double, const char *expiration)
{
    char body[100];
    amqp_table_entry_t entries[] = {
        { .key = amqp_cstring_bytes("rpcrew-deadline"),
          .value = { .kind = as_double ? AMQP_FIELD_KIND_F64 : AMQP_FIELD_KIND_I64 } },
    };
    if (as_double)
        entries[0].value.value.f64 = (double)unix_ms;
    else
        entries[0].value.value.i64 = unix_ms;
    (void)snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":%u}", id);
    const amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_REPLY_TO_FLAG |
                                                           AMQP_BASIC_HEADERS_FLAG |
                                                           (expiration ? AMQP_BASIC_EXPIRATION_FLAG : 0),
                                                 .reply_to = amqp_cstring_bytes("answers"),
                                                 .headers = { 1, entries },
                                                 .expiration =
                                                     amqp_cstring_bytes(expiration ? expiration : "") };
    fake_put(broker, QUEUE, &properties, body);
}

static void a_clock_that_disagrees_drops_nothing(void **state)
{
    (void)state;
    start_broker(NULL);
    gate_open(&gate);
    serve(NULL);
    put_with_deadline(1, crew_unix_ms() - 10000, false, "30000");  /* forty seconds slow, or we are fast */
    put_with_deadline(2, crew_unix_ms() - 10000, true, NULL);      /* this one may really be late */
    put_with_deadline(3, crew_unix_ms() + 3600000, true, "30000"); /* an hour fast */
    put("add", 4);
    assert_true(gate_await(&gate, 2));
    assert_true(eventually(is_empty, NULL));
    assert_int_equal(gate_entered(&gate), 2);
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.expired, 1);
}

static bool block_at_the_ack(void *context, const struct fake_event *event)
{
    (void)context;
    amqp_connection_blocked_t blocked = { .reason = amqp_cstring_bytes("low on memory") };
    if (event->method == AMQP_BASIC_QOS_METHOD)
        fake_send(event->connection, 0, AMQP_CONNECTION_BLOCKED_METHOD, &blocked);
    return false;
}

static bool has_received_one(void *unused)
{
    (void)unused;
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.received == 1;
}

static void *stop_twice(void *unused)
{
    (void)unused;
    crew_server_stop(server);
    crew_server_stop(server);
    return NULL;
}

static void a_second_stop_does_not_linger_over_an_alarm(void **state)
{
    (void)state;
    pthread_t thread;
    start_broker(&(struct fake_options){ .script = block_at_the_ack });
    put("add", 1);
    serve(&(crew_server_options){ .drain_ms = 600000 });
    assert_true(eventually(has_received_one, NULL));
    assert_int_equal(pthread_create(&thread, NULL, stop_twice, NULL), 0);
    assert_status(crew_server_wait(server), CREW_TIMEOUT); /* else this would take ten minutes */
    pthread_join(thread, NULL);
}

static void what_works_with_a_broker_works_here(void **state)
{
    (void)state;
    crew_result *result;
    start_broker(NULL);
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_call(client, "add", &result, &why, "[ii]", 1, 2), why);
    crew_result_free(result);
    assert_ok_why(crew_client_notify(client, "add", &why, "[ii]", 1, 2), why);
    assert_true(fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) >= 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_works_with_a_broker_works_here),
        TEST(who_waits_for_a_token_is_told_of_a_lost_connection),
        TEST(what_still_runs_is_not_run_beside_itself),
        TEST(equal_requests_of_one_delivery_are_two),
        TEST(what_was_prefetched_is_run_rather_than_given_back),
        TEST(what_the_drain_s_time_does_not_reach_is_given_back_once),
        TEST(a_classic_queue_gets_back_what_nobody_has_started_behind_the_cancel),
        TEST(a_nack_says_not_executed_only_of_a_single_queue),
        TEST(a_request_that_is_too_large_costs_only_itself),
        TEST(an_answer_that_is_too_large_is_an_error_once),
        TEST(with_one_channel_all_goes_over_it),
        TEST(answers_go_where_other_protocols_want_them),
        TEST(a_string_of_amqp_1_0_is_read),
        TEST(a_queue_is_bound_and_bound_again),
        TEST(a_queue_is_declared_with_its_arguments),
        TEST(an_address_that_costs_its_connection_costs_nobody_else),
        TEST(without_a_connection_for_them_such_answers_are_acknowledged_first),
        cmocka_unit_test(answers_that_wait_apart_are_bounded),
        TEST(headers_beyond_what_was_agreed_are_read_or_told),
        TEST(a_large_note_that_nobody_takes_is_not_confirmed),
        TEST(a_clock_that_disagrees_drops_nothing),
        TEST(a_second_stop_does_not_linger_over_an_alarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
