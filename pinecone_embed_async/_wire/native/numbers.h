/* JSON numbers to float32, bit-equal to rounding to a double first and then to a float.

   Only what is exact and ordinary is read here; `read_number` returns NULL for the rest, which the caller gives to another
   parser. Published algorithms, written anew:

   - Eight digits at a time in a register, and the powers of ten as truncated 128-bit numbers, after D. Lemire, "Number
     Parsing at a Gigabyte per Second", Software: Practice and Experience 51 (8), 2021.
   - A decimal is decided by a truncated product wherever the error of truncation cannot matter, after W. D. Clinger, "How to
     Read Floating Point Numbers Accurately", PLDI 1990. */

#ifndef PINECONE_EMBED_ASYNC_NUMBERS_H
#define PINECONE_EMBED_ASYNC_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) || !defined(__SIZEOF_INT128__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "needs a 64-bit little-endian machine, and GCC or Clang"
#endif

#if defined(__x86_64__)
#define HAS_AVX2_PATH 1
#include <immintrin.h>
#else
#define HAS_AVX2_PATH 0
#endif

typedef unsigned __int128 uint128;

/* Bytes that may be read before and behind the text of a number. */
enum { BEFORE = 32, BEHIND = 64 };

/* A text of which the number is a part: its bytes, beyond the number too, may be read. */
typedef struct {
    const uint8_t *begin, *end;
} text_t;

/* 10^q = (high + low / 2^64) * 2^exponent, rounded down to 128 bits. The decimals of a float32 need no others: those below 10^-46 are
   zeros, those from 10^39 on are no float32, and there are up to 19 digits before the exponent. */
enum { LEAST_POWER = -65, GREATEST_POWER = 38 };

typedef struct {
    uint64_t high, low;
    int32_t exponent;
} power_t;

extern power_t powers[GREATEST_POWER - LEAST_POWER + 1];

#define POWER(q) (&powers[(q) - LEAST_POWER])

static inline float with_sign(uint32_t bits, bool is_negative) {
    float value;
    bits |= (uint32_t)is_negative << 31;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* What `to_float_exactly` is for: near halfway between two floats, and outside of a float's normal range. False where a double
   is halfway too, or so near that 128 bits of the power do not tell. */
bool to_float_exactly(uint64_t digits, int q, bool is_negative, bool is_truncated, float *value);

/* digits * 10^q to a float; `is_truncated` if digits is rounded down from 19 digits. False if it cannot tell. */
static inline __attribute__((always_inline)) bool to_float(
    uint64_t digits, int q, bool is_negative, bool is_truncated, float *value) {
    if (digits == 0) {
        *value = with_sign(0, is_negative);
        return true;
    }
    const int shift = __builtin_clzll(digits);
    const power_t *power = POWER(q);
    const uint64_t product = (uint64_t)(((uint128)(digits << shift) * power->high) >> 64);
    const int is_short = !(product >> 63);
    /* The first 64 bits. They are too low by up to 4 for the power's lower half and what was shifted out, and by up to 37 for
       digits that were truncated. */
    const uint64_t bits = product << is_short;
    const int exponent = 254 + power->exponent - shift - is_short;
    /* Rounding to a double first moves a number by up to 2^10 of these. Only if it is so near to halfway between two floats
       that this or the error above matters does it have to be done. */
    const uint64_t half = UINT64_C(1) << 39, slack = (UINT64_C(1) << 10) + 64;
    const uint64_t rest = bits & (2 * half - 1);
    if (__builtin_expect(rest - (half - slack) <= 2 * slack || exponent < 1 || exponent > 253, 0))
        return to_float_exactly(digits, q, is_negative, is_truncated, value);
    /* A carry out of the fraction's bits raises the exponent, as it must. */
    const uint32_t rounded = (uint32_t)(bits >> 40) + (uint32_t)((bits >> 39) & 1);
    *value = with_sign(((uint32_t)exponent << 23) + (rounded - (UINT32_C(1) << 23)), is_negative);
    return true;
}

static inline uint64_t load_8(const uint8_t *at) {
    uint64_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    return bytes;
}

/* How many of eight bytes are digits before the first that is none. */
static inline int digits_of_8(uint64_t bytes) {
    const uint64_t others =
        ((bytes + UINT64_C(0x4646464646464646)) | (bytes - UINT64_C(0x3030303030303030))) & UINT64_C(0x8080808080808080);
    return others ? __builtin_ctzll(others) >> 3 : 8;
}

/* The value of eight digits, the first of them in the lowest byte; zero bytes count as the digit 0. */
static inline uint64_t value_of_8(uint64_t bytes) {
    bytes &= UINT64_C(0x0f0f0f0f0f0f0f0f);
    bytes = bytes * 10 + (bytes >> 8);
    return (((bytes & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064)) +
            (((bytes >> 16) & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001))) >> 32;
}

static const uint64_t tens[20] = {
    UINT64_C(1), UINT64_C(10), UINT64_C(100), UINT64_C(1000), UINT64_C(10000), UINT64_C(100000), UINT64_C(1000000),
    UINT64_C(10000000), UINT64_C(100000000), UINT64_C(1000000000), UINT64_C(10000000000), UINT64_C(100000000000),
    UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000), UINT64_C(1000000000000000),
    UINT64_C(10000000000000000), UINT64_C(100000000000000000), UINT64_C(1000000000000000000), UINT64_C(10000000000000000000),
};

/* Any number, byte by byte where there are few. The text must have a byte that no number has, behind it. */
const uint8_t *read_any_number(const uint8_t *at, text_t text, float *value);

/* A number of one digit, a point and up to 24 digits; any other is left to `read_any_number`. */
static inline __attribute__((always_inline)) const uint8_t *read_number(const uint8_t *at, text_t text, float *value) {
    if (text.end - at < BEHIND)
        return read_any_number(at, text, value);
    const bool is_negative = *at == '-';
    const uint8_t *const first = at + is_negative;
    const unsigned whole = first[0] - (unsigned)'0';
    if (whole > 9 || first[1] != '.')
        return read_any_number(at, text, value);
    const uint8_t *next = first + 2;
    uint64_t digits = whole;
    int count, all = 0;
    do {
        const uint64_t bytes = load_8(next);
        count = digits_of_8(bytes);
        all += count;
        next += count;
        /* A shift by 64 for no digit is none in C. */
        if (count)
            digits = digits * tens[count] + value_of_8(bytes << (8 * (8 - count)));
    } while (count == 8 && all < 24);
    /* Up to 18 digits behind the point always fit, and leave room for the one before it. */
    if (all == 0 || all > 18 || (*next != ',' && *next != ']'))
        return read_any_number(at, text, value);
    return to_float(digits, -all, is_negative, false, value) ? next : NULL;
}

#if HAS_AVX2_PATH

/* 32 zeros, then 32 ones: from the n-th byte on, a mask of the last n bytes of a register. */
static const uint8_t last_bytes[64] = {
    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};

/* The same with 32 bytes at a time: one load finds the end of the digits, another that ends there brings them. Without a branch
   that depends on their number, which no processor can predict. */
__attribute__((target("avx2,bmi,bmi2"), always_inline)) static inline const uint8_t *read_number_avx2(
    const uint8_t *at, text_t text, float *value) {
    if (text.end - at < BEHIND || at - text.begin < BEFORE)
        return read_any_number(at, text, value);
    const __m256i zeros = _mm256_set1_epi8('0'), ten = _mm256_set1_epi8(10);
    __m256i bytes = _mm256_sub_epi8(_mm256_loadu_si256((const __m256i *)at), zeros);
    /* A bit for each byte that is no digit: the sign, the point and what is behind the number. */
    const uint32_t others = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(bytes, ten), bytes));
    const unsigned is_negative = others & 1;
    const uint32_t unsigned_others = others & ~UINT32_C(1);
    const unsigned length = _tzcnt_u32(_blsr_u32(unsigned_others));
    const uint8_t *const next = at + (length & 31);
    const unsigned count = length - 2 - is_negative;
    /* One branch: the sign of a number cannot be predicted. */
    const bool is_plain = (_tzcnt_u32(unsigned_others) == 1 + is_negative) & ((*at == '-') | !is_negative) &
                          (at[1 + is_negative] == '.') & (count - 1 <= 23) & ((*next == ',') | (*next == ']'));
    if (__builtin_expect(!is_plain, 0))
        return read_any_number(at, text, value);
    const unsigned whole = at[is_negative] - (unsigned)'0';
    const __m256i mask = _mm256_loadu_si256((const __m256i *)(last_bytes + count));
    bytes = _mm256_and_si256(_mm256_sub_epi8(_mm256_loadu_si256((const __m256i *)(next - 32)), zeros), mask);
    /* Two, four and eight digits each. */
    bytes = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(10 | 1 << 8));
    bytes = _mm256_madd_epi16(bytes, _mm256_set1_epi32(100 | 1 << 16));
    bytes = _mm256_packus_epi32(bytes, bytes);
    bytes = _mm256_madd_epi16(bytes, _mm256_set1_epi32(10000 | 1 << 16));
    const uint64_t upper = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(bytes)) >> 32;
    const uint64_t lower = (uint64_t)_mm_cvtsi128_si64(_mm256_extracti128_si256(bytes, 1));
    uint64_t digits = (lower & UINT32_MAX) * 100000000 + (lower >> 32);
    /* 1844 * 10^16 is just below 2^64. */
    if (__builtin_expect(upper > 1843, 0))
        return read_any_number(at, text, value);
    digits += upper * UINT64_C(10000000000000000);
    if (whole) {
        if (count > 18)
            return read_any_number(at, text, value);
        digits += whole * tens[count];
    }
    return to_float(digits, -(int)count, is_negative, false, value) ? next : NULL;
}

#endif

#endif
