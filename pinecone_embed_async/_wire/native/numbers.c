#include "numbers.h"

power_t powers[GREATEST_POWER - LEAST_POWER + 1];

/* The powers are computed rather than written down: it takes microseconds, and there is no table to trust. 5^q is exact up to
   the greatest. For 5^-n, 2^319 is divided by 5 n times; rounding down each time gives what rounding down once would. */
__attribute__((constructor)) static void compute_powers(void) {
    uint128 five = 1;
    for (int q = 0; q <= GREATEST_POWER; q++, five *= 5) {
        int shift = 0;
        while (!(five << shift >> 127))
            shift++;
        const uint128 bits = five << shift;
        *POWER(q) = (power_t){(uint64_t)(bits >> 64), (uint64_t)bits, q - shift + 64};
    }
    uint64_t words[5] = {0, 0, 0, 0, UINT64_C(1) << 63};
    for (int q = -1; q >= LEAST_POWER; q--) {
        uint64_t rest = 0;
        for (int word = 4; word >= 0; word--) {
            const uint128 part = (uint128)rest << 64 | words[word];
            words[word] = (uint64_t)(part / 5);
            rest = (uint64_t)(part % 5);
        }
        int word = 4;
        while (!words[word])
            word--;
        const int shift = __builtin_clzll(words[word]);
        uint128 bits = ((uint128)words[word] << 64 | words[word - 1]) << shift;
        if (shift)
            bits |= words[word - 2] >> (64 - shift);
        /* The first 64 bits are worth 2^(64 * word - shift), of 2^319. */
        *POWER(q) = (power_t){(uint64_t)(bits >> 64), (uint64_t)bits, 64 * word - shift - 319 + q};
    }
}

/* digits * 10^q to a double, if one is certain: the product of the digits and the power is known but for its last bits. */
static bool to_double(uint64_t digits, int q, double *value) {
    const power_t *power = POWER(q);
    const int shift = __builtin_clzll(digits);
    const uint128 low = (uint128)(digits << shift) * power->low;
    uint128 product = (uint128)(digits << shift) * power->high + (low >> 64);
    uint64_t below = (uint64_t)low;
    int exponent = power->exponent - shift + 64;
    if (!(product >> 127)) {
        product = product << 1 | below >> 63;
        below <<= 1;
        exponent--;
    }
    /* 53 bits, and the rest; a power of ten below 1 is too low, so the product is by less than 2 of the 128 bits. */
    const uint128 half = (uint128)1 << 74;
    const uint128 rest = product & (2 * half - 1);
    uint64_t bits = (uint64_t)(product >> 75);
    if (q < 0 && rest <= half && half - rest <= 3)
        return false;
    bits += rest > half || (rest == half && (below != 0 || (bits & 1)));
    /* A carry gives 2^53, which is a double too. The exponent is far within a double's range. */
    const uint64_t scale = (uint64_t)(1023 + exponent + 11) << 52;
    double factor;
    memcpy(&factor, &scale, sizeof factor);
    *value = (double)bits * factor;
    return true;
}

bool to_float_exactly(uint64_t digits, int q, bool is_negative, bool is_truncated, float *value) {
    double low, high;
    if (!to_double(digits, q, &low))
        return false;
    if (is_truncated && (!to_double(digits + 1, q, &high) || low != high))
        return false;
    /* From here on it would be rounded to an infinity: halfway between the greatest float and 2^128. */
    if (low >= 0x1.ffffffp127)
        return false;
    *value = is_negative ? -(float)low : (float)low;
    return true;
}

static inline bool is_digit(uint8_t byte) {
    return byte - (unsigned)'0' <= 9;
}

/* The significant digits of a number, up to 19 of them. */
typedef struct {
    uint64_t value;
    int count;
    int64_t dropped;
    bool is_truncated;
} significant_t;

/* Read digits up to the first byte that is none. */
static const uint8_t *read_digits(const uint8_t *at, text_t text, significant_t *digits) {
    if (digits->count == 0)
        while (*at == '0')
            at++;
    while (digits->count <= 11 && text.end - at >= 8) {
        const uint64_t bytes = load_8(at);
        const int count = digits_of_8(bytes);
        if (count == 0)
            return at;
        digits->value = digits->value * tens[count] + value_of_8(bytes << (8 * (8 - count)));
        digits->count += count;
        at += count;
        if (count < 8)
            return at;
    }
    for (; digits->count < 19 && is_digit(*at); at++, digits->count++)
        digits->value = digits->value * 10 + (*at - (unsigned)'0');
    for (; is_digit(*at); at++, digits->dropped++)
        digits->is_truncated |= *at != '0';
    return at;
}

const uint8_t *read_any_number(const uint8_t *at, text_t text, float *value) {
    const bool is_negative = *at == '-';
    at += is_negative;
    significant_t digits = {0};
    const uint8_t *start = at;
    at = read_digits(at, text, &digits);
    if (at == start || (*start == '0' && at - start > 1))
        return NULL;
    int64_t exponent = digits.dropped;
    const uint8_t *const whole_end = at;
    if (*at == '.') {
        start = ++at;
        const int64_t dropped = digits.dropped;
        at = read_digits(at, text, &digits);
        if (at == start)
            return NULL;
        exponent -= at - start - (digits.dropped - dropped);
    }
    if ((*at | 0x20) == 'e') {
        at++;
        const bool is_below = *at == '-';
        at += is_below || *at == '+';
        start = at;
        int64_t given = 0;
        for (; is_digit(*at); at++)
            /* Greater than any text is long. */
            given = given < INT64_C(1) << 40 ? given * 10 + (*at - '0') : given;
        if (at == start)
            return NULL;
        exponent += is_below ? -given : given;
    }
    /* It is below 10^top, and at least a tenth of it. */
    const int64_t top = exponent + digits.count;
    if (digits.value == 0 || top <= -46) {
        /* -0 is an integer, which has no sign. */
        *value = with_sign(0, is_negative && at != whole_end);
        return at;
    }
    if (top > GREATEST_POWER + 1)
        return NULL;
    return to_float(digits.value, (int)exponent, is_negative, digits.is_truncated, value) ? at : NULL;
}
