/* JSON text, beside jansson: both read the same, or both refuse it, but for what each is known to do
 * otherwise. What is read is written, and jansson reads it as the same. */
#include "fuzz.h"

#include <rpcrew/jansson.h>

static const crew_limits limits = { .message_bytes = 1 << 20, .depth = 1024 };

/* What jansson does not read: its integers are int64, its keys have no NUL, its text no byte order mark. */
static bool is_beyond_jansson(const json_error_t *error, crew_string text)
{
    enum json_error_code code = json_error_code(error);
    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
           (text.size >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0);
}

/* And what it reads although it should not, or we do not: a NUL behind a number or a literal, more levels. */
static bool is_beyond_us(crew_status status, crew_string text)
{
    return status == CREW_LIMIT || memchr(text.data, '\0', text.size);
}

/* What our writer has made is jansson's to read. */
static void check_written(const crew_value *value, json_t *json)
{
    crew_bytes text;
    json_error_t error;
    REQUIRE(crew_json_encode(value, CREW_JSON_COMPACT, &text) == CREW_OK);
    json_t *again = json_loadb(text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    REQUIRE(again);
    crew_arena arena = { 0 };
    const crew_value *first, *second;
    REQUIRE(crew_value_from_jansson(again, &arena, &first) == CREW_OK);
    REQUIRE(crew_value_from_jansson(json, &arena, &second) == CREW_OK);
    REQUIRE(fuzz_same(first, second)); /* whole doubles have become integers */
    json_decref(again);
    crew_arena_fini(&arena);
    crew_bytes_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL, *theirs = NULL, *again = NULL;
    crew_string text = { size ? (const char *)data : "", size };
    crew_error why;
    json_error_t error;
    json_t *json = json_loadb(text.data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error), *back = NULL;
    crew_status status = crew_json_decode(text, &limits, &arena, &value, &why);
    if (status == CREW_OK && json) {
        REQUIRE(crew_value_from_jansson(json, &arena, &theirs) == CREW_OK);
        REQUIRE(crew_value_equal(value, theirs));
        REQUIRE(crew_value_to_jansson(value, &back) == CREW_OK && json_equal(json, back));
        check_written(value, json);
    } else if (status == CREW_OK) {
        crew_bytes written;
        REQUIRE(is_beyond_jansson(&error, text));
        REQUIRE(crew_json_encode(value, CREW_JSON_COMPACT, &written) == CREW_OK);
        REQUIRE(crew_json_decode((crew_string){ written.data, written.size }, &limits, &arena, &again,
                                 &why) == CREW_OK);
        REQUIRE(fuzz_same(value, again));
        crew_bytes_free(&written);
    } else {
        REQUIRE(!json || is_beyond_us(status, text));
    }
    json_decref(json);
    json_decref(back);
    crew_arena_fini(&arena);
    return 0;
}
