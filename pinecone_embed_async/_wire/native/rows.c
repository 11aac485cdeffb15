#include "rows.h"

static inline const uint8_t *skip_space(const uint8_t *at) {
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

/* Decodes a row; false if it is not plain. `at` is behind its opening bracket, `end` at its closing one, where every loop
   stops at the latest. */
#define DEFINE_DECODE_ROW(name, attributes, read)                                                                           \
    attributes static bool name(const uint8_t *at, const uint8_t *end, text_t text, float *values, size_t dimension) {      \
        at = skip_space(at);                                                                                                \
        for (size_t column = 0; column < dimension; column++) {                                                             \
            at = read(at, text, values + column);                                                                           \
            if (at == NULL)                                                                                                 \
                return false;                                                                                               \
            if (*at != ',') {                                                                                               \
                at = skip_space(at);                                                                                        \
                if (at == end)                                                                                              \
                    return column + 1 == dimension;                                                                         \
                if (*at != ',')                                                                                             \
                    return false;                                                                                           \
            }                                                                                                               \
            at++;                                                                                                           \
            if (*at <= ' ')                                                                                                 \
                at = skip_space(at);                                                                                        \
        }                                                                                                                   \
        return false;                                                                                                       \
    }

DEFINE_DECODE_ROW(decode_row_portable, , read_number)

#if HAS_AVX2_PATH
DEFINE_DECODE_ROW(decode_row_avx2, __attribute__((target("avx2,bmi,bmi2"))), read_number_avx2)

bool rows_has_fast_path(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#else
bool rows_has_fast_path(void) {
    return false;
}
#endif

static bool decode_row(const rows_t *rows, const uint8_t *opening, const uint8_t *end, text_t text) {
    float *const values = rows->matrix + rows->row * rows->dimension;
#if HAS_AVX2_PATH
    if (!rows->is_portable)
        return decode_row_avx2(opening + 1, end, text, values, rows->dimension);
#endif
    return decode_row_portable(opening + 1, end, text, values, rows->dimension);
}

static bool has_room(const buffer_t *buffer, size_t bytes, size_t *missing) {
    const size_t room = buffer->capacity - buffer->length;
    *missing = bytes > room ? bytes - room : 0;
    return bytes <= room;
}

static void append(buffer_t *buffer, const uint8_t *bytes, size_t length) {
    if (length)
        memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void keep(rows_t *rows, const uint8_t *bytes, size_t length) {
    if (rows->kept.length == 0) {
        memset(rows->kept.bytes, 0, BEFORE);
        rows->kept.length = BEFORE;
    }
    append(&rows->kept, bytes, length);
}

static bool has_room_to_keep(const rows_t *rows, size_t bytes, size_t *missing) {
    return has_room(&rows->kept, bytes + BEFORE + BEHIND, missing);
}

void rows_accept_kept(rows_t *rows) {
    append(&rows->beside, (const uint8_t *)"[", 1);
    rows->ends[rows->row++] = rows->beside.length;
    rows->kept.length = 0;
    rows->is_kept_whole = false;
}

/* Go on with the kept row: add what the piece has of it, and decode it if that is all. */
static rows_outcome_t finish_kept(rows_t *rows, text_t piece, size_t *position, size_t *missing) {
    if (!rows->is_kept_whole) {
        const uint8_t *const start = piece.begin + *position;
        const size_t left = (size_t)(piece.end - start);
        const uint8_t *const end = left ? memchr(start, ']', left) : NULL;
        const size_t length = end ? (size_t)(end - start) + 1 : left;
        if (!has_room_to_keep(rows, length, missing))
            return ROWS_KEPT_FULL;
        keep(rows, start, length);
        /* The closing bracket belongs to what is beside the rows, too. */
        *position += end ? length - 1 : length;
        rows->is_kept_whole = end != NULL;
        if (rows->kept.length - BEFORE > rows->longest + 1) {
            *position += end != NULL;
            return ROWS_TOO_LONG;
        }
        if (!end)
            return ROWS_READ;
    }
    if (!has_room(&rows->beside, 1, missing))
        return ROWS_BESIDE_FULL;
    if (rows->matrix == NULL)
        return ROWS_ODD;
    const uint8_t *const begin = rows->kept.bytes, *const behind = begin + rows->kept.length;
    memset(rows->kept.bytes + rows->kept.length, 0, BEHIND);
    if (!decode_row(rows, begin + BEFORE, behind - 1, (text_t){begin, behind + BEHIND}))
        return ROWS_ODD;
    rows_accept_kept(rows);
    return ROWS_READ;
}

rows_outcome_t rows_read(rows_t *rows, text_t piece, size_t *position, size_t stop, size_t *missing) {
    if (rows->kept.length) {
        const rows_outcome_t outcome = finish_kept(rows, piece, position, missing);
        if (outcome != ROWS_READ)
            return outcome;
    }
    const uint8_t *at = piece.begin + *position;
    const uint8_t *const last = (size_t)(piece.end - piece.begin) < stop ? piece.end : piece.begin + stop;
    while (at < last) {
        const size_t left = (size_t)(piece.end - at);
        const bool is_behind = rows->row == rows->count;
        const uint8_t *const opening = is_behind ? NULL : memchr(at, '[', left);
        const bool is_row = opening != NULL && rows->is_in_data;
        const uint8_t *const end = is_row ? memchr(opening, ']', (size_t)(piece.end - opening)) : NULL;
        const size_t before = opening ? (size_t)(opening - at) : left;
        const size_t length = is_row ? (size_t)((end ? end + 1 : piece.end) - opening) : 0;
        /* Both brackets are counted, also where a row has not ended. */
        if (length > rows->longest + 1)
            return ROWS_TOO_LONG;
        if (!has_room(&rows->beside, before + 1, missing))
            return ROWS_BESIDE_FULL;
        if (!is_row) {
            append(&rows->beside, at, before + (opening != NULL));
            rows->is_in_data |= opening != NULL;
            at += before + (opening != NULL);
        } else if (end && rows->matrix && decode_row(rows, opening, end, piece)) {
            append(&rows->beside, at, before + 1);
            rows->ends[rows->row++] = rows->beside.length;
            at = end;
        } else {
            if (!has_room_to_keep(rows, length, missing))
                return ROWS_KEPT_FULL;
            append(&rows->beside, at, before);
            keep(rows, opening, length);
            rows->is_kept_whole = end != NULL;
            at = end ? end : piece.end;
        }
        *position = (size_t)(at - piece.begin);
        if (rows->is_kept_whole)
            return ROWS_ODD;
    }
    return ROWS_READ;
}
