#include "support/test.h"

#include <rpcrew/impl/message.h>

static void what_an_arena_gives_is_aligned_and_apart(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    char *before = NULL;
    for (size_t size = 0; size < 3000; size += 7) {
        char *place = crew_arena_alloc(&arena, size);
        assert_non_null(place);
        assert_int_equal((uintptr_t)place % 8, 0);
        memset(place, (int)size, size);
        assert_true(place != before || size == 0);
        before = place;
    }
    assert_null(crew_arena_alloc(&arena, SIZE_MAX));
    crew_arena_fini(&arena);
}

static void a_reset_arena_starts_over_in_the_same_memory(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    void *first = crew_arena_alloc(&arena, 100);
    crew_arena_reset(&arena);
    assert_ptr_equal(crew_arena_alloc(&arena, 100), first);
    assert_non_null(crew_arena_alloc(&arena, 1 << 20));
    crew_arena_reset(&arena); /* a large one is not kept */
    assert_null(arena.chunks);
    crew_arena_fini(&arena);
}

static void strings_are_copied_with_a_nul_behind(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    crew_string copy = crew_arena_string(&arena, (crew_string){ "a\0b", 3 });
    assert_int_equal(copy.size, 3);
    assert_memory_equal(copy.data, "a\0b", 4);
    assert_string_equal(crew_arena_string(&arena, (crew_string){ NULL, 0 }).data, "");
    crew_arena_fini(&arena);
}

static void a_buffer_grows_and_prints(void **state)
{
    (void)state;
    crew_buffer buffer = { 0 };
    for (int i = 0; i < 1000; i++)
        crew_buffer_printf(&buffer, "%d,", i);
    crew_buffer_printf(&buffer, "%*s", 5000, "end");
    assert_false(buffer.failed);
    assert_int_equal(buffer.size, 3890 + 5000);
    assert_memory_equal(buffer.data, "0,1,2,3,", 8);
    assert_memory_equal(buffer.data + buffer.size - 4, " end", 4);
    crew_buffer_clear(&buffer);
    assert_int_equal(buffer.size, 0);
    crew_buffer_fini(&buffer);
}

static void a_failed_append_is_remembered(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    crew_buffer buffer = { 0 };
    crew_buffer_text(&buffer, "before");
    assert_null(crew_buffer_extend(&buffer, SIZE_MAX / 2));
    crew_buffer_text(&buffer, "after");
    assert_true(buffer.failed);
    assert_int_equal(buffer.size, 6);
    assert_null(crew_buffer_move(&buffer, &arena).data);
    assert_null(buffer.data);
    crew_arena_fini(&arena);
}

static void lists_keep_their_order_when_moved(void **state)
{
    (void)state;
    crew_list a = { 0 }, b = { 0 };
    for (uint32_t i = 1; i <= 4; i++) {
        crew_message *m = crew_message_new();
        m->correlation = i;
        crew_list_append(i <= 2 ? &a : &b, m);
    }
    crew_list_move(&a, &b);
    assert_int_equal(a.count, 4);
    assert_int_equal(b.count, 0);
    assert_null(crew_list_take(&b));
    for (uint32_t i = 1; i <= 4; i++) {
        crew_message *m = crew_list_take(&a);
        assert_int_equal(m->correlation, i);
        crew_message_free(m);
    }
    assert_null(crew_list_take(&a));
}

static void spare_messages_come_back_empty(void **state)
{
    (void)state;
    crew_message_pool pool = { .spare_max = 1 };
    crew_message *m = crew_message_take(&pool);
    m->correlation = 7;
    m->one_way = true;
    crew_buffer_text(&m->body, "body");
    crew_message *other = crew_message_take(&pool);
    crew_message_give(&pool, m);
    crew_message_give(&pool, other); /* beyond spare_max: freed */
    crew_message *again = crew_message_take(&pool);
    assert_ptr_equal(again, m);
    assert_int_equal(again->correlation, 0);
    assert_false(again->one_way);
    assert_int_equal(again->body.size, 0);
    crew_message_free(again);
}

static void limits_have_defaults_and_bounds(void **state)
{
    (void)state;
    crew_limits limits = crew_limits_resolve(NULL);
    assert_int_equal(limits.message_bytes, 16 << 20);
    assert_int_equal(limits.string_bytes, limits.message_bytes);
    assert_int_equal(limits.items, UINT32_MAX);
    assert_int_equal(limits.depth, 128);
    assert_int_equal(limits.batch, 1000);
    limits = crew_limits_resolve(&(crew_limits){ .message_bytes = 10, .depth = 1 << 20 });
    assert_int_equal(limits.string_bytes, 10);
    assert_int_equal(limits.depth, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_arena_gives_is_aligned_and_apart),
        cmocka_unit_test(a_reset_arena_starts_over_in_the_same_memory),
        cmocka_unit_test(strings_are_copied_with_a_nul_behind),
        cmocka_unit_test(a_buffer_grows_and_prints),
        cmocka_unit_test(a_failed_append_is_remembered),
        cmocka_unit_test(lists_keep_their_order_when_moved),
        cmocka_unit_test(spare_messages_come_back_empty),
        cmocka_unit_test(limits_have_defaults_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
