/* low_rank.c — see low_rank.h. */
#include "tensor/low_rank.h"

#include <math.h>
#include <string.h>

#define ALONE_BELOW 32768 /* multiply-adds that are done before a second thread has woken up */
#define TILE 64

static int32_t largest_rank(struct groups g, const struct weight *const *w)
{
    int64_t most = 0;
    for (int32_t i = 0; i < g.n; i++)
        if (g.off[i + 1] > g.off[i] && w[i]->low_rank) most = COE_MAX(most, w[i]->low_rank->a->rows);
    return (int32_t)most;
}

/* The group of a row */
static int32_t group_at(struct groups g, int32_t row)
{
    int32_t low = 0, high = g.n - 1;
    while (low < high) {
        const int32_t mid = (low + high) / 2;
        if (row < g.off[mid + 1])
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* h [r] = A x */
static void into_rank(float *h, const struct low_rank *l, const float *x)
{
    const float *a = l->a->data;
    for (int64_t k = 0; k < l->a->rows; k++) h[k] = kern->dot(a + k * l->a->cols, x, l->a->cols);
}

/* u [r] = scale · Bᵀ dy, one chain over the outputs each */
static void back_into_rank(float *u, const struct low_rank *l, const float *dy)
{
    const float *b = l->b->data;
    const int64_t r = l->b->cols;
    memset(u, 0, (size_t)r * sizeof *u);
    for (int64_t o = 0; o < l->b->rows; o++) kern->fma_row(u, dy[o], b + o * r, r);
    kern->scale(u, u, l->scale, r);
}

static int64_t work_of(struct groups g, const struct weight *const *w, int32_t rank)
{
    for (int32_t i = 0; i < g.n; i++)
        if (g.off[i + 1] > g.off[i]) return (int64_t)(g.off[g.n] - g.off[0]) * rank * (w[i]->rows + w[i]->cols);
    return 0;
}

/* Calls `one` for every row whose group has a low-rank part, rows on threads: to [row] += what it makes of from[row],
 * or from[fromrow[row]]. */
static void each_row(void (*one)(const struct low_rank *l, float *to, const float *from), float *to, int64_t ldto,
                     const float *from, int64_t ldfrom, const int32_t *fromrow, struct groups g,
                     const struct weight *const *w)
{
    const int32_t rank = largest_rank(g, w);
    if (!rank) return;
    const bool parallel = work_of(g, w, rank) > ALONE_BELOW;
#pragma omp parallel for schedule(static) if (parallel)
    for (int32_t row = g.off[0]; row < g.off[g.n]; row++) {
        const struct low_rank *l = w[group_at(g, row)]->low_rank;
        if (l) one(l, to + row * ldto, from + (fromrow ? fromrow[row] : row) * ldfrom);
    }
}

/* y += scale · B (A x) */
static void add_one(const struct low_rank *l, float *y, const float *x)
{
    float h[LOW_RANK_MAX];
    const float *b = l->b->data;
    const int64_t r = l->b->cols;
    into_rank(h, l, x);
    for (int64_t o = 0; o < l->b->rows; o++) y[o] = fmaf(l->scale, kern->dot(b + o * r, h, r), y[o]);
}

/* dx += Aᵀ (scale · Bᵀ dy) */
static void add_dx_one(const struct low_rank *l, float *dx, const float *dy)
{
    float u[LOW_RANK_MAX];
    const float *a = l->a->data;
    back_into_rank(u, l, dy);
    for (int64_t k = 0; k < l->a->rows; k++) kern->fma_row(dx, u[k], a + k * l->a->cols, l->a->cols);
}

void low_rank_add(float *y, int64_t ldy, const float *x, int64_t ldx, const int32_t *xrow, struct groups g,
                  const struct weight *const *w)
{
    each_row(add_one, y, ldy, x, ldx, xrow, g, w);
}

void low_rank_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, const int32_t *dyrow, struct groups g,
                 const struct weight *const *w)
{
    each_row(add_dx_one, dx, lddx, dy, lddy, dyrow, g, w);
}

void low_rank_values(float *x, const struct low_rank *l, int64_t row, int64_t col, int64_t n)
{
    const float *a = l->a->data, *b = l->b->data;
    const int64_t rank = l->a->rows;
    for (int64_t k = 0; k < rank; k++) kern->fma_row(x, l->scale * b[row * rank + k], a + k * l->a->cols + col, n);
}

/* A part of the gradient of one group: `rows` of B from r0, or columns of A from c0. */
static void tile_of_b(const struct low_rank *l, const float *dy, int64_t lddy, const int32_t *dyrow, const float *h,
                      int64_t n, int64_t r0, int64_t rows)
{
    const int64_t r = l->b->cols;
    kern->outer_tile(&(struct outer_args){ .c = l->b->grad + r0 * r,
                                           .ldc = r,
                                           .a = dy + r0,
                                           .a_m = 1,
                                           .a_k = lddy,
                                           .ki = dyrow,
                                           .b = h,
                                           .ldb = r,
                                           .m = rows,
                                           .n = r,
                                           .k = n,
                                           .accumulate = true });
}

static void tile_of_a(const struct low_rank *l, const float *u, const float *x, int64_t ldx, const int32_t *xrow,
                      int64_t n, int64_t c0, int64_t cols)
{
    const int64_t r = l->a->rows;
    kern->outer_tile(&(struct outer_args){ .c = l->a->grad + c0,
                                           .ldc = l->a->cols,
                                           .a = u,
                                           .a_m = 1,
                                           .a_k = r,
                                           .b = x + c0,
                                           .ldb = ldx,
                                           .bi = xrow,
                                           .m = r,
                                           .n = cols,
                                           .k = n,
                                           .accumulate = true });
}

static void group_dw(const struct low_rank *l, const float *dy, int64_t lddy, const int32_t *dyrow, const float *x,
                     int64_t ldx, const int32_t *xrow, int64_t n, float *scratch)
{
    const int64_t r = l->a->rows, rows = l->b->rows, cols = l->a->cols;
    const int64_t b_tiles = (rows + TILE - 1) / TILE, a_tiles = (cols + TILE - 1) / TILE;
    float *h = scratch, *u = scratch + n * r;
#pragma omp parallel for schedule(static) if (n * r * (rows + cols) > ALONE_BELOW)
    for (int64_t t = 0; t < n; t++) {
        into_rank(h + t * r, l, x + (xrow ? xrow[t] : t) * ldx);
        kern->scale(h + t * r, h + t * r, l->scale, r);
        back_into_rank(u + t * r, l, dy + (dyrow ? dyrow[t] : t) * lddy);
    }
#pragma omp parallel for schedule(static) if (n * r * (rows + cols) > ALONE_BELOW)
    for (int64_t i = 0; i < b_tiles + a_tiles; i++) {
        const int64_t at = (i < b_tiles ? i : i - b_tiles) * TILE;
        if (i < b_tiles)
            tile_of_b(l, dy, lddy, dyrow, h, n, at, COE_MIN(TILE, rows - at));
        else
            tile_of_a(l, u, x, ldx, xrow, n, at, COE_MIN(TILE, cols - at));
    }
}

void low_rank_dw(const struct weight *const *w, const float *dy, int64_t lddy, const int32_t *dyrow, const float *x,
                 int64_t ldx, const int32_t *xrow, struct groups g)
{
    const int32_t rank = largest_rank(g, w);
    int64_t most = 0;
    for (int32_t i = 0; i < g.n; i++) most = COE_MAX(most, (int64_t)(g.off[i + 1] - g.off[i]));
    if (!rank || !most) return;
    float *scratch = mem_alloc("gradient of low rank", 2 * (size_t)most * (size_t)rank * sizeof *scratch);
    for (int32_t i = 0; i < g.n && scratch; i++) {
        const int32_t from = g.off[i], n = g.off[i + 1] - from;
        const struct low_rank *l = n ? w[i]->low_rank : NULL;
        if (!l || !l->a->grad) continue;
        group_dw(l, dyrow ? dy : dy + from * lddy, lddy, dyrow ? dyrow + from : NULL, xrow ? x : x + from * ldx, ldx,
                 xrow ? xrow + from : NULL, n, scratch);
    }
    mem_free(scratch);
}
