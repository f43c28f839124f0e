/* Structs from and to objects, by a table. */
#include "support/test.h"

#include "core/value.h"

#include <rpcrew/fields.h>
#include <rpcrew/json.h>

struct account {
    crew_string name;
    int64_t cents;
    bool closed;
    int branch;
    uint32_t flags;
    uint64_t serial;
    double rate;
    crew_string note;
    const crew_value *history, *more;
    const char *city;
};

static const crew_field account[] = {
    CREW_FIELD(struct account, name),    CREW_NAMED_FIELD(struct account, cents, "balance"),
    CREW_FIELD(struct account, closed),  CREW_FIELD(struct account, branch),
    CREW_FIELD(struct account, flags),   CREW_FIELD(struct account, serial),
    CREW_FIELD(struct account, rate),    CREW_OPTIONAL_FIELD(struct account, note),
    CREW_FIELD(struct account, history), CREW_OPTIONAL_FIELD(struct account, more),
    CREW_FIELD(struct account, city),    CREW_END_OF_FIELDS,
};

static const char text[] =
    "{\"name\":\"Ann\",\"balance\":-500,\"closed\":true,\"branch\":7,\"flags\":4294967295,"
    "\"serial\":18446744073709551615,\"rate\":0.5,\"history\":[1,{}],\"city\":\"Bonn\"}";

static crew_arena arena;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static void a_struct_has_what_the_object_has(void **state)
{
    (void)state;
    struct account one = { .note = crew_str("untouched") };
    crew_error why;
    assert_ok_why(crew_object_read(parse_json(&arena, text), account, &one, &why), why);
    assert_true(crew_string_equal(one.name, crew_str("Ann")));
    assert_int_equal(one.cents, -500);
    assert_true(one.closed && one.rate == 0.5);
    assert_int_equal(one.branch, 7);
    assert_int_equal(one.flags, UINT32_MAX);
    assert_true(one.serial == UINT64_MAX);
    assert_true(crew_string_equal(one.note, crew_str("untouched")));
    assert_int_equal(crew_value_count(one.history), 2);
    assert_null(one.more);
    assert_string_equal(one.city, "Bonn");
    static const crew_field optional[] = { CREW_OPTIONAL_FIELD(struct account, note),
                                           CREW_OPTIONAL_FIELD(struct account, more), CREW_END_OF_FIELDS };
    assert_ok(crew_object_read(parse_json(&arena, "{\"note\":null,\"other\":1,\"more\":false}"), optional,
                               &one, &why));
    assert_int_equal(crew_value_type(one.more), CREW_TYPE_BOOL);
    assert_true(crew_string_equal(one.note, crew_str("untouched")));
}

static void an_object_has_what_the_struct_has(void **state)
{
    (void)state;
    struct account one = { .note = crew_str("") };
    crew_error why;
    crew_value *object;
    assert_ok_why(crew_object_read(parse_json(&arena, text), account, &one, &why), why);
    one.note = (crew_string){ NULL, 0 };
    assert_ok(crew_object_write(&arena, account, &one, &object));
    assert_true(crew_value_equal(object, parse_json(&arena, text)));
    one.note = crew_str("new");
    one.history = NULL; /* which is not optional */
    assert_ok(crew_object_write(&arena, account, &one, &object));
    assert_true(crew_string_equal(crew_member_string(object, "note", crew_str("")), crew_str("new")));
    assert_non_null(crew_value_get(object, "history"));
    assert_int_equal(crew_value_type(crew_value_get(object, "history")), CREW_TYPE_NULL);
    assert_null(crew_value_get(object, "more"));
}

static void what_does_not_fit_is_told_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *member, *value;
        crew_status status;
        const char *words;
    } wrong[] = {
        { "name", "5", CREW_MISMATCH, "name wants a string, not int" },
        { "name", "null", CREW_MISMATCH, "name wants a string, not null" },
        { "balance", "\"5\"", CREW_MISMATCH, "balance wants an integer of 64 bits, not string" },
        { "balance", "1.5", CREW_MISMATCH, "balance wants an integer of 64 bits, not number" },
        { "closed", "1", CREW_MISMATCH, "closed wants true or false, not int" },
        { "branch", "2147483648", CREW_OUT_OF_RANGE, "branch does not fit: it wants an integer of 32 bits" },
        { "flags", "4294967296", CREW_OUT_OF_RANGE,
          "flags does not fit: it wants an integer from 0 to 4294967295" },
        { "serial", "-1", CREW_OUT_OF_RANGE, "serial does not fit" },
        { "rate", "[]", CREW_MISMATCH, "rate wants a number, not array" },
        { "city", "\"a\\u0000b\"", CREW_MISMATCH, "city wants a string without a NUL in it, not string" },
        { "note", "5", CREW_MISMATCH, "note wants a string, not int" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct account one = { .cents = 0 };
        crew_error why;
        crew_value *object = (crew_value *)(uintptr_t)parse_json(&arena, text);
        assert_ok(
            crew_object_add(&arena, object, crew_str(wrong[i].member), parse_json(&arena, wrong[i].value)));
        assert_status(crew_object_read(object, account, &one, &why), wrong[i].status);
        if (!strstr(why.message, wrong[i].words))
            fail_msg("%s: %s", wrong[i].words, why.message);
    }
    struct account one;
    crew_error why;
    assert_status(crew_object_read(parse_json(&arena, "{}"), account, &one, &why), CREW_MISMATCH);
    assert_string_equal(why.message, "name is missing: it wants a string");
    assert_status(crew_object_read(parse_json(&arena, "[]"), account, &one, &why), CREW_MISMATCH);
    assert_string_equal(why.message, "wants an object, not array");
    assert_status(crew_object_read(NULL, account, &one, NULL), CREW_MISMATCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_struct_has_what_the_object_has, teardown),
        cmocka_unit_test_teardown(an_object_has_what_the_struct_has, teardown),
        cmocka_unit_test_teardown(what_does_not_fit_is_told_by_name, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
