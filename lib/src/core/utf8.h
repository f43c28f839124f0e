/* UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef CORE_UTF8_H
#define CORE_UTF8_H

#include <rpcrew/base.h>

/* Bytes of the character at text, 1…4; 0 if it is none. size is at least 1. */
size_t crew_utf8_length(const char *text, size_t size);

/* How many bytes at the beginning are ASCII: most of most texts, so they are passed many at a time. */
size_t crew_utf8_ascii(const char *text, size_t size);

bool crew_utf8_valid(crew_string text);

#define CREW_UTF8_HIGH_BITS 0x8080808080808080U /* which no ASCII character has */

/* For crew_utf8_copy: of texts beyond 64 bytes. */
bool crew_utf8_copy_long(char *to, crew_string text);

static inline uint64_t crew_utf8_copy_eight(char *to, const char *from)
{
    uint64_t eight;
    memcpy(&eight, from, sizeof eight);
    memcpy(to, &eight, sizeof eight);
    return eight;
}

static inline uint64_t crew_utf8_copy_four(char *to, const char *from)
{
    uint32_t four;
    memcpy(&four, from, sizeof four);
    memcpy(to, &four, sizeof four);
    return four;
}

/* Copies the text, and says whether it is valid; to has room for it. In one pass and without a call, since
 * most texts are keys and short; what is left at the end is taken together with bytes before it. */
static inline bool crew_utf8_copy(char *to, crew_string text)
{
    const char *from = text.data;
    size_t size = text.size;
    uint64_t all = 0;
    if (size > 64)
        return crew_utf8_copy_long(to, text);
    if (size >= 8) {
        for (size_t i = 0; i + 8 <= size; i += 8)
            all |= crew_utf8_copy_eight(to + i, from + i);
        all |= crew_utf8_copy_eight(to + size - 8, from + size - 8);
    } else if (size >= 4) {
        all = crew_utf8_copy_four(to, from) | crew_utf8_copy_four(to + size - 4, from + size - 4);
    } else {
        for (size_t i = 0; i < size; i++)
            all |= (unsigned char)(to[i] = from[i]);
    }
    return !(all & CREW_UTF8_HIGH_BITS) || crew_utf8_valid(text);
}

/* Replaces what is no UTF-8 by '?', byte by byte. */
void crew_utf8_mend(char *text, size_t size);

#endif
