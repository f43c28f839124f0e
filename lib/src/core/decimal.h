/* Doubles and decimal digits, both ways: the nearest double of a text, the shortest text of a double. */
#ifndef CORE_DECIMAL_H
#define CORE_DECIMAL_H

#include <rpcrew/base.h>

/* A positive number: digits * 10^exponent. Of a text with more than 19 digits the first 19, from the first
 * one that is not 0; cut says that others than 0 were left out. */
struct crew_decimal {
    uint64_t digits;
    int64_t exponent;
    bool cut;
};

/* The nearest double, of two as near the even one; an infinity beyond the largest. text: the number as JSON
 * writes it, for what 19 digits do not decide. Any thread. */
double crew_decimal_to_double(struct crew_decimal decimal, crew_string text);

/* The fewest digits that read back as number, and of those the nearest; at most 17. number is finite and more
 * than 0. Any thread. */
struct crew_decimal crew_decimal_of_double(double number);

#endif
