/* crew_pack's formats, of two kinds. One letter, with an argument made of the rest of the input: what it
 * packs unpacks as it was. And any format of letters that take a pointer or nothing: what a letter takes must
 * be there, and only one thing can be that for all of them, a value whose bytes are a string as well. */
#include "fuzz.h"

#include "core/value.h"
#include "support/colour.h"

#include <math.h>

enum { LETTERS_MOST = 24 };

static uint64_t number_of(crew_string bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes.size && i < 8; i++)
        number = number << 8 | (unsigned char)bytes.data[i];
    return number;
}

static void pack_numbers(char letter, crew_string bytes, crew_arena *arena)
{
    const crew_value *value = NULL;
    uint64_t natural = number_of(bytes), got_natural = 0;
    int64_t integer = (int64_t)natural, got_integer = 0;
    int small = (int)natural, got_small = 0;
    double number, got_number = 0;
    bool got_bool = false;
    memcpy(&number, &natural, sizeof number);
    switch (letter) {
    case 'b':
        REQUIRE(crew_pack(arena, &value, "b", small) == CREW_OK &&
                crew_unpack(value, "b", &got_bool) == CREW_OK);
        REQUIRE(got_bool == (small != 0));
        break;
    case 'i':
        REQUIRE(crew_pack(arena, &value, "i", small) == CREW_OK &&
                crew_unpack(value, "i", &got_small) == CREW_OK);
        REQUIRE(got_small == small);
        break;
    case 'I':
        REQUIRE(crew_pack(arena, &value, "I", integer) == CREW_OK &&
                crew_unpack(value, "I", &got_integer) == CREW_OK);
        REQUIRE(got_integer == integer);
        break;
    case 'U':
        REQUIRE(crew_pack(arena, &value, "U", natural) == CREW_OK &&
                crew_unpack(value, "U", &got_natural) == CREW_OK);
        REQUIRE(got_natural == natural);
        break;
    default:
        REQUIRE(crew_pack(arena, &value, "f", number) == CREW_OK &&
                crew_unpack(value, "f", &got_number) == CREW_OK);
        REQUIRE(got_number == number || (isnan(got_number) && isnan(number)));
        break;
    }
}

static void pack_texts(char letter, crew_string bytes, crew_arena *arena)
{
    const crew_value *value = NULL;
    crew_string text = crew_arena_string(arena, bytes), got = { 0 };
    struct colour colour = { text.size & 255, 2, 3 }, other = { 0 };
    const void *data = NULL;
    size_t size = 0;
    switch (letter) {
    case 'S':
        REQUIRE(crew_pack(arena, &value, "{S:[S]}", text, text) == CREW_OK);
        REQUIRE(crew_string_equal(crew_text_of(crew_value_key_at(value, 0)), text));
        REQUIRE(crew_unpack(crew_value_at(value, 0), "[S]", &got) == CREW_OK && crew_string_equal(got, text));
        break;
    case '#':
        REQUIRE(crew_pack(arena, &value, "{s#:s#}", text.data, (int)text.size, text.data, (int)text.size) ==
                CREW_OK);
        REQUIRE(crew_string_equal(crew_text_of(crew_value_at(value, 0)), text));
        break;
    case '%':
        REQUIRE(crew_pack(arena, &value, "s%", text.data, text.size) == CREW_OK);
        REQUIRE(crew_unpack(value, "s%", &data, &size) == CREW_OK && size == text.size);
        break;
    case 'y':
        REQUIRE(crew_pack(arena, &value, "y%", text.data, text.size) == CREW_OK);
        REQUIRE(crew_unpack(value, "y%", &data, &size) == CREW_OK && size == text.size);
        REQUIRE(size == 0 || memcmp(data, text.data, size) == 0);
        break;
    default:
        REQUIRE(crew_pack(arena, &value, "t", &colour_type, &colour) == CREW_OK);
        REQUIRE(crew_unpack(value, "t", &colour_type, &other) == CREW_OK && other.red == colour.red);
        REQUIRE(crew_pack(arena, &value, "S", text) == CREW_OK);
        (void)!crew_unpack(value, "t", &colour_type, &other);
        break;
    }
}

static void pack_any(const uint8_t *data, size_t size, crew_arena *arena)
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
    const crew_value *made = NULL;
    const crew_value *a = &any;
    crew_status status = crew_pack(arena, &made, format, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a,
                                   a, a, a, a, a, a);
    REQUIRE(status == CREW_OK || status == CREW_BAD_ARGUMENT);
    if (status == CREW_OK) {
        crew_bytes text = { 0 };
        REQUIRE(crew_json_encode(made, CREW_JSON_COMPACT, &text) == CREW_OK);
        crew_bytes_free(&text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    crew_string rest = size ? fuzz_string(data + 1, size - 1) : (crew_string){ 0 };
    if (size && memchr("biIUf", data[0], 5))
        pack_numbers((char)data[0], rest, &arena);
    else if (size && memchr("S#%yt", data[0], 5))
        pack_texts((char)data[0], rest, &arena);
    else
        pack_any(data, size, &arena);
    crew_arena_fini(&arena);
    return 0;
}
