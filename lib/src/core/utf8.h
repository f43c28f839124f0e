/* UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef CORE_UTF8_H
#define CORE_UTF8_H

#include <rpcrew/base.h>

/* Bytes of the character at text, 1…4; 0 if it is none. size is at least 1. */
size_t crew_utf8_length(const char *text, size_t size);

/* How many bytes at the beginning are ASCII: most of most texts, so they are passed many at a time. */
size_t crew_utf8_ascii(const char *text, size_t size);

bool crew_utf8_valid(crew_string text);

/* Copies the text, and says whether it is valid; to has room for it. One pass, for what is mostly short
 * ASCII. */
bool crew_utf8_copy(char *to, crew_string text);

/* Replaces what is no UTF-8 by '?', byte by byte. */
void crew_utf8_mend(char *text, size_t size);

#endif
