/* gemm.c — matrix products split over threads.
 *
 * Plain products are grouped ones with a single group. A product is cut into tasks, each a rectangle of one group's
 * output (rows x columns), numbered group by group; threads draw numbers from a common counter, so uneven groups
 * balance themselves. A task's size keeps the operand that is read again and again in the second-level cache. */
#include "tensor/gemm_experts.h"
#include "tensor/low_rank.h"

#define CACHE_BYTES \
    (256 * 1024) /* a quarter of the smallest second-level cache we care for: the rest is the other operands */
#define ROW_TILE 192
#define BIAS_COLS 512         /* columns of a task at most: its bias is widened on the stack */
#define ALONE_BELOW (1 << 17) /* multiply-adds that are done before a second thread has woken up */

/* One call of a driver: the output's rectangle for each group and what computes a part of it. */
struct product {
    void (*task)(const struct product *p, int32_t g, int64_t r0, int64_t r1, int64_t c0, int64_t c1);
    struct groups groups;
    const struct weight *const *w;
    const struct weight *bias;
    float *y;
    const float *a, *b;           /* left operand (x or dy), right operand (x of dW) */
    const struct codes *codes[CODES_KINDS]; /* left operand of weights of block types and, if given, of BF16 */
    const int32_t *a_row, *b_row;
    int64_t ldy, lda, ldb;
    bool accumulate;
    int64_t fixed_rows; /* output rows of each group, 0: as many as the group has */
    int64_t cols;       /* output columns */
    int64_t depth;      /* k, 0: as many as the group has rows */
    int64_t row_tile, col_tile;
};

static int64_t group_rows(const struct product *p, int32_t g) { return p->groups.off[g + 1] - p->groups.off[g]; }

static int64_t tiles(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

static int64_t count_tasks(const struct product *p, int32_t g)
{
    const int64_t n = group_rows(p, g);
    return n ? tiles(p->fixed_rows ? p->fixed_rows : n, p->row_tile) * tiles(p->cols, p->col_tile) : 0;
}

/* Even shares: 7 tiles' worth of 130 in tiles of 20 begin at 0, 18, 37, … */
static int64_t share(int64_t n, int64_t parts, int64_t i, int64_t unit)
{
    const int64_t units = tiles(n, unit);
    return COE_MIN(units * i / parts * unit, n);
}

static void run_task(const struct product *p, int32_t g, int64_t index)
{
    const int64_t rows = p->fixed_rows ? p->fixed_rows : group_rows(p, g);
    const int64_t n_row = tiles(rows, p->row_tile), n_col = tiles(p->cols, p->col_tile);
    const int64_t r = index / n_col, c = index % n_col;
    p->task(p, g, share(rows, n_row, r, 1), share(rows, n_row, r + 1, 1), share(p->cols, n_col, c, 32),
            share(p->cols, n_col, c + 1, 32));
}

/* Smaller tiles until every thread has a few tasks to choose from. */
static void fit_tiles(struct product *p, int64_t least_cols, int64_t least_rows)
{
    const int64_t wanted = 4 * (int64_t)coe_threads();
    for (;;) {
        int64_t n = 0;
        for (int32_t g = 0; g < p->groups.n && n < wanted; g++) n += count_tasks(p, g);
        if (n >= wanted) return;
        if (p->col_tile > least_cols)
            p->col_tile = COE_MAX(p->col_tile / 2, least_cols);
        else if (p->row_tile > least_rows)
            p->row_tile = COE_MAX(p->row_tile / 2, least_rows);
        else
            return;
    }
}

struct gemm_clock gemm_clock;

static void draw_tasks(const struct product *p, int64_t *next)
{
    int32_t g = 0;
    int64_t before = 0, mine;
    for (;;) {
#pragma omp atomic capture
        mine = (*next)++;
        for (int64_t n; g < p->groups.n && mine - before >= (n = count_tasks(p, g)); g++) before += n;
        if (g == p->groups.n) break;
        run_task(p, g, mine - before);
    }
}

static void run(const struct product *p)
{
    const int64_t total = p->groups.off[p->groups.n] - p->groups.off[0];
    if (total == 0) return;
    const int64_t across = p->depth ? p->depth : p->fixed_rows;
    const double multiply_adds = (double)total * (double)across * (double)p->cols;
    const double began = gemm_clock.on ? coe_now() : 0;
    int64_t next = 0;
    if (multiply_adds > ALONE_BELOW && coe_threads() > 1) { /* else without the runtime, see COE_SPREAD */
#pragma omp parallel
        draw_tasks(p, &next);
    } else {
        draw_tasks(p, &next);
    }
    if (gemm_clock.on) {
        gemm_clock.seconds += coe_now() - began;
        gemm_clock.operations += 2 * multiply_adds;
    }
}

const char *gemm_row(const struct weight *w, int64_t row)
{
    return (const char *)w->data + row * (w->cols / dtype_info[w->type].block) * dtype_info[w->type].bytes;
}

void gemm_part(float *y, int64_t ldy, const struct gemm_rows *x, int64_t first, int64_t m, const struct weight *w,
               int64_t c0, int64_t n, const void *next)
{
    const int32_t *rows = x->row ? x->row + first : NULL;
    const int32_t block = dtype_info[w->type].x_block;
    const int64_t k = w->cols;
    const struct codes *rounded = w->type == DT_BF16 && x->codes ? x->codes[CODES_BF16] : NULL;
    if (rounded)
        kern->dot_bf16(y, ldy, rounded->bf16 + (rows ? 0 : first * k), k, rows, m,
                       (const uint16_t *)(const void *)gemm_row(w, c0), k, n, k);
    else if (block)
        kern->q_product(y, ldy, x->codes[codes_kind(block)], rows, first, m, w, c0, n, next);
    else
        kern->dot_tile(y, ldy, rows ? x->x : x->x + first * x->ldx, x->ldx, rows, m, gemm_row(w, c0), w->type, k, n,
                       k);
}

static void xwt_task(const struct product *p, int32_t g, int64_t r0, int64_t r1, int64_t c0, int64_t c1)
{
    const int64_t first = p->groups.off[g] + r0;
    const struct gemm_rows x = { p->a, p->lda, p->codes, p->a_row };
    float *y = p->y + first * p->ldy + c0;
    gemm_part(y, p->ldy, &x, first, r1 - r0, p->w[g], c0, c1 - c0, NULL);
    if (!p->bias) return;
    float bias[BIAS_COLS];
    kern->widen(bias, (const char *)p->bias->data + c0 * dtype_info[p->bias->type].bytes, p->bias->type, c1 - c0);
    for (int64_t r = 0; r < r1 - r0; r++) kern->add(y + r * p->ldy, bias, c1 - c0);
}

static const struct weight *any_weight(const struct weight *const *w, struct groups g)
{
    for (int32_t i = 0; i < g.n; i++)
        if (g.off[i + 1] > g.off[i]) return w[i];
    return NULL;
}

static void run_xwt(struct product *p)
{
    const struct weight *w = any_weight(p->w, p->groups);
    if (!w) return;
    const int64_t row_bytes = COE_MAX(w->cols / dtype_info[w->type].block, 1) * dtype_info[w->type].bytes;
    p->task = xwt_task;
    p->cols = w->rows;
    p->depth = COE_MAX(w->cols, 1);
    p->row_tile = ROW_TILE;
    p->col_tile = COE_MIN(COE_MAX(CACHE_BYTES / row_bytes / 16 * 16, 32), BIAS_COLS);
    fit_tiles(p, 32, 24);
    run(p);
}

void gemm_xwt(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t n, const struct weight *w,
              const struct weight *bias)
{
    const int32_t off[2] = { 0, (int32_t)n };
    struct product p = { .groups = { 1, off }, .w = &w, .bias = bias, .y = y, .ldy = ldy, .a = x, .lda = ldx };
    run_xwt(&p);
}

void gemm_codes_xwt(float *y, int64_t ldy, const struct codes *x, const struct weight *w, const struct weight *bias)
{
    const int32_t off[2] = { 0, (int32_t)x->n };
    struct product p = { .groups = { 1, off }, .w = &w, .bias = bias, .y = y, .ldy = ldy };
    p.codes[codes_kind(x->block)] = x;
    run_xwt(&p);
}

void gemm_grouped_xwt(float *y, int64_t ldy, const float *x, int64_t ldx, const struct codes *const codes[CODES_KINDS],
                      const int32_t *xrow, struct groups g, const struct weight *const *w)
{
    struct product p = { .groups = g, .w = w, .y = y, .ldy = ldy, .a = x, .a_row = xrow, .lda = ldx };
    for (int i = 0; codes && i < CODES_KINDS; i++) p.codes[i] = codes[i];
    run_xwt(&p);
}

#define PANEL_ROWS 16 /* rows of a stored weight that are widened at a time, on the stack */
#define PANEL_COLS (DX_COLS + 2 * 256)
#define DX_COLS 128

/* Rows k0 … of w, columns c0 … c1-1 at least, as F32; answers where c0 stands and how far rows are apart. */
static const float *widen_panel(float *panel, const struct weight *w, int64_t k0, int64_t rows, int64_t c0, int64_t c1)
{
    const struct dtype_info *t = &dtype_info[w->type];
    const int64_t from = c0 / t->block * t->block, end = (c1 + t->block - 1) / t->block * t->block;
    for (int64_t k = 0; k < rows; k++)
        widen(panel + k * PANEL_COLS, gemm_row(w, k0 + k) + from / t->block * t->bytes, w->type, end - from);
    return panel + (c0 - from);
}

/* Weights that are not F32 are frozen ones under an adapter: panels of them are widened, chains go on from panel to
 * panel. */
static void dx_task(const struct product *p, int32_t g, int64_t r0, int64_t r1, int64_t c0, int64_t c1)
{
    const struct weight *w = p->w[g];
    const int64_t first = p->groups.off[g] + r0;
    struct outer_args o = { .c = p->y + first * p->ldy + c0,
                            .ldc = p->ldy,
                            .a = p->a_row ? p->a : p->a + first * p->lda,
                            .a_m = p->lda,
                            .a_k = 1,
                            .mi = p->a_row ? p->a_row + first : NULL,
                            .m = r1 - r0,
                            .n = c1 - c0,
                            .accumulate = p->accumulate };
    if (w->type == DT_F32) {
        o.b = (const float *)w->data + c0, o.ldb = w->cols, o.k = w->rows;
        kern->outer_tile(&o);
        return;
    }
    float panel[PANEL_ROWS * PANEL_COLS];
    for (int64_t k = 0; k < w->rows; k += PANEL_ROWS, o.a += PANEL_ROWS, o.accumulate = true) {
        o.k = COE_MIN(PANEL_ROWS, w->rows - k);
        o.b = widen_panel(panel, w, k, o.k, c0, c1), o.ldb = PANEL_COLS;
        kern->outer_tile(&o);
    }
}

static void run_dx(struct product *p)
{
    const struct weight *w = any_weight(p->w, p->groups);
    if (!w) return;
    p->task = dx_task;
    p->cols = w->cols;
    p->depth = COE_MAX(w->rows, 1);
    p->row_tile = ROW_TILE;
    p->col_tile = DX_COLS;
    fit_tiles(p, 64, 24);
    run(p);
    low_rank_dx(p->y, p->ldy, p->a, p->lda, p->a_row, p->groups, p->w);
}

void gemm_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, int64_t n, const struct weight *w, bool accumulate)
{
    const int32_t off[2] = { 0, (int32_t)n };
    struct product p = {
        .groups = { 1, off }, .w = &w, .y = dx, .ldy = lddx, .a = dy, .lda = lddy, .accumulate = accumulate
    };
    run_dx(&p);
}

void gemm_grouped_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, const int32_t *dyrow, struct groups g,
                     const struct weight *const *w, bool accumulate)
{
    struct product p = {
        .groups = g, .w = w, .y = dx, .ldy = lddx, .a = dy, .a_row = dyrow, .lda = lddy, .accumulate = accumulate
    };
    run_dx(&p);
}

/* Rows r0 … of the gradient of w[g] are columns of dy. */
static void dw_task(const struct product *p, int32_t g, int64_t r0, int64_t r1, int64_t c0, int64_t c1)
{
    const struct weight *w = p->w[g];
    const int64_t first = p->groups.off[g], n = group_rows(p, g);
    if (w->grad)
        kern->outer_tile(&(struct outer_args){ .c = w->grad + r0 * w->cols + c0,
                                           .ldc = w->cols,
                                           .a = (p->a_row ? p->a : p->a + first * p->lda) + r0,
                                           .a_m = 1,
                                           .a_k = p->lda,
                                           .ki = p->a_row ? p->a_row + first : NULL,
                                           .b = (p->b_row ? p->b : p->b + first * p->ldb) + c0,
                                           .ldb = p->ldb,
                                           .bi = p->b_row ? p->b_row + first : NULL,
                                           .m = r1 - r0,
                                           .n = c1 - c0,
                                           .k = n,
                                           .accumulate = true });
    if (p->bias && p->bias->grad && c0 == 0)
        for (int64_t r = 0; r < n; r++) kern->add(p->bias->grad + r0, p->a + r * p->lda + r0, r1 - r0);
}

static bool any_gradient(const struct product *p)
{
    bool any = p->bias && p->bias->grad;
    for (int32_t g = 0; g < p->groups.n && !any; g++) any = group_rows(p, g) && p->w[g]->grad;
    return any;
}

static void run_dw(struct product *p)
{
    const struct weight *w = any_weight(p->w, p->groups);
    if (!w) return;
    low_rank_dw(p->w, p->a, p->lda, p->a_row, p->b, p->ldb, p->b_row, p->groups);
    if (!any_gradient(p)) return;
    p->task = dw_task;
    p->fixed_rows = w->rows;
    p->cols = w->cols;
    p->row_tile = ROW_TILE;
    p->col_tile = 128;
    fit_tiles(p, 64, 24);
    run(p);
}

void gemm_dw(const struct weight *w, const struct weight *bias, const float *dy, int64_t lddy, const float *x,
             int64_t ldx, int64_t n)
{
    const int32_t off[2] = { 0, (int32_t)n };
    struct product p = { .groups = { 1, off }, .w = &w, .bias = bias, .a = dy, .lda = lddy, .b = x, .ldb = ldx };
    run_dw(&p);
}

void gemm_grouped_dw(const struct weight *const *w, const float *dy, int64_t lddy, const int32_t *dyrow, const float *x,
                     int64_t ldx, const int32_t *xrow, struct groups g)
{
    struct product p = { .groups = g, .w = w, .a = dy, .a_row = dyrow, .lda = lddy, .b = x, .b_row = xrow, .ldb = ldx };
    run_dw(&p);
}
