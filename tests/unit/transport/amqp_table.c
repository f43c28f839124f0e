/* Header tables of AMQP as values: each type of field, and what stands too deep. */
#include "support/test.h"

#include "transport/amqp_link_impl.h"

static crew_arena arena;

static amqp_table_entry_t entry(const char *key, int kind, amqp_field_value_t value)
{
    value.kind = (uint8_t)kind;
    return (amqp_table_entry_t){ .key = amqp_cstring_bytes(key), .value = value };
}

#define ENTRY(key, kind, ...) \
    entry(key, AMQP_FIELD_KIND_##kind, (amqp_field_value_t){ .value = { __VA_ARGS__ } })

static const crew_value *convert(int count, amqp_table_entry_t *entries)
{
    const crew_value *value = NULL;
    const amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_HEADERS_FLAG,
                                                 .headers = { count, entries } };
    assert_true(amqp_link_headers(&arena, &properties, &value));
    return value;
}

static void each_type_of_field_is_a_value(void **state)
{
    (void)state;
    static char no_utf8[] = "\xff";
    amqp_field_value_t items[2] = { { .kind = AMQP_FIELD_KIND_I32, .value = { .i32 = 1 } },
                                    { .kind = AMQP_FIELD_KIND_VOID } };
    amqp_table_entry_t inner[] = { ENTRY("x", BOOLEAN, .boolean = 1) };
    amqp_table_entry_t entries[] = {
        ENTRY("bool", BOOLEAN, .boolean = 0),
        ENTRY("i8", I8, .i8 = -8),
        ENTRY("u8", U8, .u8 = 200),
        ENTRY("i16", I16, .i16 = -16),
        ENTRY("u16", U16, .u16 = 60000),
        ENTRY("i32", I32, .i32 = -32),
        ENTRY("u32", U32, .u32 = 4000000000U),
        ENTRY("i64", I64, .i64 = INT64_MIN),
        ENTRY("u64", U64, .u64 = UINT64_MAX),
        ENTRY("f32", F32, .f32 = 0.5F),
        ENTRY("f64", F64, .f64 = 0.1),
        ENTRY("decimal", DECIMAL, .decimal = { .decimals = 2, .value = (uint32_t)-125 }),
        ENTRY("text", UTF8, .bytes = amqp_cstring_bytes("é")),
        ENTRY("array", ARRAY, .array = { 2, items }),
        ENTRY("time", TIMESTAMP, .u64 = 1000000000),
        ENTRY("table", TABLE, .table = { 1, inner }),
        ENTRY("void", VOID, .u64 = 0),
        ENTRY("other", BYTES, .bytes = amqp_cstring_bytes("bytes")),
        ENTRY("broken", UTF8, .bytes = amqp_cstring_bytes(no_utf8)),
    };
    enum { ALL = sizeof entries / sizeof *entries };
    assert_string_equal(json_of(&arena, convert(ALL - 2, entries)),
                        "{\"bool\":false,\"i8\":-8,\"u8\":200,\"i16\":-16,\"u16\":60000,\"i32\":-32,"
                        "\"u32\":4000000000,\"i64\":-9223372036854775808,\"u64\":18446744073709551615,"
                        "\"f32\":0.5,\"f64\":0.1,\"decimal\":-1.25,\"text\":\"é\",\"array\":[1,null],"
                        "\"time\":1000000000,\"table\":{\"x\":true},\"void\":null}");
    const crew_value *all = convert(ALL, entries);
    assert_int_equal(crew_value_type(crew_value_get(all, "other")), CREW_TYPE_BYTES);
    assert_int_equal(crew_value_type(crew_value_get(all, "broken")), CREW_TYPE_BYTES);
}

static void rpcrew_s_own_headers_are_left_out(void **state)
{
    (void)state;
    amqp_table_entry_t entries[] = { ENTRY("rpcrew-deadline", I64, .i64 = 1), ENTRY("other", I64, .i64 = 2) };
    const amqp_basic_properties_t none = { ._flags = 0 };
    const crew_value *value = NULL;
    assert_null(convert(1, entries));
    assert_string_equal(json_of(&arena, convert(2, entries)), "{\"other\":2}");
    assert_true(amqp_link_headers(&arena, &none, &value));
    assert_null(value);
}

static void what_stands_too_deep_is_null(void **state)
{
    (void)state;
    enum { DEEP = 100 };
    amqp_table_entry_t entries[DEEP];
    entries[0] = ENTRY("x", BOOLEAN, .boolean = 1);
    for (int i = 1; i < DEEP; i++)
        entries[i] = ENTRY("x", TABLE, .table = { 1, &entries[i - 1] });
    const crew_value *value = convert(1, &entries[DEEP - 1]);
    int depth = 0;
    while (crew_value_type(value) == CREW_TYPE_OBJECT && depth < DEEP) {
        value = crew_value_get(value, "x");
        depth++;
    }
    assert_int_equal(crew_value_type(value), CREW_TYPE_NULL);
    assert_int_equal(depth, 32);
}

static void of_very_many_entries_some_are_kept(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    static amqp_table_entry_t entries[MANY];
    for (int i = 0; i < MANY; i++)
        entries[i] = ENTRY("x", VOID, .u64 = 0);
    assert_int_equal(crew_value_count(convert(MANY, entries)), 1000);
}

static void names_that_are_no_utf_8_are_left_out(void **state)
{
    (void)state;
    static char no_utf8[] = "\xff";
    amqp_table_entry_t entries[] = { ENTRY(no_utf8, I32, .i32 = 1), ENTRY("x", I32, .i32 = 2) };
    assert_string_equal(json_of(&arena, convert(2, entries)), "{\"x\":2}");
}

static int reset(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_type_of_field_is_a_value, reset),
        cmocka_unit_test_teardown(rpcrew_s_own_headers_are_left_out, reset),
        cmocka_unit_test_teardown(of_very_many_entries_some_are_kept, reset),
        cmocka_unit_test_teardown(names_that_are_no_utf_8_are_left_out, reset),
        cmocka_unit_test_teardown(what_stands_too_deep_is_null, reset),
    };
    return cmocka_run_group_tests_name("amqp_table", tests, NULL, NULL);
}
