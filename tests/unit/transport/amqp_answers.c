/* A worker's answers, and where they go, at a broker that does what a script says. */
#include "transport/amqp_apart.h"

#include "support/scripted.h"

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

/* ---- addresses that cost the connection ---- */

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

static bool nack_good(void *context, const struct fake_event *event)
{
    const amqp_basic_publish_t *publish = event->decoded;
    (void)context;
    if (event->method != AMQP_BASIC_PUBLISH_METHOD ||
        !memmem(publish->routing_key.bytes, publish->routing_key.len, "good", 4))
        return false;
    amqp_basic_nack_t method = { .delivery_tag = 1 };
    fake_send(event->connection, event->channel, AMQP_BASIC_NACK_METHOD, &method);
    return true;
}

static void an_answer_that_is_refused_is_lost_once(void **state)
{
    (void)state;
    crew_server_stats stats;
    start_broker(&(struct fake_options){ .script = nack_good });
    put_for("amq.rabbitmq.reply-to.good", 1);
    serve(NULL);
    assert_true(eventually(is_empty, NULL)); /* acknowledged all the same */
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.lost, 1);
    assert_int_equal(fake_count(broker, AMQP_BASIC_PUBLISH_METHOD),
                     2); /* the worker's question, and the answer */
}

static void answers_that_wait_apart_are_bounded(void **state)
{
    (void)state;
    struct amqp_apart apart = { .bounded = true };
    crew_list left = { 0 };
    for (int i = 0; i < 1024; i++)
        assert_true(amqp_apart_take(&apart, crew_message_new()));
    crew_message *beyond = crew_message_new();
    assert_false(amqp_apart_take(&apart, beyond));
    apart.bounded = false; /* where the prefetch bounds them */
    assert_true(amqp_apart_take(&apart, beyond));
    amqp_apart_close(&apart, 0, &left);
    assert_int_equal(left.count, 1025);
    crew_list_free(&left);
    apart.bounded = true;
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_go_where_other_protocols_want_them),
        TEST(a_string_of_amqp_1_0_is_read),
        TEST(an_address_that_costs_its_connection_costs_nobody_else),
        TEST(without_a_connection_for_them_such_answers_are_acknowledged_first),
        TEST(an_answer_that_is_refused_is_lost_once),
        cmocka_unit_test(answers_that_wait_apart_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
