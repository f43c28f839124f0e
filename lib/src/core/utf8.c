/* UTF-8 checks: what goes into a JSON text or an error message passes here. */
#include "core/utf8.h"

size_t crew_utf8_length(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return 0;
    size_t length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xED && s[1] > 0x9F;
    bool too_high = s[0] == 0xF4 && s[1] > 0x8F;
    return overlong || surrogate || too_high ? 0 : length;
}

size_t crew_utf8_ascii(const char *text, size_t size)
{
    size_t i = 0;
    for (uint64_t words[4]; i + sizeof words <= size; i += sizeof words) {
        memcpy(words, text + i, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3]) & CREW_UTF8_HIGH_BITS)
            break;
    }
    while (i < size && (unsigned char)text[i] < 0x80)
        i++;
    return i;
}

bool crew_utf8_valid(crew_string text)
{
    for (size_t i = 0; i < text.size;) {
        i += crew_utf8_ascii(text.data + i, text.size - i);
        if (i == text.size)
            break;
        size_t length = crew_utf8_length(text.data + i, text.size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

bool crew_utf8_copy_long(char *to, crew_string text)
{
    memcpy(to, text.data, text.size);
    return crew_utf8_valid(text);
}

void crew_utf8_mend(char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t length = crew_utf8_length(text + i, size - i);
        if (length == 0) {
            text[i] = '?';
            length = 1;
        }
        i += length;
    }
}
