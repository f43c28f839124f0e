#include "support/test.h"

#include "core/decimal.h"

#include <inttypes.h>
#include <math.h>

/* xorshift64: the same numbers each time. */
static uint64_t next_random(void)
{
    static uint64_t bits = 88172645463325252;
    bits ^= bits << 13;
    bits ^= bits >> 7;
    bits ^= bits << 17;
    return bits;
}

/* Of all kinds: any bits, subnormal ones, powers of two, few digits. */
static double some_double(unsigned kind)
{
    const uint64_t fraction = ((uint64_t)1 << 52) - 1;
    uint64_t bits = next_random() >> 1;
    double number;
    if (kind % 4 == 1)
        bits &= fraction;
    if (kind % 4 == 2)
        bits = (bits & ~fraction) | next_random() % 3;
    memcpy(&number, &bits, sizeof number);
    return kind % 4 == 3 ? (double)(bits % 1000000) / 1000 : number;
}

static double read_as_json_does(const char *text)
{
    struct crew_decimal decimal = { 0 };
    bool fraction = false;
    int digits = 0;
    const char *at = text;
    for (; *at && *at != 'e'; at++) {
        if (*at == '.') {
            fraction = true;
        } else if (digits < 19) {
            decimal.digits = decimal.digits * 10 + (uint64_t)(*at - '0');
            digits += decimal.digits > 0;
            decimal.exponent -= fraction;
        } else {
            decimal.cut |= *at != '0';
            decimal.exponent += !fraction;
        }
    }
    decimal.exponent += *at ? strtol(at + 1, NULL, 10) : 0;
    return crew_decimal_to_double(decimal, crew_str(text));
}

static void texts_are_read_as_libc_reads_them(void **state)
{
    (void)state;
    static const char *const hard[] = { "0",
                                        "0.0",
                                        "1e-400",
                                        "1e400",
                                        "2.2250738585072011e-308",
                                        "2.2250738585072014e-308",
                                        "4.9e-324",
                                        "2.4703282292062327e-324",
                                        "2.4703282292062328e-324",
                                        "1.7976931348623157e308",
                                        "1.7976931348623158e308",
                                        "1.7976931348623159e308",
                                        "9007199254740993",
                                        "9007199254740992.99999999999999999999999999999999",
                                        "9007199254740993.00000000000000000000000000000001",
                                        "0.000000000000000000000000000000000000000000000000000123e45",
                                        "100000000000000000000000000000000000000000000.00000000e-20",
                                        "8.5e-27",
                                        "1e23",
                                        "6.02214076e23" };
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++)
        assert_true(read_as_json_does(hard[i]) == strtod(hard[i], NULL));
    for (unsigned i = 0; i < 300000; i++) {
        char text[64];
        uint64_t digits = next_random() >> next_random() % 64;
        int exponent = (int)(next_random() % (i % 2 ? 700 : 60)) - (i % 2 ? 350 : 30);
        (void)snprintf(text, sizeof text, "%" PRIu64 "e%d", digits / 10, exponent);
        if (read_as_json_does(text) != strtod(text, NULL))
            fail_msg("%s", text);
    }
}

/* The exact middle between two doubles, and what is a little above or below it. */
static void halves_go_to_the_even_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        char text[1200];
        double number = some_double(i), above = nextafter(number, INFINITY);
        if (!isfinite(number) || !isfinite(above))
            continue;
        (void)snprintf(text, sizeof text, "%.1100Lg", ((long double)number + (long double)above) / 2);
        if (read_as_json_does(text) != strtod(text, NULL))
            fail_msg("%s", text);
        if (strchr(text, 'e') || !strchr(text, '.'))
            continue;
        strcat(text, "00000000000000000000001");
        if (read_as_json_does(text) != strtod(text, NULL))
            fail_msg("%s", text);
    }
}

static void the_fewest_digits_are_written_that_read_back_as_the_same(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        double number = some_double(i);
        char text[64], shorter[64];
        if (!isfinite(number) || number == 0)
            continue;
        struct crew_decimal written = crew_decimal_of_double(number);
        (void)snprintf(text, sizeof text, "%" PRIu64 "e%" PRId64, written.digits, written.exponent);
        if (strtod(text, NULL) != number)
            fail_msg("%a is written %s", number, text);
        while (written.digits % 10 == 0)
            written.digits /= 10;
        int digits = snprintf(text, sizeof text, "%" PRIu64, written.digits);
        (void)snprintf(shorter, sizeof shorter, "%.*e", digits > 1 ? digits - 2 : 0, number);
        if (digits > 1 && strtod(shorter, NULL) == number)
            fail_msg("%a is written %s, not %s", number, text, shorter);
        /* and the nearest of those with as many, where that is one */
        (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 1, number);
        if (digits > 1)
            memmove(shorter + 1, shorter + 2, strlen(shorter + 2) + 1);
        if (strtod(shorter, NULL) == number && strncmp(shorter, text, (size_t)digits) != 0)
            fail_msg("%a is written %s, not %s", number, text, shorter);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_read_as_libc_reads_them),
        cmocka_unit_test(halves_go_to_the_even_one),
        cmocka_unit_test(the_fewest_digits_are_written_that_read_back_as_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
