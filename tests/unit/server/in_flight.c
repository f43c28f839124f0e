/* Requests in flight: found by origin and id, before and after they are decoded; copies of one another. */
#include "support/test.h"

#include "server/in_flight.h"

static struct crew_in_flight all;
static struct crew_tokens tokens;
static int endpoint, other_endpoint;

struct taken {
    crew_message *message;
    struct crew_job job;
    crew_limits limits;
};

static void take(struct taken *t, const char *origin, const char *text)
{
    crew_list one = { 0 };
    *t = (struct taken){ .message = crew_message_new(), .limits = crew_limits_resolve(NULL) };
    t->message->endpoint = &endpoint;
    t->message->origin = crew_str(origin);
    crew_buffer_text(&t->message->body, text);
    crew_list_append(&one, t->message);
    crew_in_flight_add(&all, &one);
}

static void begin(struct taken *t)
{
    t->job = (struct crew_job){ .limits = &t->limits,
                                .bytes = crew_buffer_string(&t->message->body),
                                .arena = &t->message->arena,
                                .reply = &t->message->reply };
    t->job.group.protocol = crew_protocol_of(NULL, t->job.bytes);
    t->job.group.answerable = true;
    t->job.group.tokens = &tokens;
    assert_ok(crew_job_decode(&t->job));
    crew_in_flight_begin(&all, t->message, &t->job);
}

static void settle(struct taken *t)
{
    assert_null(crew_in_flight_remove(&all, t->message));
    crew_message_free(t->message);
}

static bool raised(struct taken *t, size_t index)
{
    return atomic_load(&t->job.calls[index].token.raised);
}

static size_t cancel(const char *origin, const char *id)
{
    crew_string text = crew_str(id);
    return crew_in_flight_cancel(&all, &endpoint, crew_str(origin), id ? &text : NULL);
}

static int setup(void **state)
{
    (void)state;
    crew_in_flight_init(&all);
    crew_tokens_init(&tokens);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_null(all.first);
    crew_in_flight_fini(&all);
    crew_tokens_fini(&tokens);
    return 0;
}

static const char three[] = "[{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1},"
                            "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":\"1\"},"
                            "{\"jsonrpc\":\"2.0\",\"method\":\"m\"}]";

static void a_call_is_found_by_origin_and_id(void **state)
{
    (void)state;
    struct taken mine, theirs;
    take(&mine, "me", three);
    take(&theirs, "they", three);
    begin(&mine);
    begin(&theirs);
    assert_int_equal(cancel("me", "2"), 0);
    assert_int_equal(cancel("nobody", "1"), 0);
    assert_int_equal(cancel("me", ""), 0); /* a notification has no id */
    assert_int_equal(cancel("me", "1"), 1);
    assert_true(raised(&mine, 0));
    assert_false(raised(&mine, 1));
    assert_false(raised(&mine, 2));
    assert_int_equal(cancel("me", "\"1\""), 1);
    assert_true(raised(&mine, 1));
    for (size_t i = 0; i < 3; i++)
        assert_false(raised(&theirs, i));
    crew_string id = crew_str("1");
    assert_int_equal(crew_in_flight_cancel(&all, &other_endpoint, crew_str("they"), &id), 0);
    settle(&mine);
    assert_int_equal(cancel("me", "1"), 0);
    settle(&theirs);
}

static void all_of_an_origin_is_cancelled_also_what_is_not_decoded_yet(void **state)
{
    (void)state;
    struct taken first, second;
    take(&first, "me", three);
    take(&second, "me", three);
    begin(&first);
    assert_int_equal(cancel("me", "7"), 0);
    assert_int_equal(cancel("me", NULL), 2);
    begin(&second);
    for (size_t i = 0; i < 3; i++) {
        assert_true(raised(&first, i));
        assert_true(raised(&second, i));
    }
    settle(&first);
    settle(&second);
}

static crew_message *come_again(const char *origin, const char *text, uint32_t epoch)
{
    crew_message *m = crew_message_new();
    m->endpoint = &endpoint;
    m->epoch = epoch;
    m->origin = crew_str(origin);
    crew_buffer_text(&m->body, text);
    return m;
}

static void a_copy_of_what_runs_inherits_its_answer(void **state)
{
    (void)state;
    struct taken first;
    crew_message *before, *heirs[] = { come_again("me", three, 1), come_again("me", three, 2),
                                       come_again("they", three, 1), come_again("me", three, 0) };
    take(&first, "me", three);
    begin(&first);
    assert_false(crew_in_flight_inherit(&all, heirs[2], &before)); /* another's */
    assert_false(crew_in_flight_inherit(&all, heirs[3], &before)); /* of the same opening: sent twice */
    heirs[0]->endpoint = &other_endpoint;
    assert_false(crew_in_flight_inherit(&all, heirs[0], &before));
    heirs[0]->endpoint = &endpoint;
    assert_true(crew_in_flight_inherit(&all, heirs[0], &before));
    assert_null(before);
    assert_true(atomic_load(&first.job.group.adopted));
    heirs[3]->epoch = 1;
    assert_false(crew_in_flight_inherit(&all, heirs[3], &before)); /* one at a time */
    crew_in_flight_disinherit(&all, &endpoint);
    assert_false(atomic_load(&first.job.group.adopted));
    assert_true(crew_in_flight_inherit(&all, heirs[1], &before));
    assert_ptr_equal(before, heirs[0]);
    assert_true(atomic_load(&first.job.group.adopted));
    assert_ptr_equal(crew_in_flight_remove(&all, first.message), heirs[1]);
    assert_false(crew_in_flight_inherit(&all, heirs[0], &before));
    crew_message_free(first.message);
    for (size_t i = 0; i < 4; i++)
        crew_message_free(heirs[i]);
}

static void what_is_not_decoded_yet_is_inherited_too(void **state)
{
    (void)state;
    struct taken first;
    crew_message *before, *heir = come_again("me", three, 1);
    take(&first, "me", three);
    assert_true(crew_in_flight_inherit(&all, heir, &before));
    begin(&first);
    assert_true(atomic_load(&first.job.group.adopted));
    assert_ptr_equal(crew_in_flight_remove(&all, first.message), heir);
    crew_message_free(first.message);
    crew_message_free(heir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_found_by_origin_and_id),
        TEST(all_of_an_origin_is_cancelled_also_what_is_not_decoded_yet),
        TEST(a_copy_of_what_runs_inherits_its_answer),
        TEST(what_is_not_decoded_yet_is_inherited_too),
    };
    return cmocka_run_group_tests_name("in_flight", tests, NULL, NULL);
}
