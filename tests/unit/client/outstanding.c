#include "support/test.h"

#include "client/outstanding.h"

static void ids_are_found_and_never_given_twice(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    static struct crew_pending calls[MANY];
    struct crew_call_table table = { .most = MANY };
    for (int i = 0; i < MANY; i++)
        assert_ok(crew_table_add(&table, &calls[i]));
    for (int i = 0; i < MANY; i++) {
        assert_ptr_equal(crew_table_find(&table, calls[i].id), &calls[i]);
        assert_true(calls[i].id != 0);
    }
    struct crew_pending one_more;
    assert_status(crew_table_add(&table, &one_more), CREW_OVERLOADED);
    crew_table_remove(&table, &calls[7]);
    assert_null(crew_table_find(&table, calls[7].id));
    assert_ok(crew_table_add(&table, &one_more));
    assert_null(crew_table_find(&table, calls[7].id));
    assert_null(crew_table_find(&table, 0));
    crew_table_fini(&table);
}

static void ids_wrap_around_past_calls_that_are_still_there(void **state)
{
    (void)state;
    struct crew_call_table table = { .most = 100, .last_id = UINT32_MAX - 2 };
    struct crew_pending old, calls[300];
    assert_ok(crew_table_add(&table, &old)); /* UINT32_MAX - 1 */
    for (int i = 0; i < 300; i++) {
        assert_ok(crew_table_add(&table, &calls[i]));
        assert_true(calls[i].id != 0 && calls[i].id != old.id);
        assert_ptr_equal(crew_table_find(&table, old.id), &old);
        crew_table_remove(&table, &calls[i]);
    }
    crew_table_fini(&table);
}

static void the_heap_gives_what_is_due_first(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static struct crew_pending calls[MANY];
    struct crew_due_heap heap = { 0 };
    uint32_t random = 1;
    assert_null(crew_due_first(&heap));
    for (int i = 0; i < MANY; i++) {
        random = random * 1664525 + 1013904223;
        calls[i].due_ms = random >> 16;
        assert_ok(crew_due_add(&heap, &calls[i]));
    }
    for (int i = 0; i < MANY; i += 3)
        crew_due_remove(&heap, &calls[i]);
    for (int i = 1; i < MANY; i += 3) {
        random = random * 1664525 + 1013904223;
        calls[i].due_ms = random >> 16;
        crew_due_update(&heap, &calls[i]);
    }
    int64_t before = 0;
    size_t count = 0;
    for (struct crew_pending *first; (first = crew_due_first(&heap)); count++) {
        assert_true(first->due_ms >= before);
        before = first->due_ms;
        crew_due_remove(&heap, first);
        crew_due_remove(&heap, first); /* twice is nothing */
    }
    assert_int_equal(count, MANY - (MANY + 2) / 3);
    crew_due_fini(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_found_and_never_given_twice),
        cmocka_unit_test(ids_wrap_around_past_calls_that_are_still_there),
        cmocka_unit_test(the_heap_gives_what_is_due_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
