#include "support/colour.h"
#include "support/test.h"

static crew_arena arena;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static void every_letter_packs(void **state)
{
    (void)state;
    const crew_value *inner = parse_json(&arena, "{\"x\":1}");
    const crew_value *value;
    assert_ok(crew_pack(&arena, &value, "[n, b, i, I, U, f, s, s#, s%, S, y%, o, s?, o]", 1, -5,
                        (int64_t)1 << 40, UINT64_MAX, 0.5, "text", "cut here", 3, "a\0b", (size_t)3,
                        crew_str("view"), "\x01\x02", (size_t)2, inner, NULL, NULL));
    assert_string_equal(json_of(&arena, value),
                        "[null,true,-5,1099511627776,18446744073709551615,0.5,\"text\",\"cut\",\"a\\u0000b\","
                        "\"view\",\"AQI=\",{\"x\":1},null,null]");
}

static void objects_nest_with_any_key_letter(void **state)
{
    (void)state;
    const crew_value *value;
    assert_ok(crew_pack(&arena, &value, "{s:{s#:[i,i]}, S:{}}", "a", "bcd", 1, 1, 2, crew_str("e")));
    assert_string_equal(json_of(&arena, value), "{\"a\":{\"b\":[1,2]},\"e\":{}}");
}

static void a_format_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "", "x", "[", "]", "{", "[n", "{n:n}", "nn", "[n]]", "{s" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const crew_value *value = NULL;
        assert_status(crew_pack(&arena, &value, bad[i], "k", "v"), CREW_BAD_ARGUMENT);
        assert_null(value);
    }
}

static void what_was_packed_unpacks(void **state)
{
    (void)state;
    const crew_value *value, *rest;
    assert_ok(crew_pack(&arena, &value, "{s:i,s:I,s:U,s:f,s:b,s:s,s:S,s:y%,s:[i,i]}", "i", 1, "I", INT64_MIN,
                        "U", UINT64_MAX, "f", 1.5, "b", 1, "s", "text", "S", crew_str("view"), "y", "\0\1",
                        (size_t)2, "a", 3, 4));
    int i, first;
    int64_t wide;
    uint64_t natural;
    double number;
    bool boolean;
    const char *text;
    crew_string view;
    const void *bytes;
    size_t size;
    assert_ok(crew_unpack(value, "{s:i,s:I,s:U,s:f,s:b,s:s,s:S,s:y%,s:[i],s:o}", "i", &i, "I", &wide, "U",
                          &natural, "f", &number, "b", &boolean, "s", &text, "S", &view, "y", &bytes, &size,
                          "a", &first, "a", &rest));
    assert_int_equal(i, 1);
    assert_true(wide == INT64_MIN && natural == UINT64_MAX && number == 1.5 && boolean);
    assert_string_equal(text, "text");
    assert_true(crew_string_equal(view, crew_str("view")));
    assert_int_equal(size, 2);
    assert_memory_equal(bytes, "\0\1", 2);
    assert_int_equal(first, 3);
    assert_int_equal(crew_value_count(rest), 2);
}

static void wire_data_that_does_not_fit_is_a_status(void **state)
{
    (void)state;
    int i = 7, j = 7;
    const char *text;
    assert_status(crew_unpack(parse_json(&arena, "\"x\""), "i", &i), CREW_MISMATCH);
    assert_status(crew_unpack(parse_json(&arena, "4294967296"), "i", &i), CREW_OUT_OF_RANGE);
    assert_status(crew_unpack(parse_json(&arena, "[1]"), "[ii]", &i, &j), CREW_MISMATCH);
    assert_status(crew_unpack(parse_json(&arena, "[1,2]"), "[i!]", &i), CREW_MISMATCH);
    assert_ok(crew_unpack(parse_json(&arena, "[1,2]"), "[i]", &i));
    assert_status(crew_unpack(parse_json(&arena, "{\"a\":1}"), "{s:i}", "b", &i), CREW_MISMATCH);
    assert_status(crew_unpack(parse_json(&arena, "{\"a\":1,\"b\":2}"), "{s:i!}", "a", &i), CREW_MISMATCH);
    assert_status(crew_unpack(parse_json(&arena, "\"a\\u0000b\""), "s", &text), CREW_MISMATCH);
    assert_int_equal(j, 7);
}

static void optional_members_leave_their_targets(void **state)
{
    (void)state;
    int i = 7, j = 8, k = 9;
    const crew_value *value = parse_json(&arena, "{\"k\":1}");
    assert_ok(crew_unpack(value, "{s?i,s?{s:i},s:i}", "i", &i, "deep", "j", &j, "k", &k));
    assert_int_equal(i, 7);
    assert_int_equal(j, 8);
    assert_int_equal(k, 1);
}

static void what_may_be_missing_is_read_in_a_line(void **state)
{
    (void)state;
    const crew_value *value = parse_json(
        &arena, "{\"b\":true,\"i\":-5,\"u\":18446744073709551615,\"f\":0.5,\"s\":\"text\",\"n\":null}");
    assert_true(crew_member_bool(value, "b", false));
    assert_int_equal(crew_member_int(value, "i", 7), -5);
    assert_true(crew_member_uint(value, "u", 7) == UINT64_MAX);
    assert_true(crew_member_double(value, "f", 7) == 0.5);
    assert_true(crew_string_equal(crew_member_string(value, "s", crew_str("else")), crew_str("text")));
    static const char *const others[] = { "n", "nothing", "s" };
    for (size_t i = 0; i < 3; i++) {
        assert_true(crew_member_bool(value, others[i], true));
        assert_int_equal(crew_member_int(value, others[i], 7), 7);
        assert_int_equal(crew_member_uint(value, others[i], 7), 7);
        assert_true(crew_member_double(value, others[i], 7) == 7);
    }
    assert_int_equal(crew_member_uint(value, "i", 7), 7); /* below 0 */
    assert_int_equal(crew_member_int(NULL, "i", 7), 7);
    assert_true(crew_string_equal(crew_member_string(value, "b", crew_str("else")), crew_str("else")));
}

static void rows_are_added_one_by_one(void **state)
{
    (void)state;
    crew_value *rows;
    assert_ok(crew_array_new(&arena, &rows));
    for (int i = 1; i <= 3; i++)
        assert_ok(crew_array_pack(&arena, rows, "{s:i,s:s?}", "id", i, "name", i == 2 ? NULL : "x"));
    assert_status(crew_array_pack(&arena, rows, "{s:q}", "id", 4), CREW_BAD_ARGUMENT);
    assert_string_equal(json_of(&arena, rows),
                        "[{\"id\":1,\"name\":\"x\"},{\"id\":2,\"name\":null},{\"id\":3,\"name\":\"x\"}]");
    crew_value *object;
    assert_ok(crew_object_new(&arena, &object));
    assert_status(crew_array_pack(&arena, object, "i", 4), CREW_BAD_ARGUMENT);
}

static void bytes_are_read_from_every_wire(void **state)
{
    (void)state;
    const crew_value *value;
    crew_string bytes = { 0 };
    assert_ok(crew_pack(&arena, &value, "y%", "a\0b", (size_t)3));
    assert_ok(crew_value_base64(&arena, value, &bytes));
    assert_true(crew_string_equal(bytes, (crew_string){ "a\0b", 3 }));
    bytes = crew_str("");
    assert_ok(crew_value_base64(&arena, parse_json(&arena, "\"YQBi\""), &bytes));
    assert_true(crew_string_equal(bytes, (crew_string){ "a\0b", 3 }));
    assert_status(crew_value_base64(&arena, parse_json(&arena, "\"YQB\""), &bytes), CREW_MALFORMED);
    assert_status(crew_value_base64(&arena, parse_json(&arena, "5"), &bytes), CREW_MISMATCH);
    assert_status(crew_value_base64(&arena, NULL, &bytes), CREW_MISMATCH);
    assert_int_equal(bytes.size, 3);
}

static void a_program_s_own_types_pack_and_unpack(void **state)
{
    (void)state;
    const struct colour red = { 255, 0, 0 }, none = { 256, 0, 0 };
    struct colour got = { 1, 2, 3 };
    const crew_value *value;
    int after = 0;
    assert_ok(crew_pack(&arena, &value, "{s:[t,t],s:i}", "c", &colour_type, &red, &colour_type,
                        &(struct colour){ 0, 18, 52 }, "n", 7));
    assert_string_equal(json_of(&arena, value), "{\"c\":[\"#ff0000\",\"#001234\"],\"n\":7}");
    assert_ok(crew_unpack(value, "{s:[t],s:i}", "c", &colour_type, &got, "n", &after));
    assert_memory_equal(&got, &red, sizeof red);
    assert_int_equal(after, 7);
    assert_status(crew_pack(&arena, &value, "t", &colour_type, &none), CREW_OUT_OF_RANGE);
    static const char *const bad[] = { "\"#ff000\"", "\"red\"", "5", "null" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(crew_unpack(parse_json(&arena, bad[i]), "t", &colour_type, &got), CREW_MISMATCH);
    assert_ok(
        crew_unpack(parse_json(&arena, "{\"n\":8}"), "{s?t,s:i}", "c", &colour_type, &got, "n", &after));
    assert_memory_equal(&got, &red, sizeof red); /* not written where there was none */
    assert_int_equal(after, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_letter_packs),
        cmocka_unit_test(objects_nest_with_any_key_letter),
        cmocka_unit_test(a_format_that_is_none_is_refused),
        cmocka_unit_test(what_was_packed_unpacks),
        cmocka_unit_test(wire_data_that_does_not_fit_is_a_status),
        cmocka_unit_test(optional_members_leave_their_targets),
        cmocka_unit_test(what_may_be_missing_is_read_in_a_line),
        cmocka_unit_test(rows_are_added_one_by_one),
        cmocka_unit_test(bytes_are_read_from_every_wire),
        cmocka_unit_test(a_program_s_own_types_pack_and_unpack),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
