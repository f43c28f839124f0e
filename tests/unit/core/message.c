#include "support/test.h"

#include <rpcrew/impl/message.h>

static void lists_keep_their_order(void **state)
{
    (void)state;
    crew_list first = { 0 }, second = { 0 };
    assert_null(crew_list_take(&first));
    for (uint32_t i = 0; i < 6; i++) {
        crew_message *message = crew_message_new();
        message->correlation = i;
        crew_list_append(i < 3 ? &first : &second, message);
    }
    crew_list_move(&first, &second);
    assert_int_equal(first.count, 6);
    assert_int_equal(second.count, 0);
    assert_null(second.head);
    crew_list_move(&first, &second); /* nothing */
    for (uint32_t i = 0; i < 6; i++) {
        crew_message *message = crew_list_take(&first);
        assert_int_equal(message->correlation, i);
        assert_null(message->next);
        crew_message_free(message);
    }
    assert_int_equal(first.count, 0);
    assert_null(first.tail);
}

static void a_message_taken_again_is_empty_and_keeps_its_room(void **state)
{
    (void)state;
    crew_message_pool pool = { .spare_max = 1 };
    crew_message *message = crew_message_take(&pool);
    crew_buffer_append(&message->body, "body", 4);
    crew_buffer_append(&message->reply, "reply", 5);
    message->one_way = true;
    message->deadline_ms = 7;
    message->refusal = "stopping";
    const char *place = message->body.data;
    crew_message_give(&pool, message);
    assert_int_equal(pool.spare.count, 1);
    crew_message *again = crew_message_take(&pool);
    assert_ptr_equal(again, message);
    assert_ptr_equal(again->body.data, place);
    assert_int_equal(again->body.size + again->reply.size, 0);
    assert_false(again->one_way);
    assert_int_equal(again->deadline_ms, 0);
    assert_null(again->refusal);
    crew_message_give(&pool, again);
    crew_message_give(&pool, crew_message_new()); /* beyond the limit: freed */
    assert_int_equal(pool.spare.count, 1);
    crew_message_give(&pool, NULL);
    crew_list_free(&pool.spare);
}

static void limits_have_defaults(void **state)
{
    (void)state;
    crew_limits limits = crew_limits_resolve(NULL);
    assert_int_equal(limits.message_bytes, 16 << 20);
    assert_int_equal(limits.depth, 128);
    assert_int_equal(limits.batch, 1000);
    limits = crew_limits_resolve(&(crew_limits){ .depth = 5 });
    assert_int_equal(limits.depth, 5);
    assert_int_equal(limits.batch, 1000);
}

static void spare_messages_keep_a_bounded_amount(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    crew_message_pool pool = { .spare_max = COUNT };
    crew_list all = { 0 };
    for (int i = 0; i < COUNT; i++) {
        crew_message *m = crew_message_take(&pool);
        assert_non_null(crew_arena_alloc(&m->arena, 100000));
        crew_buffer_append(&m->body, "0123456789", 10);
        crew_list_append(&all, m);
    }
    for (crew_message *m; (m = crew_list_take(&all));)
        crew_message_give(&pool, m);
    assert_true(pool.spare_bytes <= CREW_SPARE_BYTES_MOST);
    assert_true(pool.spare.count > 10 && pool.spare.count < COUNT);
    while (pool.spare.count)
        crew_message_free(crew_message_take(&pool));
    assert_int_equal(pool.spare_bytes, 0);
}

static void copies_have_the_same_origin_key_and_body(void **state)
{
    (void)state;
    static const char *const rows[][3] = { { "origin", "key", "body" },
                                           { "other", "key", "body" },
                                           { "origin", "other", "body" },
                                           { "origin", "key", "other" } };
    crew_message *made[4];
    for (size_t i = 0; i < 4; i++) {
        made[i] = crew_message_new();
        made[i]->origin = crew_str(rows[i][0]);
        made[i]->key = crew_str(rows[i][1]);
        crew_buffer_text(&made[i]->body, rows[i][2]);
    }
    assert_true(crew_message_is_copy(made[0], made[0]));
    for (size_t i = 1; i < 4; i++)
        assert_false(crew_message_is_copy(made[0], made[i]));
    for (size_t i = 0; i < 4; i++)
        crew_message_free(made[i]);
}

static void a_deadline_that_travelled_counts_by_clocks_that_agree(void **state)
{
    (void)state;
    enum { UNKNOWN = -1 };
    static const struct {
        int64_t from_now, left, under_way; /* ms; from_now 0: no absolute one */
        int64_t expected;
        bool disagree;
    } cases[] = {
        { 20000, 30000, INT64_MAX, 20000, false }, /* it waited for ten seconds */
        { 20000, UNKNOWN, INT64_MAX, 20000, false }, { 0, 30000, INT64_MAX, 30000, false },
        { 30500, 30000, INT64_MAX, 30000, false }, /* no more than was said */
        { 70000, 30000, INT64_MAX, 30000, true },  /* before it was sent */
        { -5000, 30000, INT64_MAX, -5000, false }, /* late, as far as is known */
        { -5000, 30000, 30000, 30000, true },      /* it cannot be */
        { -500, 30000, 30000, -500, false },         { 29000, 30000, 0, 29000, false },
        { 20000, 30000, 100, 30000, true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool disagree;
        int64_t unix_ms = cases[i].from_now ? crew_unix_ms() + cases[i].from_now : 0;
        int64_t got =
            crew_travelled_deadline(unix_ms, cases[i].left, cases[i].under_way, &disagree) - crew_now_ms();
        assert_true(got <= cases[i].expected && got > cases[i].expected - 400);
        assert_int_equal(disagree, cases[i].disagree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_keep_their_order),
        cmocka_unit_test(a_message_taken_again_is_empty_and_keeps_its_room),
        cmocka_unit_test(copies_have_the_same_origin_key_and_body),
        cmocka_unit_test(limits_have_defaults),
        cmocka_unit_test(spare_messages_keep_a_bounded_amount),
        cmocka_unit_test(a_deadline_that_travelled_counts_by_clocks_that_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
