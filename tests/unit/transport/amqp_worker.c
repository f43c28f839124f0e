/* A worker against a broker that does what a script says. */
#include "support/scripted.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/log.h>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* ---- the queue ---- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_waits_for_a_token_is_told_of_a_lost_connection),
        TEST(what_still_runs_is_not_run_beside_itself),
        TEST(equal_requests_of_one_delivery_are_two),
        TEST(what_was_prefetched_is_run_rather_than_given_back),
        TEST(what_the_drain_s_time_does_not_reach_is_given_back_once),
        TEST(a_classic_queue_gets_back_what_nobody_has_started_behind_the_cancel),
        TEST(a_queue_is_bound_and_bound_again),
        TEST(a_queue_is_declared_with_its_arguments),
        TEST(headers_beyond_what_was_agreed_are_read_or_told),
        TEST(a_clock_that_disagrees_drops_nothing),
        TEST(a_second_stop_does_not_linger_over_an_alarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
