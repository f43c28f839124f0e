/* crew_pack's formats. Of the letters only those stay that take a pointer or nothing: what a letter takes
 * must be there, and only one thing can be that for all of them, a value whose bytes are a string as well. */
#include "fuzz.h"

#include "core/value.h"

enum { LETTERS_MOST = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char takes_more[] = "biIUfSyt#%";
    static const crew_value any = { .type = CREW_TYPE_STRING, .size = 1, .bytes = "x" };
    char format[256];
    size_t length = 0, letters = 0;
    for (size_t i = 0; i < size && length < sizeof format - 1 && letters < LETTERS_MOST; i++) {
        char c = (char)data[i];
        letters += c == 's' || c == 'o';
        if (c && !strchr(takes_more, c))
            format[length++] = c;
    }
    format[length] = '\0';

    crew_arena arena = { 0 };
    const crew_value *made = NULL;
    const crew_value *a = &any;
    crew_status status = crew_pack(&arena, &made, format, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a,
                                   a, a, a, a, a, a, a);
    REQUIRE(status == CREW_OK || status == CREW_BAD_ARGUMENT);
    if (status == CREW_OK) {
        crew_bytes text = { 0 };
        REQUIRE(crew_json_encode(made, CREW_JSON_COMPACT, &text) == CREW_OK);
        crew_bytes_free(&text);
    }
    crew_arena_fini(&arena);
    return 0;
}
