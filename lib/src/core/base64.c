/* Base64, both ways. */
#include "core/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void crew_base64_encode(crew_string bytes, crew_buffer *out)
{
    char *place = crew_buffer_extend(out, (bytes.size + 2) / 3 * 4);
    if (!place)
        return;
    const unsigned char *in = (const unsigned char *)bytes.data;
    for (size_t left = bytes.size; left > 0; in += 3, place += 4) {
        uint32_t group =
            (uint32_t)in[0] << 16 | (left > 1 ? (uint32_t)in[1] << 8 : 0) | (left > 2 ? in[2] : 0);
        place[0] = digits[group >> 18];
        place[1] = digits[group >> 12 & 63];
        place[2] = '=';
        place[3] = '=';
        if (left > 1)
            place[2] = digits[group >> 6 & 63];
        if (left > 2)
            place[3] = digits[group & 63];
        left = left > 3 ? left - 3 : 0;
    }
}

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

crew_status crew_base64_decode(crew_string text, crew_arena *arena, crew_string *bytes)
{
    if (text.size % 4 != 0)
        return CREW_MALFORMED;
    size_t padding = 0;
    while (padding < 2 && padding < text.size && text.data[text.size - 1 - padding] == '=')
        padding++;
    size_t size = text.size / 4 * 3 - padding;
    char *place = crew_arena_alloc(arena, size + 1);
    if (!place)
        return CREW_NO_MEMORY;

    size_t written = 0;
    for (size_t i = 0; i < text.size; i += 4) {
        uint32_t group = 0;
        for (size_t j = i; j < i + 4; j++) {
            int value = j < text.size - padding ? digit_value(text.data[j]) : 0;
            if (value < 0)
                return CREW_MALFORMED;
            group = group << 6 | (uint32_t)value;
        }
        for (int shift = 16; shift >= 0; shift -= 8) {
            if (written < size)
                place[written++] = (char)(group >> shift & 0xFF);
            else if (group >> shift & 0xFF)
                return CREW_MALFORMED; /* bits that no byte takes */
        }
    }
    place[size] = '\0';
    *bytes = (crew_string){ place, size };
    return CREW_OK;
}
