/* convert_rows.c — see convert_rows.h. Rows are read, changed and narrowed in parallel, a few thousand values at a
 * time.
 */
#include "model/convert_rows.h"

#include <math.h>
#include <string.h>

#include "tensor/low_rank.h"

#define CHUNK 2048 /* values on the stack: whole blocks of every type */
#define COLUMNS 256

static uint64_t put(const float *x, enum dtype type, int64_t n, char *out)
{
    uint64_t over = 0;
    narrow(out, type, x, n);
    for (int64_t i = 0; i < n && type == DT_F16; i++) {
        uint16_t half;
        memcpy(&half, out + i * (int64_t)sizeof half, sizeof half);
        over += (half & 0x7FFF) == 0x7C00 && isfinite(x[i]);
    }
    return over;
}

/* An adapter's product is added to what is written. */
static bool merges(const struct piece *p) { return p->from && p->from->w.low_rank; }

/* Elements first … first + n of a piece, inside one of its rows. */
static void read_piece(const struct source *s, const struct piece *p, int64_t first, int64_t n, float *x)
{
    const int64_t row = row_change_source(&p->change, first / p->cols), col = first % p->cols;
    if (p->also && row >= p->from->w.rows) param_part(s->m, p->also, row - p->from->w.rows, col, n, x);
    else if (p->data) widen(x, (const char *)p->data + (row * p->cols + col) * dtype_info[p->type].bytes, p->type, n);
    else param_part(s->m, p->from, row, col, n, x);
    for (int64_t i = 0; i < n && row_change_of_values(&p->change); i++) x[i] = row_change_value(&p->change, x[i]);
    if (merges(p)) low_rank_values(x, p->from->w.low_rank, row, col, n);
}

/* The same, converted: rows of pieces [expert][part] or of the only one. */
static uint64_t put_row(const struct source *s, const struct piece *p, int64_t first, int64_t n, enum dtype type,
                        char *out)
{
    float x[CHUNK];
    uint64_t over = 0;
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t m = COE_MIN((int64_t)CHUNK, n - i);
        read_piece(s, p, first + i, m, x);
        over += put(x, type, m, out + i * dtype_info[type].bytes);
    }
    return over;
}

/* Elements first … first + count of a piece; out in their order. */
static uint64_t put_piece(const struct source *s, const struct piece *p, int64_t first, int64_t count, enum dtype type,
                          char *out)
{
    const int64_t bytes = dtype_info[type].bytes, end = first + count;
    uint64_t over = 0;
    if (p->data && p->type == type && !row_change_any(&p->change) && !merges(p)) {
        memcpy(out, (const char *)p->data + first * bytes, (size_t)(count * bytes));
        return 0;
    }
#pragma omp parallel for schedule(static) reduction(+ : over) if (count > CHUNK)
    for (int64_t row = first / p->cols; row <= (end - 1) / p->cols; row++) {
        const int64_t from = COE_MAX(row * p->cols, first), to = COE_MIN((row + 1) * p->cols, end);
        over += put_row(s, p, from, to - from, type, out + (from - first) * bytes);
    }
    return over;
}

/* The piece that row `row` of an expert's whole matrix belongs to, and which of its rows that is. */
static const struct piece *piece_at(const struct source *s, int64_t expert, int64_t row, int64_t *own)
{
    const int64_t parts = s->cut.parts > 1 ? s->cut.parts : 1;
    const bool alternate = s->cut.how & CUT_ALTERNATE;
    *own = alternate ? row / parts : row % s->rows;
    return &s->piece[expert * parts + (alternate ? row % parts : row / s->rows)];
}

static int64_t rows_of_expert(const struct source *s) { return s->rows * (s->cut.parts > 1 ? s->cut.parts : 1); }

/* A tensor [expert][part rows, cols] */
static uint64_t put_parts(const struct source *s, int64_t first, int64_t count, enum dtype type, char *out)
{
    const int64_t all = rows_of_expert(s), bytes = dtype_info[type].bytes, end = first + count;
    uint64_t over = 0;
#pragma omp parallel for schedule(static) reduction(+ : over) if (count > CHUNK)
    for (int64_t row = first / s->cols; row <= (end - 1) / s->cols; row++) {
        const int64_t from = COE_MAX(row * s->cols, first), to = COE_MIN((row + 1) * s->cols, end);
        int64_t own;
        const struct piece *p = piece_at(s, row / all, row % all, &own);
        over += put_row(s, p, own * s->cols + from - row * s->cols, to - from, type, out + (from - first) * bytes);
    }
    return over;
}

/* Columns col … col + n of rows begin … end of an expert as [n, end - begin]. */
static uint64_t put_turned(const struct source *s, int64_t expert, int64_t col, int64_t n, int64_t begin, int64_t end,
                           enum dtype type, char *out)
{
    const int64_t bytes = dtype_info[type].bytes, wide = end - begin;
    uint64_t over = 0;
#pragma omp parallel for schedule(static) reduction(+ : over) if (n * wide > CHUNK)
    for (int64_t row = begin; row < end; row++) {
        float x[COLUMNS];
        int64_t own;
        const struct piece *p = piece_at(s, expert, row, &own);
        for (int64_t i = 0; i < n; i += COLUMNS) {
            const int64_t m = COE_MIN((int64_t)COLUMNS, n - i);
            read_piece(s, p, own * s->cols + col + i, m, x);
            for (int64_t k = 0; k < m; k++) over += put(&x[k], type, 1, out + ((i + k) * wide + row - begin) * bytes);
        }
    }
    return over;
}

/* A tensor [expert][cols, part rows]: whole rows of it together, for each source row is read once for all of them. */
static uint64_t put_all_turned(const struct source *s, int64_t first, int64_t count, enum dtype type, char *out)
{
    const int64_t all = rows_of_expert(s), bytes = dtype_info[type].bytes;
    uint64_t over = 0;
    for (int64_t n; count > 0; first += n, count -= n, out += n * bytes) {
        const int64_t row = first / all, begin = first % all, left = s->cols - row % s->cols;
        const int64_t whole = begin ? 0 : COE_MIN(count / all, left);
        const int64_t end = whole ? all : COE_MIN(all, begin + count);
        over += put_turned(s, row / s->cols, row % s->cols, whole ? whole : 1, begin, end, type, out);
        n = whole ? whole * all : end - begin;
    }
    return over;
}

uint64_t source_fill(const struct source *s, enum dtype type, int64_t first, int64_t count, char *out)
{
    const int64_t bytes = dtype_info[type].bytes;
    uint64_t over = 0;
    if (s->whole) {
        memcpy(out, (const char *)s->whole->data + first * bytes, (size_t)(count * bytes));
        return 0;
    }
    if (s->cut.how & CUT_IN_OUT) return put_all_turned(s, first, count, type, out);
    if (s->cut.how || s->cut.parts > 1) return put_parts(s, first, count, type, out);
    for (int64_t n; count > 0; first += n, count -= n, out += n * bytes) {
        const int64_t within = first % s->piece_count;
        n = COE_MIN(s->piece_count - within, count);
        over += put_piece(s, &s->piece[first / s->piece_count], within, n, type, out);
    }
    return over;
}
