#include "support/test.h"

#include "core/json.h"
#include "core/value.h"

#include <locale.h>
#include <math.h>
#include <rpcrew/impl/message.h>

static crew_arena arena;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static void text_comes_back_as_it_was(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "null",
        "true",
        "false",
        "0",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "1.5e-300",
        "1.7976931348623157e+308",
        "0.30000000000000004",
        "\"\"",
        "\"a\\u0000\\n\\\"\\\\\\u001f/\"",
        "\"\xC3\xBC \xF0\x9F\x98\x80\"",
        "[]",
        "{}",
        "[1,[2,[3,{}]]]",
        "{\"a\":{\"b\":[true,null]},\"\":1}",
        "{\"a\\u0000b\":1}",
        "\"a string that is longer than sixty-four bytes, which are copied in another way\"",
        "\"\\u0007 at the end, and \xE2\x82\xAC behind eight bytes of ASCII\""
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(json_of(&arena, parse_json(&arena, texts[i])), texts[i]);
}

static void integral_doubles_are_written_without_a_fraction(void **state)
{
    (void)state;
    assert_string_equal(json_of(&arena, parse_json(&arena, "[42.0, 1e3, -0.0, 1e22]")),
                        "[42,1000,-0.0,1e+22]");
}

static void bytes_ext_and_odd_keys_have_a_written_form(void **state)
{
    (void)state;
    struct crew_member members[] = { { crew_make_int(-3), crew_make_text(CREW_TYPE_BYTES, crew_str("foo")) },
                                     { crew_make_uint(UINT64_MAX),
                                       { .type = CREW_TYPE_EXT, .ext_type = -5, .size = 1, .bytes = "f" } } };
    crew_value object = { .type = CREW_TYPE_OBJECT, .size = 2, .members = members };
    assert_string_equal(json_of(&arena, &object),
                        "{\"-3\":\"Zm9v\",\"18446744073709551615\":{\"ext\":-5,\"data\":\"Zg==\"}}");
    members[0].key = crew_make_double(0.5);
    crew_bytes text;
    assert_status(crew_json_encode(&object, CREW_JSON_COMPACT, &text), CREW_UNSUPPORTED);
}

static void what_json_cannot_say_is_refused(void **state)
{
    (void)state;
    crew_bytes text;
    crew_value value = crew_make_double(NAN);
    assert_status(crew_json_encode(&value, CREW_JSON_COMPACT, &text), CREW_UNSUPPORTED);
    value = crew_make_double(-INFINITY);
    assert_status(crew_json_encode(&value, CREW_JSON_COMPACT, &text), CREW_UNSUPPORTED);
    value = crew_make_text(CREW_TYPE_STRING, crew_str("\xFF"));
    assert_status(crew_json_encode(&value, CREW_JSON_COMPACT, &text), CREW_MALFORMED);
}

static void a_failed_write_leaves_the_buffer_as_it_was(void **state)
{
    (void)state;
    crew_buffer out = { 0 };
    crew_buffer_text(&out, "before");
    crew_value items[] = { crew_make_int(1), crew_make_double(NAN) };
    crew_value array = { .type = CREW_TYPE_ARRAY, .size = 2, .items = items };
    assert_status(crew_json_write(&array, CREW_JSON_COMPACT, &out), CREW_UNSUPPORTED);
    assert_int_equal(out.size, 6);
    crew_buffer_fini(&out);
}

static void malformed_text_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char *const bad[] = { "",
                                       "\xEF\xBB\xBF",
                                       "[1]\xEF\xBB\xBF",
                                       "-",
                                       "[-]",
                                       "1e",
                                       "1e+",
                                       "-01",
                                       ".5",
                                       "+1",
                                       "0x1",
                                       "[1,2",
                                       "[,1]",
                                       "{,}",
                                       "{\"a\":1,}",
                                       "{1:2}",
                                       "[1}",
                                       "{\"a\":1]",
                                       "\"\\ud8\"",
                                       "\"\\u12G4\"",
                                       "\"\n\"",
                                       "\"a\\\x01\"",
                                       "\"a\xC3\"",
                                       "\"\xED\xA0\x80\"",
                                       "truefalse",
                                       "True",
                                       " ",
                                       "{",
                                       "[1,]",
                                       "{\"a\":}",
                                       "{\"a\" 1}",
                                       "[1 2]",
                                       "01",
                                       "1.",
                                       "NaN",
                                       "[Infinity]",
                                       "nul",
                                       "\"\xFF\"",
                                       "\"a",
                                       "\"\\x\"",
                                       "1 1",
                                       "{} x",
                                       "'a'",
                                       "[\"\\",
                                       "{\"a" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const crew_value *value = NULL;
        crew_error why;
        assert_status(crew_json_decode(crew_str(bad[i]), NULL, &arena, &value, &why), CREW_MALFORMED);
        assert_contains(why.message, "at offset");
        assert_null(value);
    }
}

static void a_nul_is_no_part_of_json_but_in_escapes(void **state)
{
    (void)state;
    static const crew_string bad[] = { { "[123\0]", 6 }, { "[true\0]", 7 }, { "[1]\0", 4 },
                                       { "\"a\0\"", 4 }, { "\0", 1 },       { "{\"a\0\":1}", 8 },
                                       { "[\0]", 3 },    { "1\0", 2 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const crew_value *value;
        crew_error why;
        assert_status(crew_json_decode(bad[i], NULL, &arena, &value, &why), CREW_MALFORMED);
    }
}

static void a_byte_order_mark_is_passed_over(void **state)
{
    (void)state;
    assert_string_equal(json_of(&arena, parse_json(&arena, "\xEF\xBB\xBF {\"a\":1}")), "{\"a\":1}");
}

static void what_cannot_be_carried_is_named_by_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        crew_status status;
        const char *words;
    } cases[] = {
        { "18446744073709551616", CREW_OUT_OF_RANGE, "an integer beyond 64 bits at offset 0" },
        { "{\"a\":[0,{\"b\":-9223372036854775809}]}", CREW_OUT_OF_RANGE, "64 bits at a[1].b" },
        { "[1,[123456789012345678901234567890]]", CREW_OUT_OF_RANGE, "at [1][0]" },
        { "{\"x\":\"99999999999999999999\",\"y\":99999999999999999999}", CREW_OUT_OF_RANGE, "at y" },
        { "[1e999]", CREW_OUT_OF_RANGE, "a number beyond a double at [0]" },
        { "[0,-1e400]", CREW_OUT_OF_RANGE, "a number beyond a double at [1]" },
        { "[1.7976931348623159e308]", CREW_OUT_OF_RANGE, "a number beyond a double" },
        { "\"\\ud800\"", CREW_MALFORMED, "a lone surrogate at offset 1" },
        { "[\"\\udc00\\ud800\"]", CREW_MALFORMED, "a lone surrogate at [0]" },
        { "{\"\\ud800x\":1}", CREW_MALFORMED, "a lone surrogate" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const crew_value *value;
        crew_error why;
        assert_status(crew_json_decode(crew_str(cases[i].text), NULL, &arena, &value, &why), cases[i].status);
        assert_contains(why.message, cases[i].words);
    }
}

static void limits_hold(void **state)
{
    (void)state;
    const crew_value *value;
    crew_error why;
    crew_buffer deep = { 0 };
    for (int i = 0; i < 100000; i++)
        crew_buffer_text(&deep, "[");
    assert_status(crew_json_decode(crew_buffer_string(&deep), NULL, &arena, &value, &why), CREW_MALFORMED);
    for (int i = 0; i < 100000; i++)
        crew_buffer_text(&deep, "]");
    assert_status(crew_json_decode(crew_buffer_string(&deep), NULL, &arena, &value, &why), CREW_LIMIT);
    assert_contains(why.message, "nested deeper than 128");
    crew_buffer_fini(&deep);

    crew_limits limits = { .depth = 2, .string_bytes = 3 };
    assert_ok(crew_json_decode(crew_str("[[\"abc\"]]"), &limits, &arena, &value, &why));
    assert_status(crew_json_decode(crew_str("[[[]]]"), &limits, &arena, &value, &why), CREW_LIMIT);
    assert_status(crew_json_decode(crew_str("[\"abcd\"]"), &limits, &arena, &value, &why), CREW_LIMIT);
    assert_contains(why.message, "at most 3");
    limits = (crew_limits){ .items = 2 };
    assert_ok(crew_json_decode(crew_str("[[1,2],{\"a\":1,\"b\":2}]"), &limits, &arena, &value, &why));
    assert_status(crew_json_decode(crew_str("[[1,2,3]]"), &limits, &arena, &value, &why), CREW_LIMIT);
    assert_contains(why.message, "more than 2 items in one array at [0][2]");
    assert_status(crew_json_decode(crew_str("{\"a\":1,\"b\":2,\"c\":3}"), &limits, &arena, &value, &why),
                  CREW_LIMIT);
    assert_contains(why.message, "one object");
    limits = (crew_limits){ .message_bytes = 4 };
    assert_status(crew_json_decode(crew_str("[1,2]"), &limits, &arena, &value, &why), CREW_LIMIT);
}

static void the_last_of_duplicate_keys_wins(void **state)
{
    (void)state;
    assert_string_equal(json_of(&arena, parse_json(&arena, "{\"a\":1,\"b\":2,\"a\":3}")),
                        "{\"a\":3,\"b\":2}");
    crew_buffer text = { 0 };
    for (int i = 0; i < 3000; i++) /* each of 1,000 keys three times */
        crew_buffer_printf(&text, "%s\"a key of some length %d\":%d", i ? "," : "{", i * 7 % 1000, i);
    crew_buffer_text(&text, "}");
    const crew_value *value;
    assert_ok(crew_json_decode(crew_buffer_string(&text), NULL, &arena, &value, NULL));
    assert_int_equal(crew_value_count(value), 1000);
    for (int i = 0; i < 1000; i++) {
        char key[40];
        int64_t number;
        (void)snprintf(key, sizeof key, "a key of some length %d", i * 7 % 1000);
        assert_ok(crew_value_int(crew_value_get(value, key), &number));
        assert_int_equal(number, 2000 + i);
    }
    crew_buffer_fini(&text);
}

static struct crew_json_notes notes_of(const char *text, const crew_limits *limits, const crew_value **value)
{
    struct crew_json_notes notes = { .watch = "id" };
    const crew_limits resolved = crew_limits_resolve(limits);
    crew_error why;
    assert_ok_why(crew_json_read(crew_str(text), NULL, &resolved, &arena, &notes, value, &why), why);
    return notes;
}

static void watched_members_are_noted_as_written(void **state)
{
    (void)state;
    const crew_value *value;
    struct crew_json_notes notes =
        notes_of("[{\"id\": 1.50, \"x\":{\"id\":2}}, 5, {\"y\":\"id\",\"id\":\"a\\u0041\"},"
                 "{\"id\":123456789012345678901234567890}, {\"id\":[1, {}] }, {\"id\" : null},"
                 "{\"id\":1,\"\\u0069d\":1e999}, {\"id\":\"\\ud800\"}, {\"id\":{}}]",
                 NULL, &value);
    static const char *const expected[] = {
        "1.50",        "",  "\"a\\u0041\"", "123456789012345678901234567890", "[1, {}]", "null", "1e999",
        "\"\\ud800\"", "{}"
    };
    assert_int_equal(notes.count, 9);
    for (size_t i = 0; i < 9; i++) {
        assert_true(crew_string_equal(notes.items[i].watched, crew_str(expected[i])));
        assert_int_equal(notes.items[i].fault, CREW_OK);
    }
}

static void what_is_wrong_with_an_item_costs_that_item_only(void **state)
{
    (void)state;
    const crew_limits limits = { .depth = 4, .items = 3, .string_bytes = 6 };
    static const struct {
        const char *text;
        crew_status fault;
        bool in_params;
        const char *words, *id;
    } cases[] = {
        { "{\"params\":[1e999],\"id\":1}", CREW_OUT_OF_RANGE, true, "at params[0]", "1" },
        { "{\"id\":2,\"params\":{\"a\":-99999999999999999999}}", CREW_OUT_OF_RANGE, true, "at params.a",
          "2" },
        { "{\"params\":[\"\\udfff\"],\"id\":3}", CREW_MALFORMED, true, "surrogate at params[0]", "3" },
        { "{\"params\":[\"1234567\"],\"id\":4}", CREW_LIMIT, true, "at most 6 are allowed, at params[0]",
          "4" },
        { "{\"params\":[1,2,3,4,5],\"id\":5}", CREW_LIMIT, true,
          "more than 3 items in one array at params[3]", "5" },
        { "{\"params\":[[[\"]\\\"]\", {}]]],\"id\":6}", CREW_LIMIT, true,
          "nested deeper than 4 at params[0][0]", "6" },
        { "{\"method\":\"\\ud800\",\"id\":7}", CREW_MALFORMED, false, "surrogate at method", "7" },
        { "{\"\\ud800\":1,\"id\":8}", CREW_MALFORMED, false, "surrogate", "8" },
        { "{\"a\":1,\"b\":2,\"c\":3,\"id\":9}", CREW_LIMIT, false, "more than 3 items in one object", "9" },
        { "{\"id\":[[[[1]]]]}", CREW_LIMIT, false, "nested deeper than 4", "" },
        { "{\"id\":\"12345678\"}", CREW_OK, false, "", "\"12345678\"" },
        { "[1e999]", CREW_OUT_OF_RANGE, false, "beyond a double", "" },
        { "1e999", CREW_OUT_OF_RANGE, false, "beyond a double", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const crew_value *value;
        crew_buffer text = { 0 };
        crew_buffer_printf(&text, "[{\"id\":\"a\"},%s,{\"id\":\"b\",\"x\":[1]}]", cases[i].text);
        crew_buffer_append(&text, "", 1);
        struct crew_json_notes notes = notes_of(text.data, &limits, &value);
        assert_int_equal(notes.count, 3);
        assert_int_equal(notes.items[1].fault, cases[i].fault);
        assert_true(crew_string_equal(notes.items[1].watched, crew_str(cases[i].id)));
        if (cases[i].fault != CREW_OK) {
            assert_int_equal(notes.items[1].in_params, cases[i].in_params);
            assert_non_null(notes.items[1].words);
        }
        assert_true(crew_string_equal(notes.items[0].watched, crew_str("\"a\"")));
        assert_true(crew_string_equal(notes.items[2].watched, crew_str("\"b\"")));
        assert_int_equal(notes.items[0].fault, CREW_OK);
        assert_int_equal(notes.items[2].fault, CREW_OK);
        assert_string_equal(json_of(&arena, crew_value_at(value, 2)), "{\"id\":\"b\",\"x\":[1]}");
        crew_buffer_fini(&text);
        if (cases[i].text[0] == '{') { /* and alone */
            notes = notes_of(cases[i].text, &limits, &value);
            assert_int_equal(notes.items[0].fault, cases[i].fault);
            assert_contains(cases[i].fault == CREW_OK ? "" : notes.items[0].words, cases[i].words);
        }
    }
}

static void a_value_can_be_read_out_of_a_stream(void **state)
{
    (void)state;
    const crew_string text = crew_str(" {\"a\":[1,2]} [3]\n4 \"x\" {\"b\":[");
    const crew_limits limits = crew_limits_resolve(NULL);
    static const char *const values[] = { "{\"a\":[1,2]}", "[3]", "4", "\"x\"" };
    const crew_value *value;
    crew_error why;
    size_t at = 0;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_ok_why(crew_json_read(text, &at, &limits, &arena, NULL, &value, &why), why);
        assert_string_equal(json_of(&arena, value), values[i]);
    }
    assert_status(crew_json_read(text, &at, &limits, &arena, NULL, &value, &why), CREW_MALFORMED);
    assert_int_equal(at, text.size); /* more might help */
    at = 0;
    assert_status(crew_json_read(crew_str("[1;2] "), &at, &limits, &arena, NULL, &value, &why),
                  CREW_MALFORMED);
    assert_int_equal(at, 2); /* nothing helps */
}

static void large_arrays_keep_their_order(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    crew_buffer text = { 0 };
    const crew_value *value;
    crew_error why;
    for (int i = 0; i < COUNT; i++) /* arrays within one that is open, across many blocks */
        crew_buffer_printf(&text, "%s%d,[%d,{\"k\":%d}]", i ? "," : "[", i, i, i);
    crew_buffer_text(&text, "]");
    assert_ok_why(crew_json_decode(crew_buffer_string(&text), NULL, &arena, &value, &why), why);
    assert_int_equal(crew_value_count(value), 2 * COUNT);
    crew_bytes again;
    assert_ok(crew_json_encode(value, CREW_JSON_COMPACT, &again));
    assert_int_equal(again.size, text.size);
    assert_memory_equal(again.data, text.data, text.size);
    crew_bytes_free(&again);
    crew_buffer_fini(&text);
}

/* What the arena holds in the end; what waits on the stack before is 8 times the text at most. */
static void no_text_takes_more_than_ten_times_its_size(void **state)
{
    (void)state;
    static const char *const items[] = { "0",   "{}",   "[]",   "\"a\"",     "{\"\":0}",
                                         "[0]", "[[]]", "\"\"", "{\"a\":{}}" };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        crew_arena own = { 0 };
        crew_buffer text = { 0 };
        const crew_value *value;
        crew_error why;
        while (text.size < 1 << 21)
            crew_buffer_printf(&text, "%c%s", text.size ? ',' : '[', items[i]);
        crew_buffer_text(&text, "]");
        assert_ok_why(crew_json_decode(crew_buffer_string(&text), NULL, &own, &value, &why), why);
        assert_true(crew_arena_size(&own) < 10 * text.size);
        crew_arena_fini(&own);
        crew_buffer_fini(&text);
    }
}

static void pretty_text_is_indented(void **state)
{
    (void)state;
    crew_bytes text;
    assert_ok(
        crew_json_encode(parse_json(&arena, "{\"a\":[1,{}],\"b\":{\"c\":[]}}"), CREW_JSON_PRETTY, &text));
    assert_string_equal(text.data, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": []\n  }\n}");
    crew_bytes_free(&text);
}

static void the_locale_does_not_matter(void **state)
{
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        return; /* this machine has no locale with a comma */
    assert_string_equal(json_of(&arena, parse_json(&arena, "[1.5,1e300]")), "[1.5,1e+300]");
    (void)setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_comes_back_as_it_was),
        cmocka_unit_test(integral_doubles_are_written_without_a_fraction),
        cmocka_unit_test(bytes_ext_and_odd_keys_have_a_written_form),
        cmocka_unit_test(what_json_cannot_say_is_refused),
        cmocka_unit_test(a_failed_write_leaves_the_buffer_as_it_was),
        cmocka_unit_test(malformed_text_is_refused_with_its_place),
        cmocka_unit_test(a_nul_is_no_part_of_json_but_in_escapes),
        cmocka_unit_test(a_byte_order_mark_is_passed_over),
        cmocka_unit_test(what_cannot_be_carried_is_named_by_its_place),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(the_last_of_duplicate_keys_wins),
        cmocka_unit_test(watched_members_are_noted_as_written),
        cmocka_unit_test(what_is_wrong_with_an_item_costs_that_item_only),
        cmocka_unit_test(a_value_can_be_read_out_of_a_stream),
        cmocka_unit_test(large_arrays_keep_their_order),
        cmocka_unit_test(no_text_takes_more_than_ten_times_its_size),
        cmocka_unit_test(pretty_text_is_indented),
        cmocka_unit_test(the_locale_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
