#include "support/test.h"

#include "core/utf8.h"

static void well_formed_text_is_valid(void **state)
{
    (void)state;
    static const char *const good[] = { "",
                                        "plain",
                                        "\xC2\x80",
                                        "\xDF\xBF",
                                        "\xE0\xA0\x80",
                                        "\xED\x9F\xBF",
                                        "\xEE\x80\x80",
                                        "\xF0\x90\x80\x80",
                                        "\xF4\x8F\xBF\xBF" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(crew_utf8_valid(crew_str(good[i])));
}

static void malformed_text_is_not(void **state)
{
    (void)state;
    static const char *const bad[] = { "\x80",
                                       "\xC0\xAF",
                                       "\xC1\x81",
                                       "\xC2",
                                       "\xE0\x9F\xBF",
                                       "\xED\xA0\x80",
                                       "\xE2\x82",
                                       "\xF0\x8F\xBF\xBF",
                                       "\xF4\x90\x80\x80",
                                       "\xF5\x80\x80\x80",
                                       "a\xFF" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(crew_utf8_valid(crew_str(bad[i])));
}

static void mending_replaces_only_what_is_broken(void **state)
{
    (void)state;
    char text[] = "gr\xC3\xBC\xC3n \xFF";
    crew_utf8_mend(text, sizeof text - 1);
    assert_string_equal(text, "gr\xC3\xBC?n ?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_text_is_valid),
        cmocka_unit_test(malformed_text_is_not),
        cmocka_unit_test(mending_replaces_only_what_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
