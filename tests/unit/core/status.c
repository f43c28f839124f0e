#include "support/test.h"

static void every_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    for (int i = 0; i < CREW_STATUS_COUNT; i++) {
        assert_memory_equal(crew_status_name((crew_status)i), "CREW_", 5);
        assert_true(strlen(crew_status_text((crew_status)i)) > 3);
    }
    assert_string_equal(crew_status_name(CREW_TIMEOUT), "CREW_TIMEOUT");
    assert_string_equal(crew_status_name((crew_status)999), "CREW_?");
    assert_string_equal(crew_executed_name(CREW_EXECUTED_UNKNOWN), "unknown");
}

static void an_error_is_filled_in_one_line(void **state)
{
    (void)state;
    crew_error why;
    assert_status(crew_error_set(&why, CREW_LIMIT, "%d of %d", 7, 5), CREW_LIMIT);
    assert_int_equal(why.status, CREW_LIMIT);
    assert_string_equal(why.message, "7 of 5");
    assert_status(crew_error_set(NULL, CREW_LIMIT, "nobody asks"), CREW_LIMIT);
}

static void an_error_can_wrap_itself(void **state)
{
    (void)state;
    crew_error why;
    crew_error_set(&why, CREW_LIMIT, "inner");
    crew_error_set(&why, CREW_LIMIT, "outer: %s", why.message);
    assert_string_equal(why.message, "outer: inner");
}

static void a_long_message_is_cut_at_a_character(void **state)
{
    (void)state;
    crew_error why;
    char text[2000];
    for (size_t i = 0; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xC3\xBC", 2);
    text[sizeof text - 1] = '\0';
    text[sizeof text - 2] = '\0';
    crew_error_set(&why, CREW_LIMIT, "x%s", text);
    size_t size = strlen(why.message);
    assert_true(size < sizeof why.message && size > sizeof why.message - 4);
    assert_true((unsigned char)why.message[size - 1] == 0xBC);
    assert_null(strchr(why.message, '?'));
    crew_error_set(&why, CREW_LIMIT, "%s", text); /* one byte earlier */
    assert_null(strchr(why.message, '?'));
}

static void invalid_text_in_an_error_becomes_question_marks(void **state)
{
    (void)state;
    crew_error why;
    crew_error_set(&why, CREW_MALFORMED, "near '%s'", "\xFF\xFE");
    assert_string_equal(why.message, "near '?\?'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_and_a_text),
        cmocka_unit_test(an_error_is_filled_in_one_line),
        cmocka_unit_test(an_error_can_wrap_itself),
        cmocka_unit_test(a_long_message_is_cut_at_a_character),
        cmocka_unit_test(invalid_text_in_an_error_becomes_question_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
