#include "support/test.h"

#include "core/value.h"

#include <math.h>
#include <rpcrew/jansson.h>

static crew_arena arena;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static void values_go_there_and_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = { "null",
                                         "true",
                                         "-7",
                                         "0.5",
                                         "\"a\\u0000\xC3\xBC\"",
                                         "[]",
                                         "{}",
                                         "{\"a\":[1,{\"b\\u0000c\":null}],\"\":\"\"}" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const crew_value *value = parse_json(&arena, texts[i]), *back;
        json_t *json;
        assert_ok(crew_value_to_jansson(value, &json));
        assert_ok(crew_value_from_jansson(json, &arena, &back));
        assert_true(crew_value_equal(value, back));
        json_decref(json);
    }
}

static void what_jansson_does_not_have_is_written_as_in_json(void **state)
{
    (void)state;
    struct crew_member members[] = { { crew_make_int(-3), crew_make_text(CREW_TYPE_BYTES, crew_str("foo")) },
                                     { crew_make_uint(UINT64_MAX),
                                       { .type = CREW_TYPE_EXT, .ext_type = -5, .size = 1, .bytes = "f" } } };
    crew_value object = { .type = CREW_TYPE_OBJECT, .size = 2, .members = members };
    json_t *json;
    assert_ok(crew_value_to_jansson(&object, &json));
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, "{\"-3\":\"Zm9v\",\"18446744073709551615\":{\"data\":\"Zg==\",\"ext\":-5}}");
    free(text);
    json_decref(json);
}

static void what_cannot_be_one_is_refused(void **state)
{
    (void)state;
    json_t *json = NULL;
    const crew_value *value = NULL;
    crew_value bad = crew_make_uint(UINT64_MAX);
    assert_status(crew_value_to_jansson(&bad, &json), CREW_OUT_OF_RANGE);
    bad = crew_make_double(NAN);
    assert_status(crew_value_to_jansson(&bad, &json), CREW_UNSUPPORTED);
    bad = crew_make_text(CREW_TYPE_STRING, crew_str("\xFF"));
    assert_status(crew_value_to_jansson(&bad, &json), CREW_MALFORMED);
    struct crew_member member = { crew_make_bool(true), crew_make_int(1) };
    bad = (crew_value){ .type = CREW_TYPE_OBJECT, .size = 1, .members = &member };
    assert_status(crew_value_to_jansson(&bad, &json), CREW_UNSUPPORTED);
    assert_null(json);
    assert_status(crew_value_from_jansson(NULL, &arena, &value), CREW_BAD_ARGUMENT);

    crew_value levels[1100]; /* each within the next */
    levels[0] = crew_make_int(1);
    for (size_t i = 1; i < 1100; i++)
        levels[i] = (crew_value){ .type = CREW_TYPE_ARRAY, .size = 1, .items = &levels[i - 1] };
    assert_ok(crew_value_to_jansson(&levels[1024], &json));
    assert_ok(crew_value_from_jansson(json, &arena, &value));
    json_t *deeper = json_pack("[o]", json);
    assert_status(crew_value_from_jansson(deeper, &arena, &value), CREW_LIMIT);
    json_decref(deeper);
    assert_status(crew_value_to_jansson(&levels[1025], &json), CREW_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_there_and_come_back),
        cmocka_unit_test(what_jansson_does_not_have_is_written_as_in_json),
        cmocka_unit_test(what_cannot_be_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
