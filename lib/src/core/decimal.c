/* Reading follows Lemire, "Number parsing at a gigabyte per second" (2021) and Mushtak and Lemire, "Fast
 * number parsing without fallback" (2023); writing follows Giulietti, "The Schubfach way to render doubles"
 * (2020). Both multiply by powers of ten that are known to 128 bits. */
#include "core/decimal.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

__extension__ typedef unsigned __int128 uint128;

/* ---- powers of ten ---- */

enum { LEAST_POWER = -342, MOST_POWER = 324, MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
enum { BIG_WORDS = 16 };

/* The first 128 bits of 10^i, rounded down; the binary exponent follows from i. */
static uint128 powers[MOST_POWER - LEAST_POWER + 1];

/* The first 128 bits of a number of little-endian words, which is not 0. */
static uint128 first_bits(const uint64_t *words)
{
    int high = BIG_WORDS - 1;
    while (!words[high])
        high--;
    int shift = __builtin_clzll(words[high]);
    uint64_t next = high >= 1 ? words[high - 1] : 0, last = high >= 2 ? words[high - 2] : 0;
    uint128 top = (uint128)words[high] << 64 | next;
    return shift ? top << shift | last >> (64 - shift) : top;
}

/* Powers of two do not change the bits, so powers of five are enough: those above 1 exactly, those below by
 * dividing 2^1023 again and again, rounded down each time, which is as good as once. */
static void compute_powers(void)
{
    uint64_t big[BIG_WORDS] = { 1 }, small[BIG_WORDS] = { [BIG_WORDS - 1] = (uint64_t)1 << 63 };
    for (int power = 0; power <= MOST_POWER; power++) {
        uint64_t carry = 0;
        powers[power - LEAST_POWER] = first_bits(big);
        for (int i = 0; i < BIG_WORDS; i++) {
            uint128 product = (uint128)big[i] * 5 + carry;
            big[i] = (uint64_t)product;
            carry = (uint64_t)(product >> 64);
        }
    }
    for (int power = -1; power >= LEAST_POWER; power--) {
        uint64_t rest = 0;
        for (int i = BIG_WORDS - 1; i >= 0; i--) {
            uint128 dividend = (uint128)rest << 64 | small[i];
            small[i] = (uint64_t)(dividend / 5);
            rest = (uint64_t)(dividend % 5);
        }
        powers[power - LEAST_POWER] = first_bits(small);
    }
}

static uint128 power_of_ten(int power)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, compute_powers);
    return powers[power - LEAST_POWER];
}

/* floor(log2(10^power)), for all that occur. */
static int log2_of_ten(int power)
{
    return (power * 1741647) >> 19;
}

/* ---- reading ---- */

enum { EXACT_POWER = 22 };
static const uint64_t exact_digits = (uint64_t)1 << (MANTISSA_BITS + 1);

/* Both are doubles without error, and so one operation on them is rounded once. */
static double scale_exactly(uint64_t digits, int exponent)
{
    static const double exact[EXACT_POWER + 1] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    return exponent < 0 ? (double)digits / exact[-exponent] : (double)digits * exact[exponent];
}

static double from_bits(uint64_t bits)
{
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* digits times the power of ten, the first 128 bits of it: as many as are needed to round it. */
static uint128 scale(uint64_t digits, int exponent)
{
    uint128 power = power_of_ten(exponent);
    if (exponent < 0 && exponent >= -27) /* exact quotients must not seem to be a little less */
        power++;
    uint128 product = (uint128)digits * (uint64_t)(power >> 64);
    const uint64_t undecided = ((uint64_t)1 << (64 - MANTISSA_BITS - 3)) - 1;
    if (((uint64_t)(product >> 64) & undecided) == undecided)
        product += (uint128)digits * (uint64_t)power >> 64;
    return product;
}

static double nearest_double(uint64_t digits, int64_t exponent)
{
    if (!digits || exponent < LEAST_POWER)
        return 0;
    if (exponent > 308)
        return INFINITY;
    int shift = __builtin_clzll(digits), power = (int)exponent;
    uint128 product = scale(digits << shift, power);
    uint64_t high = (uint64_t)(product >> 64);
    int carry = (int)(high >> 63), dropped = carry + 64 - MANTISSA_BITS - 3;
    uint64_t mantissa = high >> dropped; /* and one bit more, to round by */
    int binary = log2_of_ten(power) + 63 + carry - shift + EXPONENT_BIAS;
    if (binary <= 0) { /* subnormal, or nothing at all */
        if (binary <= -63)
            return 0;
        mantissa >>= 1 - binary;
        mantissa = (mantissa + (mantissa & 1)) >> 1;
        return from_bits(mantissa); /* which may have become the least normal one */
    }
    bool tie = (uint64_t)product <= 1 && power >= -4 && power <= 23 && (mantissa & 3) == 1 &&
               mantissa << dropped == high;
    if (tie)
        mantissa &= ~(uint64_t)1;
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    /* A carry out of the mantissa goes to the exponent, where it belongs. */
    uint64_t bits = ((uint64_t)binary << MANTISSA_BITS) + mantissa - ((uint64_t)1 << MANTISSA_BITS);
    return bits >> MANTISSA_BITS >= 2 * EXPONENT_BIAS + 1 ? INFINITY : from_bits(bits);
}

/* libc decides. It gets all digits that can matter and no decimal point, which depends on the locale. */
static double let_libc_read(crew_string text)
{
    enum { DIGITS_MOST = 800 };
    char digits[DIGITS_MOST + 40];
    size_t count = 0;
    int64_t exponent = 0, written = 0;
    bool fraction = false, negative = false;
    size_t i = 0;
    for (; i < text.size && text.data[i] != 'e' && text.data[i] != 'E'; i++) {
        char c = text.data[i];
        if (c == '.')
            fraction = true;
        if (c < '0' || c > '9' || (c == '0' && !count && !fraction))
            continue;
        exponent -= fraction;
        if (c == '0' && !count)
            continue;
        if (count < DIGITS_MOST)
            digits[count++] = c;
        else
            exponent++;
        if (count == DIGITS_MOST && c != '0')
            digits[count - 1] = '1'; /* that more than nothing follows is all that it can tell */
    }
    for (i++; i < text.size; i++) {
        negative |= text.data[i] == '-';
        if (text.data[i] >= '0' && text.data[i] <= '9' && written < INT32_MAX)
            written = written * 10 + (text.data[i] - '0');
    }
    (void)snprintf(digits + count, sizeof digits - count, "e%" PRId64,
                   exponent + (negative ? -written : written));
    return strtod(digits, NULL);
}

double crew_decimal_to_double(struct crew_decimal decimal, crew_string text)
{
    bool exact = FLT_EVAL_METHOD == 0 && !decimal.cut && decimal.digits <= exact_digits &&
                 decimal.exponent >= -EXACT_POWER && decimal.exponent <= EXACT_POWER;
    if (exact)
        return scale_exactly(decimal.digits, (int)decimal.exponent);
    double number = nearest_double(decimal.digits, decimal.exponent);
    if (decimal.cut && nearest_double(decimal.digits + 1, decimal.exponent) != number)
        return let_libc_read(text);
    return number;
}

/* ---- writing ---- */

/* The upper bits of power * factor; the lowest one says whether there is more below, but for what the power's
 * own rounding up may have left there. */
static uint64_t multiply_to_odd(uint128 power, uint64_t factor)
{
    uint128 low = (uint128)(uint64_t)power * factor;
    uint128 high = (uint128)(uint64_t)(power >> 64) * factor + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* Of the two neighbours of a number with a digit less, the one that lies within the interval of what reads
 * back as the same double; false if that is not exactly one. All but digits are in quarters. */
static bool choose(uint64_t digits, uint64_t unit, uint64_t lower, uint64_t upper, uint64_t *chosen)
{
    bool below = lower <= 4 * digits * unit, above = 4 * (digits + 1) * unit <= upper;
    *chosen = digits + above;
    return below != above;
}

struct crew_decimal crew_decimal_of_double(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint64_t fraction = bits & (((uint64_t)1 << MANTISSA_BITS) - 1);
    int stored = (int)(bits >> MANTISSA_BITS) & 0x7ff;
    uint64_t mantissa = stored ? fraction | (uint64_t)1 << MANTISSA_BITS : fraction;
    int binary = (stored ? stored : 1) - EXPONENT_BIAS - MANTISSA_BITS;
    bool odd = mantissa & 1, nearer_below = !fraction && stored > 1;

    /* 10^ten is the largest power that is not above the interval's width. */
    int ten = nearer_below ? (binary * 1262611 - 524031) >> 22 : (binary * 1262611) >> 22;
    int shift = binary + log2_of_ten(-ten) + 1;
    uint128 power = power_of_ten(-ten);
    if (-ten < 0 || -ten > 55) /* these are not exact: rounded up */
        power++;
    uint64_t lower = multiply_to_odd(power, (4 * mantissa - 2 + nearer_below) << shift) + odd;
    uint64_t middle = multiply_to_odd(power, 4 * mantissa << shift);
    uint64_t upper = multiply_to_odd(power, (4 * mantissa + 2) << shift) - odd;

    uint64_t digits = middle / 4, chosen;
    if (digits >= 10 && choose(digits / 10, 10, lower, upper, &chosen))
        return (struct crew_decimal){ .digits = chosen, .exponent = ten + 1 };
    if (!choose(digits, 1, lower, upper, &chosen)) {
        uint64_t half = 4 * digits + 2;
        chosen = digits + (middle > half || (middle == half && (digits & 1)));
    }
    return (struct crew_decimal){ .digits = chosen, .exponent = ten };
}
