#include "support/test.h"

#include "core/utf8.h"

static const char *const good[] = { "",
                                    "plain",
                                    "\xC2\x80",
                                    "\xDF\xBF",
                                    "\xE0\xA0\x80",
                                    "\xED\x9F\xBF",
                                    "\xEE\x80\x80",
                                    "\xF0\x90\x80\x80",
                                    "\xF4\x8F\xBF\xBF" };

/* What takes eight bytes at a time must see a character at any place, and what is behind it. */
static void assert_everywhere(const char *character, bool valid)
{
    static const char filler[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    char text[128], copy[128];
    for (size_t before = 0; before < 45; before++) {
        for (size_t after = 0; after < 45; after++) {
            size_t size = (size_t)snprintf(text, sizeof text, "%.*s%s%.*s", (int)before, filler, character,
                                           (int)after, filler);
            assert_int_equal(crew_utf8_valid((crew_string){ text, size }), valid);
            memset(copy, '!', sizeof copy);
            assert_int_equal(crew_utf8_copy(copy, (crew_string){ text, size }), valid);
            assert_memory_equal(copy, text, size);
            assert_int_equal(copy[size], '!');
            size_t ascii = before + strspn(character, "abcdefghijklmnopqrstuvwxyz");
            bool all = ascii == before + strlen(character);
            assert_int_equal(crew_utf8_ascii(text, size), all ? size : ascii);
        }
    }
}

static void well_formed_text_is_valid(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_everywhere(good[i], true);
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
        assert_everywhere(bad[i], false);
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
