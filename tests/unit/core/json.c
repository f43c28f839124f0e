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
    static const char *const texts[] = { "null",
                                         "true",
                                         "false",
                                         "0",
                                         "-1",
                                         "9223372036854775807",
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
                                         "{\"a\":{\"b\":[true,null]},\"\":1}" };
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
                                       "\"\\ud800\"",
                                       "\"\xFF\"",
                                       "\"a",
                                       "\"\\x\"",
                                       "1 1",
                                       "{} x",
                                       "'a'",
                                       "\xEF\xBB\xBF{}",
                                       "[\"\\",
                                       "{\"a\\u0000\":1}",
                                       "1e999" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const crew_value *value = NULL;
        crew_error why;
        assert_status(crew_json_decode(crew_str(bad[i]), NULL, &arena, &value, &why), CREW_MALFORMED);
        assert_contains(why.message, "at offset");
        assert_null(value);
    }
}

static void integers_beyond_64_bits_are_named_by_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *place;
    } cases[] = { { "9223372036854775808", "beyond int64" },
                  { "{\"a\":[0,{\"b\":-9223372036854775809}]}", "at a[1].b" },
                  { "[1,[123456789012345678901234567890]]", "at [0]" },
                  { "{\"x\":\"99999999999999999999\",\"y\":99999999999999999999}", "at y" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const crew_value *value;
        crew_error why;
        assert_status(crew_json_decode(crew_str(cases[i].text), NULL, &arena, &value, &why),
                      CREW_OUT_OF_RANGE);
        assert_contains(why.message, cases[i].place);
    }
}

static void limits_hold_before_anything_is_parsed(void **state)
{
    (void)state;
    const crew_value *value;
    crew_error why;
    crew_buffer deep = { 0 };
    for (int i = 0; i < 100000; i++)
        crew_buffer_text(&deep, "[");
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
    assert_contains(why.message, "more than 2 items in one array at offset 5");
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
}

static void watched_members_are_noted_as_written(void **state)
{
    (void)state;
    struct crew_json_notes notes = { .watch = "id" };
    crew_limits limits = crew_limits_resolve(NULL);
    const crew_value *value;
    crew_error why;
    crew_string text = crew_str("[{\"id\": 1.50, \"x\":{\"id\":2}}, 5, {\"y\":\"id\",\"id\":\"a\\u0041\"},"
                                "{\"id\":123456789012345678901234567890}, {\"id\":[1]}, {\"id\" : null}]");
    assert_ok_why(crew_json_read(text, &limits, &arena, &notes, &value, &why), why);
    static const char *const expected[] = { "1.50", "",    "\"a\\u0041\"", "123456789012345678901234567890",
                                            "",     "null" };
    assert_int_equal(notes.count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_true(crew_string_equal(notes.items[i].watched, crew_str(expected[i])));
        assert_null(notes.items[i].too_big);
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
        cmocka_unit_test(integers_beyond_64_bits_are_named_by_their_place),
        cmocka_unit_test(limits_hold_before_anything_is_parsed),
        cmocka_unit_test(the_last_of_duplicate_keys_wins),
        cmocka_unit_test(watched_members_are_noted_as_written),
        cmocka_unit_test(pretty_text_is_indented),
        cmocka_unit_test(the_locale_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
