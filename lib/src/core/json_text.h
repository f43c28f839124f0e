/* What reading and writing JSON strings share: finding the end of a run of bytes that stand for themselves.
 */
#ifndef CORE_JSON_TEXT_H
#define CORE_JSON_TEXT_H

#include "core/utf8.h"

#include <endian.h>

#define CREW_EACH_BYTE(byte) (0x0101010101010101U * (uint64_t)(byte))

/* The first quote, backslash or control character from at on, or end; eight bytes at a time. *high becomes
 * other than 0 if there is a byte before it that is not ASCII. */
static inline const char *crew_json_run_end(const char *at, const char *end, uint64_t *high)
{
    uint64_t all = 0;
    for (; end - at >= 8; at += 8) {
        uint64_t eight;
        memcpy(&eight, at, sizeof eight);
        eight = le64toh(eight);
        uint64_t quote = eight ^ CREW_EACH_BYTE('"'), backslash = eight ^ CREW_EACH_BYTE('\\');
        /* The high bit of what is found; behind the first one there may be false ones, by its borrow. */
        uint64_t found = ((quote - CREW_EACH_BYTE(1)) & ~quote) |
                         ((backslash - CREW_EACH_BYTE(1)) & ~backslash) |
                         ((eight - CREW_EACH_BYTE(0x20)) & ~eight);
        found &= CREW_UTF8_HIGH_BITS;
        if (found) {
            unsigned before = (unsigned)__builtin_ctzll(found) - 7;
            *high |= (all | (eight & (((uint64_t)1 << before) - 1))) & CREW_UTF8_HIGH_BITS;
            return at + before / 8;
        }
        all |= eight;
    }
    for (; at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20; at++)
        all |= (unsigned char)*at;
    *high |= all & CREW_UTF8_HIGH_BITS;
    return at;
}

#endif
