/* Strings and numbers of JSON text. */
#include "core/decimal.h"
#include "core/json_reader.h"
#include "core/json_text.h"
#include "core/memory.h"

#include <stdio.h>

/* ---- strings ---- */

/* Four digits; -1 if they are none. */
static int32_t read_hex(const char *at, const char *end)
{
    int32_t code = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

static char *write_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xE0 | code >> 12);
        } else {
            *to++ = (char)(0xF0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        }
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
    }
    *to++ = (char)(0x80 | (code & 0x3F));
    return to;
}

/* The escape at r->at, behind its backslash; *to moves behind what it stands for. */
static crew_status read_escape(struct json_reader *r, char **to)
{
    static const char letters[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *letter = r->at < r->end && *r->at ? strchr(letters, *r->at) : NULL;
    if (letter) {
        *(*to)++ = means[letter - letters];
        r->at++;
        return CREW_OK;
    }
    int32_t code = json_is_next(r, 'u') ? read_hex(r->at + 1, r->end) : -1;
    if (code < 0)
        return crew_json_malformed(r, "no escape");
    const char *from = r->at - 1;
    r->at += 5;
    if (code >= 0xD800 && code < 0xDC00 && r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] == 'u') {
        int32_t second = read_hex(r->at + 2, r->end);
        if (second >= 0xDC00 && second < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
            r->at += 6;
        }
    }
    if (code >= 0xD800 && code < 0xE000)
        return crew_json_fault(r, CREW_MALFORMED, from, "a lone surrogate");
    *to = write_utf8(*to, (uint32_t)code);
    return CREW_OK;
}

/* A string with escapes, whose first run ends at r->at; raw is all of it, without quotes. */
static crew_status read_escaped(struct json_reader *r, crew_string raw, crew_value *out)
{
    const char *end = raw.data + raw.size, *run = raw.data;
    char *copy = crew_arena_alloc(r->arena, raw.size + 1), *to = copy;
    crew_status status = CREW_OK;
    if (!copy)
        return crew_json_no_memory(r);
    r->at = run;
    while (status == CREW_OK && r->at < end) {
        uint64_t high = 0;
        const char *stop = crew_json_run_end(run, end, &high);
        crew_string bytes = { run, (size_t)(stop - run) };
        r->at = run;
        if (high && !crew_utf8_valid(bytes))
            return crew_json_malformed(r, "a string that is not UTF-8");
        memcpy(to, run, bytes.size);
        to += bytes.size;
        r->at = stop;
        if (stop < end && *stop != '\\')
            return crew_json_malformed(r, "a control character in a string");
        if (stop < end) {
            r->at++;
            status = read_escape(r, &to);
        }
        run = r->at;
    }
    *to = '\0';
    crew_arena_trim(r->arena, copy, raw.size + 1, (size_t)(to + 1 - copy));
    *out = crew_make_text(CREW_TYPE_STRING, (crew_string){ copy, (size_t)(to - copy) });
    r->at = end + 1;
    return status;
}

static crew_status store_string(struct json_reader *r, crew_string text, bool ascii, crew_value *out)
{
    if (!text.size) {
        *out = crew_make_text(CREW_TYPE_STRING, crew_str(""));
        return CREW_OK;
    }
    char *copy = crew_arena_alloc(r->arena, text.size + 1);
    if (!copy)
        return crew_json_no_memory(r);
    if (ascii && text.size > 64) {
        memcpy(copy, text.data, text.size);
    } else if (!crew_utf8_copy(copy, text)) {
        r->at = text.data;
        return crew_json_malformed(r, "a string that is not UTF-8");
    }
    copy[text.size] = '\0';
    *out = crew_make_text(CREW_TYPE_STRING, (crew_string){ copy, text.size });
    return CREW_OK;
}

crew_status crew_json_read_string(struct json_reader *r, crew_value *out)
{
    const char *start = r->at + 1;
    uint64_t high = 0;
    const char *stop = crew_json_run_end(start, r->end, &high), *end = stop;
    while (end < r->end && *end != '"')
        end += *end == '\\' ? 2 : 1;
    if (end >= r->end) {
        r->at = r->end;
        return crew_json_malformed(r, "");
    }
    crew_string raw = { start, (size_t)(end - start) };
    if (raw.size > r->limits->string_bytes) {
        char what[100];
        (void)snprintf(what, sizeof what, "a string of %zu bytes, at most %zu are allowed,", raw.size,
                       r->limits->string_bytes);
        *out = crew_make_text(CREW_TYPE_STRING, crew_str(""));
        r->at = end + 1;
        return crew_json_fault(r, CREW_LIMIT, start - 1, what);
    }
    if (stop < end)
        return read_escaped(r, raw, out);
    r->at = end + 1;
    return store_string(r, raw, !high, out);
}

/* ---- numbers ---- */

/* Digits from r->at on, into what is known of the number; how many there were. */
static size_t read_digits(struct json_reader *r, struct crew_decimal *decimal, bool fraction)
{
    const uint64_t room = (UINT64_MAX - 9) / 10; /* so there is room for any digit */
    const char *start = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        if (decimal->digits <= room) {
            decimal->digits = decimal->digits * 10 + (uint64_t)(*r->at - '0');
            decimal->exponent -= fraction;
        } else {
            decimal->cut |= *r->at != '0';
            decimal->exponent += !fraction;
        }
    }
    return (size_t)(r->at - start);
}

/* The exponent, of any size, at r->at behind its letter. */
static crew_status read_exponent(struct json_reader *r, int64_t *exponent)
{
    const int64_t most = INT64_MAX / 100; /* more than there can be digits to outweigh it */
    bool negative = json_is_next(r, '-');
    int64_t value = 0;
    r->at += negative || json_is_next(r, '+');
    const char *start = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (value < most)
            value = value * 10 + (*r->at - '0');
    *exponent += negative ? -value : value;
    return r->at > start ? CREW_OK : crew_json_malformed(r, "an exponent without digits");
}

static crew_status make_real(struct json_reader *r, const char *start, const struct crew_decimal *decimal,
                             crew_value *out)
{
    bool negative = *start == '-';
    crew_string text = { start + negative, (size_t)(r->at - start - negative) };
    double number = crew_decimal_to_double(*decimal, text);
    if (number > 1.7976931348623157e308) {
        *out = crew_make_double(0);
        return crew_json_fault(r, CREW_OUT_OF_RANGE, start, "a number beyond a double");
    }
    *out = crew_make_double(negative ? -number : number);
    return CREW_OK;
}

static crew_status make_integer(struct json_reader *r, const char *start, const struct crew_decimal *decimal,
                                crew_value *out)
{
    uint64_t digits = decimal->digits, last = 0;
    /* Of 20 digits the last may have been left for this. */
    bool fits = decimal->exponent == 0;
    if (decimal->exponent == 1) {
        last = (uint64_t)(r->at[-1] - '0');
        fits = !__builtin_mul_overflow(digits, 10, &digits) && !__builtin_add_overflow(digits, last, &digits);
    }
    if (*start != '-' && fits)
        *out = crew_make_uint(digits);
    else if (fits && digits <= (uint64_t)1 << 63)
        *out = crew_make_int((int64_t)(0 - digits));
    else {
        *out = crew_make_int(0);
        return crew_json_fault(r, CREW_OUT_OF_RANGE, start, "an integer beyond 64 bits");
    }
    return CREW_OK;
}

crew_status crew_json_read_number(struct json_reader *r, crew_value *out)
{
    const char *start = r->at;
    struct crew_decimal decimal = { 0 };
    crew_status status = CREW_OK;
    r->at += *start == '-';
    const char *first = r->at;
    size_t count = read_digits(r, &decimal, false);
    if (!count)
        return crew_json_malformed(r, "a number without digits");
    if (count > 1 && *first == '0') {
        r->at = first;
        return crew_json_malformed(r, "a number that begins with 0");
    }
    bool integer = true;
    if (json_is_next(r, '.')) {
        integer = false;
        r->at++;
        if (!read_digits(r, &decimal, true))
            return crew_json_malformed(r, "a fraction without digits");
    }
    if (json_is_next(r, 'e') || json_is_next(r, 'E')) {
        integer = false;
        r->at++;
        status = read_exponent(r, &decimal.exponent);
    }
    if (status != CREW_OK)
        return status;
    return integer ? make_integer(r, start, &decimal, out) : make_real(r, start, &decimal, out);
}
