#include "support/test.h"

#include "core/value.h"

#include <rpcrew/msgpack.h>

#include <math.h>

static crew_arena arena;
static crew_error why;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    arena = (crew_arena){ 0 };
    return 0;
}

#define BYTES(literal) ((crew_string){ (literal), sizeof(literal) - 1 })

static const crew_value *decode(crew_string bytes)
{
    const crew_value *value = NULL;
    assert_ok_why(crew_msgpack_decode(bytes, NULL, &arena, &value, &why), why);
    return value;
}

static void assert_round_trip(crew_string bytes)
{
    crew_bytes out;
    assert_ok(crew_msgpack_encode(decode(bytes), &out));
    assert_int_equal(out.size, bytes.size);
    assert_memory_equal(out.data, bytes.data, bytes.size);
    crew_bytes_free(&out);
}

static void every_type_comes_back_as_it_was(void **state)
{
    (void)state;
    const crew_string objects[] = {
        BYTES("\xc0"),
        BYTES("\xc2"),
        BYTES("\xc3"),
        BYTES("\x00"),
        BYTES("\x7f"),
        BYTES("\xff"),
        BYTES("\xe0"),
        BYTES("\xcc\xff"),
        BYTES("\xcd\xff\xff"),
        BYTES("\xce\xff\xff\xff\xff"),
        BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        BYTES("\xd0\x80"),
        BYTES("\xd1\x80\x00"),
        BYTES("\xd2\x80\x00\x00\x00"),
        BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
        BYTES("\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        BYTES("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"),
        BYTES("\xa0"),
        BYTES("\xa3"
              "abc"),
        BYTES("\xa3"
              "a\0b"),
        BYTES("\xc4\x00"),
        BYTES("\xc4\x02\xff\x00"),
        BYTES("\xd4\x05"
              "a"),
        BYTES("\xc7\x03\x07"
              "abc"),
        BYTES("\xd6\xff\x00\x00\x00\x01"), /* a timestamp */
        BYTES("\x90"),
        BYTES("\x93\x01\xc0\x91\x02"),
        BYTES("\x80"),
        BYTES("\x81\xa1k\x90"),
        BYTES("\x83\x01\x02\xc0\x03\x92\x01\x02\xc3"), /* keys of any type */
    };
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        assert_round_trip(objects[i]);
}

static void longer_forms_are_read_too(void **state)
{
    (void)state;
    int64_t number;
    crew_string text;
    assert_ok(crew_value_int(decode(BYTES("\xd3\x00\x00\x00\x00\x00\x00\x00\x05")), &number));
    assert_int_equal(number, 5);
    assert_ok(crew_value_string(decode(BYTES("\xdb\x00\x00\x00\x02hi")), &text));
    assert_true(crew_string_equal(text, crew_str("hi")));
    assert_int_equal(text.data[2], '\0'); /* for those who read it as a C string */
    assert_int_equal(crew_value_count(decode(BYTES("\xdd\x00\x00\x00\x01\x01"))), 1);
    assert_int_equal(crew_value_count(decode(BYTES("\xdf\x00\x00\x00\x01\x01\x02"))), 1);
    double one_half;
    assert_ok(crew_value_double(decode(BYTES("\xca\x3f\x00\x00\x00")), &one_half)); /* float32 */
    assert_true(one_half == 0.5);
    assert_ok(crew_value_double(decode(BYTES("\xca\x7f\xc0\x00\x00")), &one_half));
    assert_true(isnan(one_half));
    assert_int_equal(crew_value_ext_type(decode(BYTES("\xc8\x00\x01\xfb"
                                                      "z"))),
                     -5);
}

static void of_two_members_with_one_key_the_last_is_found(void **state)
{
    (void)state;
    int64_t number;
    assert_ok(crew_value_int(crew_value_get(decode(BYTES("\x82\xa1k\x01\xa1k\x02")), "k"), &number));
    assert_int_equal(number, 2);
}

static void expect(crew_string bytes, crew_status status, const char *words)
{
    const crew_value *value = NULL;
    assert_status(crew_msgpack_decode(bytes, NULL, &arena, &value, &why), status);
    assert_null(value);
    if (!strstr(why.message, words))
        fail_msg("'%s' instead of '%s'", why.message, words);
}

static void keys_may_be_anything(void **state)
{
    (void)state;
    static const char *const equal[][2] = { { "\x81\x92\x01\x02\x05", "\x81\x92\x01\x02\x05" },
                                            { "\x81\x81\xa1k\x01\x05", "\x81\x81\xa1k\x01\x05" },
                                            { "\x82\x90\x01\x80\x02", "\x82\x80\x02\x90\x01" } };
    static const char *const unequal[][2] = { { "\x81\x92\x01\x02\x05", "\x81\x92\x01\x03\x05" },
                                              { "\x81\x92\x01\x02\x05", "\x81\x91\x01\x05" },
                                              { "\x81\x81\xa1k\x01\x05", "\x81\x81\xa1j\x01\x05" },
                                              { "\x81\x90\x01", "\x81\x80\x01" },
                                              { "\x81\x90\x01", "\x81\x90\x02" } };
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++)
        assert_true(crew_value_equal(decode(crew_str(equal[i][0])), decode(crew_str(equal[i][1]))));
    for (size_t i = 0; i < sizeof unequal / sizeof *unequal; i++)
        assert_false(crew_value_equal(decode(crew_str(unequal[i][0])), decode(crew_str(unequal[i][1]))));
}

static void what_is_none_is_explained(void **state)
{
    (void)state;
    expect(BYTES(""), CREW_MALFORMED, "cut short");
    expect(BYTES("\xc1"), CREW_MALFORMED, "begins nothing");
    expect(BYTES("\xa3"
                 "ab"),
           CREW_MALFORMED, "cut short");
    expect(BYTES("\x92\x01"), CREW_MALFORMED, "cut short");
    expect(BYTES("\x01\x02"), CREW_MALFORMED, "1 bytes behind");
    expect(BYTES("\xa1\xff"), CREW_MALFORMED, "UTF-8");
    expect(BYTES("\xa3\xed\xa0\x80"), CREW_MALFORMED, "UTF-8"); /* a surrogate */
}

static void a_header_alone_is_not_believed(void **state)
{
    (void)state;
    expect(BYTES("\xdd\xff\xff\xff\xff"), CREW_MALFORMED, "more items than there are bytes");
    expect(BYTES("\xdf\x7f\xff\xff\xff"), CREW_MALFORMED, "more items than there are bytes");
    expect(BYTES("\xdb\xff\xff\xff\xff"), CREW_MALFORMED, "cut short");
    expect(BYTES("\xc6\xff\xff\xff\xff"), CREW_MALFORMED, "cut short");
    expect(BYTES("\xc9\xff\xff\xff\xff\x01"), CREW_LIMIT, "ext of 4 GiB");
    /* each in itself would fit into what is left, all of them would not */
    expect(BYTES("\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a\x9a"),
           CREW_MALFORMED, "more items than there are bytes");
}

static void nesting_has_its_limit(void **state)
{
    (void)state;
    static char deep[100001];
    const crew_value *value;
    memset(deep, '\x91', sizeof deep - 1);
    deep[sizeof deep - 1] = '\xc0';
    expect((crew_string){ deep, sizeof deep }, CREW_LIMIT, "nested too deep");
    const crew_limits limits = { .depth = 5 };
    crew_string five = { deep + sizeof deep - 6, 6 }, six = { deep + sizeof deep - 7, 7 };
    assert_ok_why(crew_msgpack_decode(five, &limits, &arena, &value, &why), why);
    assert_status(crew_msgpack_decode(six, &limits, &arena, &value, &why), CREW_LIMIT);
    const crew_limits most = { .depth = 1024 };
    crew_string all = { deep + sizeof deep - 1025, 1025 };
    assert_ok_why(crew_msgpack_decode(all, &most, &arena, &value, &why), why);
    all = (crew_string){ deep + sizeof deep - 1026, 1026 };
    assert_status(crew_msgpack_decode(all, &most, &arena, &value, &why), CREW_LIMIT);
}

static void size_has_its_limit(void **state)
{
    (void)state;
    const crew_value *value;
    const crew_limits limits = { .message_bytes = 4 };
    assert_ok(crew_msgpack_decode(BYTES("\xa3"
                                        "abc"),
                                  &limits, &arena, &value, &why));
    assert_status(crew_msgpack_decode(BYTES("\xa4"
                                            "abcd"),
                                      &limits, &arena, &value, &why),
                  CREW_LIMIT);
}

static void strings_and_containers_have_their_limits(void **state)
{
    (void)state;
    const crew_value *value;
    const crew_limits limits = { .string_bytes = 2, .items = 2 };
    const struct {
        crew_string within, beyond;
    } cases[] = {
        { BYTES("\xa2"
                "ab"),
          BYTES("\xa3"
                "abc") },
        { BYTES("\xc4\x02"
                "ab"),
          BYTES("\xc4\x03"
                "abc") },
        { BYTES("\xd5\x07"
                "ab"),
          BYTES("\xc7\x03\x07"
                "abc") },
        { BYTES("\x92\x01\x02"), BYTES("\x93\x01\x02\x03") },
        { BYTES("\x82\x01\x01\x02\x02"), BYTES("\x83\x01\x01\x02\x02\x03\x03") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok_why(crew_msgpack_decode(cases[i].within, &limits, &arena, &value, &why), why);
        assert_status(crew_msgpack_decode(cases[i].beyond, &limits, &arena, &value, &why), CREW_LIMIT);
    }
}

static void what_cannot_be_written_is_refused(void **state)
{
    (void)state;
    crew_bytes out = { 0 };
    crew_value bad = crew_make_text(CREW_TYPE_STRING, BYTES("\xff\xfe")), *deep = NULL;
    assert_status(crew_msgpack_encode(&bad, &out), CREW_MALFORMED);
    for (int i = 0; i <= 1024; i++) {
        crew_value *outer;
        assert_ok(crew_array_new(&arena, &outer));
        if (deep)
            assert_ok(crew_array_add(&arena, outer, deep));
        deep = outer;
        if (i == 1023) {
            assert_ok(crew_msgpack_encode(deep, &out));
            crew_bytes_free(&out);
        }
    }
    assert_status(crew_msgpack_encode(deep, &out), CREW_LIMIT);
    const crew_value empty = crew_make_text(CREW_TYPE_BYTES, (crew_string){ 0 });
    assert_ok(crew_msgpack_encode(&empty, &out));
    assert_int_equal(out.size, 2);
    crew_bytes_free(&out);
}

static void json_and_back_is_the_same(void **state)
{
    (void)state;
    const crew_value *value =
        parse_json(&arena, "{\"a\":[1,-2.5,\"t\",null,true,{\"b\":[]}],\"c\":\"\\u00e9\"}");
    crew_bytes bytes;
    assert_ok(crew_msgpack_encode(value, &bytes));
    assert_true(crew_value_equal(decode((crew_string){ bytes.data, bytes.size }), value));
    crew_bytes_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_type_comes_back_as_it_was, teardown),
        cmocka_unit_test_teardown(longer_forms_are_read_too, teardown),
        cmocka_unit_test_teardown(of_two_members_with_one_key_the_last_is_found, teardown),
        cmocka_unit_test_teardown(keys_may_be_anything, teardown),
        cmocka_unit_test_teardown(what_is_none_is_explained, teardown),
        cmocka_unit_test_teardown(a_header_alone_is_not_believed, teardown),
        cmocka_unit_test_teardown(nesting_has_its_limit, teardown),
        cmocka_unit_test_teardown(size_has_its_limit, teardown),
        cmocka_unit_test_teardown(strings_and_containers_have_their_limits, teardown),
        cmocka_unit_test_teardown(what_cannot_be_written_is_refused, teardown),
        cmocka_unit_test_teardown(json_and_back_is_the_same, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
