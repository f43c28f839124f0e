#include "support/test.h"

#include "core/value.h"

#include <math.h>

static crew_arena arena;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static void nothing_reads_as_null(void **state)
{
    (void)state;
    bool b;
    assert_int_equal(crew_value_type(NULL), CREW_TYPE_NULL);
    assert_null(crew_value_get(crew_value_at(NULL, 3), "x"));
    assert_status(crew_value_bool(NULL, &b), CREW_MISMATCH);
    assert_int_equal(crew_value_count(NULL), 0);
}

static void integral_doubles_are_ints_where_they_fit(void **state)
{
    (void)state;
    static const struct {
        double number;
        crew_status status;
    } cases[] = { { 42.0, CREW_OK },
                  { -9223372036854775808.0, CREW_OK },
                  { 42.5, CREW_MISMATCH },
                  { 9223372036854775808.0, CREW_OUT_OF_RANGE },
                  { 1e300, CREW_OUT_OF_RANGE },
                  { NAN, CREW_MISMATCH } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        crew_value value = crew_make_double(cases[i].number);
        int64_t got = 7;
        assert_status(crew_value_int(&value, &got), cases[i].status);
        assert_true(cases[i].status == CREW_OK ? (double)got == cases[i].number : got == 7);
    }
}

static void uint_is_only_what_int_cannot_hold(void **state)
{
    (void)state;
    crew_value small = crew_make_uint(INT64_MAX), large = crew_make_uint((uint64_t)INT64_MAX + 1);
    int64_t i;
    uint64_t u;
    double d;
    assert_int_equal(small.type, CREW_TYPE_INT);
    assert_int_equal(large.type, CREW_TYPE_UINT);
    assert_status(crew_value_int(&large, &i), CREW_OUT_OF_RANGE);
    assert_ok(crew_value_uint(&large, &u));
    assert_true(u == (uint64_t)INT64_MAX + 1);
    assert_ok(crew_value_double(&large, &d));
    crew_value far = crew_make_double(1e19), too_far = crew_make_double(18446744073709551616.0);
    assert_ok(crew_value_uint(&far, &u));
    assert_true(u == 10000000000000000000U);
    assert_status(crew_value_uint(&too_far, &u), CREW_OUT_OF_RANGE);
    crew_value negative = crew_make_int(-1);
    assert_status(crew_value_uint(&negative, &u), CREW_OUT_OF_RANGE);
}

static void arrays_grow_and_keep_their_items(void **state)
{
    (void)state;
    crew_value *array;
    assert_ok(crew_array_new(&arena, &array));
    for (int i = 0; i < 1000; i++) {
        crew_value item = crew_make_int(i);
        assert_ok(crew_array_add(&arena, array, &item));
    }
    assert_int_equal(crew_value_count(array), 1000);
    for (int i = 0; i < 1000; i++) {
        int64_t got;
        assert_ok(crew_value_int(crew_value_at(array, (size_t)i), &got));
        assert_int_equal(got, i);
    }
    assert_null(crew_value_at(array, 1000));
    assert_status(crew_object_add(&arena, array, crew_str("k"), NULL), CREW_BAD_ARGUMENT);
}

static void a_decoded_array_can_be_added_to(void **state)
{
    (void)state;
    crew_value array = *parse_json(&arena, "[1,2,3]");
    assert_ok(crew_array_add(&arena, &array, NULL));
    assert_string_equal(json_of(&arena, &array), "[1,2,3,null]");
}

static void a_key_that_is_there_is_replaced(void **state)
{
    (void)state;
    crew_value *object, one = crew_make_int(1), two = crew_make_int(2);
    assert_ok(crew_object_new(&arena, &object));
    assert_ok(crew_object_add(&arena, object, crew_str("a"), &one));
    assert_ok(crew_object_add(&arena, object, crew_str("b"), &one));
    assert_ok(crew_object_add(&arena, object, crew_str("a"), &two));
    assert_string_equal(json_of(&arena, object), "{\"a\":2,\"b\":1}");
}

static void equality_is_deep_and_typed(void **state)
{
    (void)state;
    static const char *const equal[][2] = { { "{\"a\":[1,{}],\"b\":null}", "{\"b\":null,\"a\":[1,{}]}" },
                                            { "1.5", "1.5" } };
    static const char *const unequal[][2] = { { "1", "1.0" },
                                              { "[1]", "[1,2]" },
                                              { "{\"a\":1}", "{\"a\":2}" },
                                              { "\"1\"", "1" },
                                              { "true", "false" } };
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++)
        assert_true(crew_value_equal(parse_json(&arena, equal[i][0]), parse_json(&arena, equal[i][1])));
    for (size_t i = 0; i < sizeof unequal / sizeof *unequal; i++)
        assert_false(crew_value_equal(parse_json(&arena, unequal[i][0]), parse_json(&arena, unequal[i][1])));
}

static crew_value *twice(int first, int second)
{
    crew_value *object;
    crew_value one = crew_make_int(first), two = crew_make_int(second);
    assert_ok(crew_object_new(&arena, &object));
    assert_ok(crew_object_append(&arena, object, crew_str("a"), &one));
    assert_ok(crew_object_append(&arena, object, crew_str("a"), &two));
    return object;
}

static void deep_objects_compare_in_no_time(void **state)
{
    (void)state;
    crew_buffer text = { 0 };
    for (int i = 0; i < 120; i++)
        crew_buffer_text(&text, "{\"a\":");
    crew_buffer_text(&text, "1");
    for (int i = 0; i < 120; i++)
        crew_buffer_text(&text, "}");
    crew_buffer_append(&text, "", 1);
    assert_true(crew_value_equal(parse_json(&arena, text.data), parse_json(&arena, text.data)));
    crew_buffer_fini(&text);
}

static void of_members_with_one_key_the_last_counts(void **state)
{
    (void)state;
    crew_value *object = twice(1, 2);
    int64_t got = 0;
    assert_int_equal(crew_value_count(object), 2);
    assert_ok(crew_value_int(crew_value_get(object, "a"), &got));
    assert_int_equal(got, 2);
    assert_true(crew_value_equal(object, parse_json(&arena, "{\"a\":2}")));
    assert_true(crew_value_equal(parse_json(&arena, "{\"a\":2}"), object));
    assert_false(crew_value_equal(object, twice(2, 1)));
    assert_false(crew_value_equal(object, parse_json(&arena, "{\"a\":2,\"b\":2}")));
    assert_false(crew_value_equal(parse_json(&arena, "{\"a\":2,\"b\":2}"), object));
}

static void a_copy_shares_nothing(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,-2.5,\"text\",{\"b\":null}],\"\":[],\"c\":{},\"d\":true}";
    crew_arena *other;
    const crew_value *copy = NULL, *again = NULL;
    assert_ok(crew_arena_new(&other));
    assert_ok(crew_value_copy(&arena, parse_json(other, text), &copy));
    crew_arena_free(other);
    assert_string_equal(json_of(&arena, copy), text);
    assert_ok(crew_value_copy(&arena, NULL, &again));
    assert_int_equal(crew_value_type(again), CREW_TYPE_NULL);
}

static void what_is_too_deep_is_not_copied(void **state)
{
    (void)state;
    const crew_value *copy = NULL;
    crew_value *around = NULL, *inner;
    assert_ok(crew_array_new(&arena, &around));
    for (int i = 0; i < 1100; i++) {
        inner = around;
        assert_ok(crew_array_new(&arena, &around));
        assert_ok(crew_array_add(&arena, around, inner));
    }
    assert_int_equal(crew_value_copy(&arena, around, &copy), CREW_LIMIT);
    assert_null(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_reads_as_null),
        cmocka_unit_test(integral_doubles_are_ints_where_they_fit),
        cmocka_unit_test(uint_is_only_what_int_cannot_hold),
        cmocka_unit_test(arrays_grow_and_keep_their_items),
        cmocka_unit_test(a_decoded_array_can_be_added_to),
        cmocka_unit_test(a_key_that_is_there_is_replaced),
        cmocka_unit_test(equality_is_deep_and_typed),
        cmocka_unit_test(deep_objects_compare_in_no_time),
        cmocka_unit_test(a_copy_shares_nothing),
        cmocka_unit_test(what_is_too_deep_is_not_copied),
        cmocka_unit_test(of_members_with_one_key_the_last_counts),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
