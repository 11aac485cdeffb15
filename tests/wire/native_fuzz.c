/* Coverage-guided fuzzing of the native module's rows: `make fuzz-native`, with clang's libFuzzer and its sanitizers.

   A body is read whole and in pieces, by the portable path and by the other; all of them must agree, and each number must be what
   `strtod` makes of it. Every piece is an allocation of its own, so that a byte read beyond it is found. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../pinecone_embed_async/_wire/native/rows.h"

enum { COUNT = 3, DIMENSION = 2, LONGEST = 400 };

#define REQUIRE(is_so)                                                                                                          \
    do {                                                                                                                        \
        if (!(is_so)) {                                                                                                         \
            fprintf(stderr, "not so: %s, line %d\n", #is_so, __LINE__);                                                         \
            abort();                                                                                                            \
        }                                                                                                                       \
    } while (0)

typedef struct {
    rows_t rows;
    size_t ends[COUNT];
    float matrix[COUNT * DIMENSION];
    /* Whether it stopped at a row that is not its to read. */
    bool has_stopped;
} reading_t;

static void grow(buffer_t *buffer, size_t missing) {
    /* To the byte, so that the sanitizer sees what is written beyond it. */
    uint8_t *const bytes = malloc(buffer->capacity + missing);
    REQUIRE(bytes != NULL);
    if (buffer->length)
        memcpy(bytes, buffer->bytes, buffer->length);
    free(buffer->bytes);
    buffer->bytes = bytes;
    buffer->capacity += missing;
}

static void read_piece(reading_t *reading, const uint8_t *bytes, size_t length, size_t most) {
    if (reading->has_stopped)
        return;
    uint8_t *const piece = malloc(length ? length : 1);
    REQUIRE(piece != NULL);
    if (length)
        memcpy(piece, bytes, length);
    size_t position = 0;
    while (position < length && !reading->has_stopped) {
        size_t missing = 0;
        const size_t before = position;
        const rows_outcome_t outcome =
            rows_read(&reading->rows, (text_t){piece, piece + length}, &position, position + most, &missing);
        REQUIRE(position <= length && position >= before && reading->rows.row <= COUNT);
        if (outcome == ROWS_BESIDE_FULL || outcome == ROWS_KEPT_FULL) {
            REQUIRE(missing > 0);
            grow(outcome == ROWS_KEPT_FULL ? &reading->rows.kept : &reading->rows.beside, missing);
        } else if (outcome == ROWS_READ)
            REQUIRE(position > before || reading->rows.row > 0);
        else
            reading->has_stopped = true;
    }
    free(piece);
}

static void begin(reading_t *reading, bool is_portable) {
    *reading = (reading_t){.rows = {.count = COUNT, .dimension = DIMENSION, .longest = LONGEST, .is_portable = is_portable}};
    reading->rows.ends = reading->ends;
    reading->rows.matrix = reading->matrix;
}

static void end(reading_t *reading) {
    free(reading->rows.beside.bytes);
    free(reading->rows.kept.bytes);
}

static bool is_digit(char byte) {
    return byte >= '0' && byte <= '9';
}

/* JSON's number, RFC 8259, section 6; NULL if there is none. */
static const char *behind_number(const char *at) {
    at += *at == '-';
    if (*at == '0')
        at++;
    else if (!is_digit(*at))
        return NULL;
    else
        while (is_digit(*at))
            at++;
    if (*at == '.') {
        if (!is_digit(*++at))
            return NULL;
        while (is_digit(*at))
            at++;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '+' || *at == '-';
        if (!is_digit(*at))
            return NULL;
        while (is_digit(*at))
            at++;
    }
    return at;
}

static const char *behind_space(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

/* Whether a row that was read is one, and its numbers are right. `text` is behind its bracket, and ends with one and a zero. */
static void judge(const char *text, const float *values) {
    for (int column = 0; column < DIMENSION; column++) {
        text = behind_space(text);
        const char *const behind = behind_number(text);
        REQUIRE(behind != NULL);
        float right = (float)strtod(text, NULL);
        if (behind - text == 2 && text[0] == '-' && text[1] == '0')
            right = 0;
        REQUIRE(memcmp(&right, values + column, sizeof right) == 0 && !isinf(right));
        text = behind_space(behind);
        REQUIRE(*text == (column + 1 < DIMENSION ? ',' : ']'));
        text++;
    }
    REQUIRE(*text == 0);
}

static void judge_all(const reading_t *reading, const uint8_t *body, size_t size) {
    const rows_t *const rows = &reading->rows;
    size_t at = 0, start = 0;
    for (size_t row = 0; row < rows->row; row++) {
        const size_t gap = rows->ends[row] - start;
        REQUIRE(at + gap <= size && memcmp(body + at, rows->beside.bytes + start, gap) == 0 && body[at + gap - 1] == '[');
        at += gap;
        start = rows->ends[row];
        const uint8_t *const closing = memchr(body + at, ']', size - at);
        REQUIRE(closing != NULL);
        const size_t length = (size_t)(closing + 1 - (body + at));
        char *const text = malloc(length + 1);
        REQUIRE(text != NULL);
        memcpy(text, body + at, length);
        text[length] = 0;
        judge(text, rows->matrix + row * DIMENSION);
        free(text);
        at = (size_t)(closing - body);
    }
}

static void require_same(const reading_t *one, const reading_t *other) {
    REQUIRE(one->has_stopped == other->has_stopped && one->rows.row == other->rows.row);
    REQUIRE(memcmp(one->matrix, other->matrix, one->rows.row * DIMENSION * sizeof(float)) == 0);
    for (size_t row = 0; row < one->rows.row; row++)
        REQUIRE(one->ends[row] == other->ends[row]);
    const size_t length = one->rows.row ? one->ends[one->rows.row - 1] : 0;
    REQUIRE(!length || memcmp(one->rows.beside.bytes, other->rows.beside.bytes, length) == 0);
    /* What is behind is cut differently, if one of them has stopped. */
    if (!one->has_stopped) {
        REQUIRE(one->rows.beside.length == other->rows.beside.length);
        REQUIRE(one->rows.kept.length == other->rows.kept.length);
        if (one->rows.kept.length)
            REQUIRE(memcmp(one->rows.kept.bytes, other->rows.kept.bytes, one->rows.kept.length) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4)
        return 0;
    /* The first bytes say where to cut, and after how many bytes to pause. */
    const size_t first = data[0], step = 1 + data[1] % 64, most = data[2] % 2 ? SIZE_MAX / 4 : 1 + data[2];
    /* A body begins within its rows, so that no input is spent on getting there. */
    uint8_t *const body = malloc(size - 2);
    REQUIRE(body != NULL);
    body[0] = '[';
    memcpy(body + 1, data + 3, size - 3);
    size -= 2;
    reading_t whole, portable, cut;
    begin(&whole, !rows_has_fast_path());
    begin(&portable, true);
    begin(&cut, data[2] % 4 > 1 || !rows_has_fast_path());
    read_piece(&whole, body, size, SIZE_MAX / 4);
    read_piece(&portable, body, size, most);
    size_t at = first < size ? first : size;
    read_piece(&cut, body, at, most);
    for (; at < size; at += step)
        read_piece(&cut, body + at, step < size - at ? step : size - at, most);
    judge_all(&whole, body, size);
    require_same(&whole, &portable);
    require_same(&whole, &cut);
    end(&whole);
    end(&portable);
    end(&cut);
    free(body);
    return 0;
}
