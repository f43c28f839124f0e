#include "support/test.h"

#include "core/base64.h"

static void bytes_come_back_whatever_their_number(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    unsigned char bytes[256];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(255 - i);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        crew_buffer text = { 0 };
        crew_string back;
        crew_base64_encode((crew_string){ (const char *)bytes, size }, &text);
        assert_int_equal(text.size, (size + 2) / 3 * 4);
        assert_ok(crew_base64_decode(crew_buffer_string(&text), &arena, &back));
        assert_int_equal(back.size, size);
        assert_memory_equal(back.data, bytes, size);
        crew_buffer_fini(&text);
    }
    crew_arena_fini(&arena);
}

static void the_examples_of_rfc_4648_hold(void **state)
{
    (void)state;
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "foobar", "Zm9vYmFy" } };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        crew_buffer text = { 0 };
        crew_base64_encode(crew_str(pairs[i][0]), &text);
        assert_true(crew_string_equal(crew_buffer_string(&text), crew_str(pairs[i][1])));
        crew_buffer_fini(&text);
    }
}

static void what_is_not_base64_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "Z",    "Zg",   "Zg=",  "Zh==",     "Zm9=",
                                       "Zm 9", "Z===", "====", "Zg==Zg==", "Zm-_" };
    crew_arena arena = { 0 };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        crew_string bytes;
        assert_status(crew_base64_decode(crew_str(bad[i]), &arena, &bytes), CREW_MALFORMED);
    }
    crew_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_whatever_their_number),
        cmocka_unit_test(the_examples_of_rfc_4648_hold),
        cmocka_unit_test(what_is_not_base64_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
