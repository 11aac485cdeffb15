/* Cuts an answer that arrives in pieces into its rows, which become float32 in their places, and the bytes between them.

   The first `[` opens `data`; each of the next `count` ones opens a row, which ends at the next `]`. Whether that is so is not
   judged here: the caller judges the bytes between the rows. No function of this file allocates, blocks or knows Python. */

#ifndef PINECONE_EMBED_ASYNC_ROWS_H
#define PINECONE_EMBED_ASYNC_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numbers.h"

typedef struct {
    uint8_t *bytes;
    size_t length, capacity;
} buffer_t;

typedef struct {
    /* Rows wanted, rows done, and whether `data` has begun. */
    size_t count, row;
    bool is_in_data;
    /* Where the rows go; NULL until the dimension is known. */
    float *matrix;
    size_t dimension;
    /* The bytes beside the rows; where those before each row end, the bracket that opens it included. */
    buffer_t beside;
    size_t *ends;
    /* A row that is not done, from its bracket on: with BEFORE bytes before it and room for BEHIND behind. */
    buffer_t kept;
    bool is_kept_whole;
    /* More bytes than this are no row. */
    size_t longest;
    bool is_portable;
} rows_t;

typedef enum {
    /* The piece has been read, or as much of it as was asked for. */
    ROWS_READ,
    /* The kept row is whole, and the caller must place it: there is no matrix yet, or it is not plain. */
    ROWS_ODD,
    /* A row is longer than any may be. */
    ROWS_TOO_LONG,
    /* A buffer needs `*missing` more bytes; nothing is lost. */
    ROWS_BESIDE_FULL,
    ROWS_KEPT_FULL,
} rows_outcome_t;

/* Read a piece from `*position` on, which moves; no row is started at `stop` or behind it. */
rows_outcome_t rows_read(rows_t *rows, text_t piece, size_t *position, size_t stop, size_t *missing);

/* Count the kept row as done. There must be room for a byte in `beside`. */
void rows_accept_kept(rows_t *rows);

/* Whether this processor has what the path that is not portable needs. */
bool rows_has_fast_path(void);

#endif
