/* gemm.c — register tiles of the two matrix products.
 *
 * dot_tile: a tile of mr x nr dot products, each its own v16 of partial sums; x and w are read as they lie, sixteen
 * elements of a row at a time, and the sums are folded at the end, four at once.
 * outer_tile: a tile of mr rows x nv v16 columns of C, each element one chain over k. B is copied in panels of nv v16
 * columns and KC rows, so that the inner loop streams it; C is stored and loaded again between panels, which keeps the
 * chain. Tile sizes fit the registers: 32 of 512 bits, 16 of 256, 32 of 128. What was tried:
 * bench/kernels/{dot_tile,outer_tile}.md. */
#include "tensor/cpu/lanes.h"

#if defined(ISA_avx512)
#define DOT_MR 6
#define DOT_FEW 3
#define DOT_FEW_NR 8
#define OUTER_MR 6
#define OUTER_NV 4
static const int dot_nr[DOT_MR + 1] = { 0, 4, 4, 4, 4, 4, 4 };
#elif defined(ISA_avx2)
#define DOT_MR 3
#define DOT_FEW 1
#define DOT_FEW_NR 4
#define OUTER_MR 6
#define OUTER_NV 1
static const int dot_nr[DOT_MR + 1] = { 0, 4, 2, 2 };
#elif defined(ISA_neon) /* a v16 is four registers: 16 accumulators and their operands fill the 32 */
#define DOT_MR 2
#define DOT_FEW 1
#define DOT_FEW_NR 4
#define OUTER_MR 4
#define OUTER_NV 1
static const int dot_nr[DOT_MR + 1] = { 0, 4, 2 };
#else
#define DOT_MR 2
#define DOT_FEW 0
#define DOT_FEW_NR 4
#define OUTER_MR 4
#define OUTER_NV 1
static const int dot_nr[DOT_MR + 1] = { 0, 4, 4 };
#endif

/* One tile: rows x[0..mr) times rows 0 … nr-1 of w, of which `valid` exist (the others repeat the last one and are not
 * stored). x is of type tx, w of type t, rows of w ldw elements apart. mr, nr, tx, t and fetch are constants where this
 * is inlined. */
LANES void dot_block(int mr, int nr, enum dtype tx, enum dtype t, enum fetch fetch, float *y, int64_t ldy,
                     const void *const *x, const void *w, int64_t ldw, int64_t valid, int64_t k)
{
    v16 acc[24];
    const void *row[8];
    const size_t bytes = t == DT_F32 ? 4 : 2, row_bytes = (size_t)ldw * bytes;
    UNROLL(8) for (int j = 0; j < nr; j++) row[j] = (const char *)w + row_bytes * (size_t)COE_MIN(j, valid - 1);
    UNROLL(24) for (int i = 0; i < mr * nr; i++) acc[i] = v16_zero();
    const char *ahead = w;
    int64_t e = 0;
    /* twice: of two-byte elements a whole line is used between two requests, which decides the speed of streams */
    UNROLL(2) for (; e + 16 <= k; e += 16) {
        v16 b[8];
        ahead = fetch_ahead(fetch, ahead, nr * 16 * (int)bytes);
        UNROLL(8) for (int j = 0; j < nr; j++) {
            b[j] = v16_load_as(row[j], t, e);
            fetch_in_row(fetch, (const char *)row[j] + (size_t)e * bytes);
        }
        UNROLL(8) for (int i = 0; i < mr; i++) {
            v16 a = v16_load_as(x[i], tx, e);
            UNROLL(8) for (int j = 0; j < nr; j++) acc[i * nr + j] = v16_fma(a, b[j], acc[i * nr + j]);
        }
    }
    if (e < k) {
        UNROLL(8) for (int j = 0; j < nr; j++) {
            v16 b = v16_load_part_as(row[j], t, e, k - e);
            UNROLL(8) for (int i = 0; i < mr; i++)
                acc[i * nr + j] = v16_fma(v16_load_part_as(x[i], tx, e, k - e), b, acc[i * nr + j]);
        }
    }
    float sums[24];
    UNROLL(12) for (int i = 0; i < mr * nr; i += 4) {
        const int last = mr * nr - 1;
        v16_tree4(sums + i, acc[i], acc[COE_MIN(i + 1, last)], acc[COE_MIN(i + 2, last)], acc[COE_MIN(i + 3, last)]);
    }
    UNROLL(8) for (int i = 0; i < mr; i++) {
        if (valid >= nr)
            memcpy(y + i * ldy, sums + i * nr, (size_t)nr * sizeof *y);
        else
            for (int64_t j = 0; j < valid; j++) y[i * ldy + j] = sums[i * nr + j];
    }
}

/* All n columns for mr rows of x. */
LANES void dot_rows(int mr, enum dtype tx, enum dtype t, float *y, int64_t ldy, const void *const *x, const void *w,
                    int64_t ldw, int64_t n, int64_t k)
{
    const bool few = mr <= DOT_FEW;
    const int64_t row_bytes = ldw * (t == DT_F32 ? 4 : 2);
#define DOT_COLUMNS(nr, fetch)                                                                        \
    for (int64_t j = 0; j < n; j += (nr))                                                             \
    dot_block(mr, (nr), tx, t, (fetch), y + j, ldy, x, (const char *)w + j * row_bytes, ldw, COE_MIN((nr), n - j), k)
    if (row_bytes <= FETCH_ROW)
        DOT_COLUMNS(dot_nr[mr], few ? FETCH_NEAR : FETCH_FAR);
    else if (few)
        DOT_COLUMNS(DOT_FEW_NR, FETCH_NOTHING);
    else
        DOT_COLUMNS(dot_nr[mr], FETCH_ROWS);
}

typedef void dot_rows_fn(float *y, int64_t ldy, const void *const *x, const void *w, int64_t ldw, int64_t n, int64_t k);
#define DOT_ROWS(mr, name, tx, t)                                                                                      \
    static void dot_rows_##mr##_##name(float *y, int64_t ldy, const void *const *x, const void *w, int64_t ldw,        \
                                       int64_t n, int64_t k)                                                           \
    {                                                                                                                  \
        dot_rows(mr, tx, t, y, ldy, x, w, ldw, n, k);                                                                  \
    }
/* x is F32 except in the last, where both are BF16 */
#define DOT_TYPES(mr)                                                                                                  \
    DOT_ROWS(mr, F32, DT_F32, DT_F32)                                                                                  \
    DOT_ROWS(mr, F16, DT_F32, DT_F16)                                                                                  \
    DOT_ROWS(mr, BF16, DT_F32, DT_BF16)                                                                                \
    DOT_ROWS(mr, both, DT_BF16, DT_BF16)
DOT_TYPES(1)
DOT_TYPES(2)
#if DOT_MR >= 3
DOT_TYPES(3)
#endif
#if DOT_MR >= 6
DOT_TYPES(4)
DOT_TYPES(5)
DOT_TYPES(6)
#endif
#define DOT_ENTRY(mr)                                                                                    \
    {                                                                                                    \
        [DT_F32] = dot_rows_##mr##_F32, [DT_F16] = dot_rows_##mr##_F16, [DT_BF16] = dot_rows_##mr##_BF16, \
        [BOTH_BF16] = dot_rows_##mr##_both                                                               \
    }
#define BOTH_BF16 3
static dot_rows_fn *const dot_rows_of[DOT_MR + 1][BOTH_BF16 + 1] = {
    [1] = DOT_ENTRY(1), [2] = DOT_ENTRY(2),
#if DOT_MR >= 3
    [3] = DOT_ENTRY(3),
#endif
#if DOT_MR >= 6
    [4] = DOT_ENTRY(4), [5] = DOT_ENTRY(5), [6] = DOT_ENTRY(6),
#endif
};

/* Strips of rows of x; `kind` is the type of w, or BOTH_BF16. */
static void dot_strips(int kind, float *y, int64_t ldy, const void *x, int64_t ldx, const int32_t *xrow, int64_t m,
                       const void *w, int64_t ldw, int64_t n, int64_t k)
{
    const int64_t x_bytes = ldx * (kind == BOTH_BF16 ? 2 : 4);
    for (int64_t i = 0; i < m;) {
        const int mr = strip(m - i, DOT_MR);
        const void *rows[DOT_MR];
        for (int r = 0; r < mr; r++) rows[r] = (const char *)x + (xrow ? xrow[i + r] : i + r) * x_bytes;
        dot_rows_of[mr][kind](y + i * ldy, ldy, rows, w, ldw, n, k);
        i += mr;
    }
}

static void dot_tile(float *y, int64_t ldy, const float *x, int64_t ldx, const int32_t *xrow, int64_t m, const void *w,
                     enum dtype t, int64_t ldw, int64_t n, int64_t k)
{
    assert(t == DT_F32 || t == DT_F16 || t == DT_BF16);
    dot_strips((int)t, y, ldy, x, ldx, xrow, m, w, ldw, n, k);
}

/* What a CPU without BF16 products makes of them: dot_tile's sums of the rounded x. */
static void dot_bf16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, const int32_t *xrow, int64_t m,
                     const uint16_t *w, int64_t ldw, int64_t n, int64_t k)
{
    dot_strips(BOTH_BF16, y, ldy, x, ldx, xrow, m, w, ldw, n, k);
}

#define KC 256

/* Where one panel's worth of k finds its operands. */
struct panel {
    const float *b[KC];  /* row of B at the panel's first column */
    int64_t a_offset[KC]; /* what k adds to an address of A */
    int64_t k;
    int last;            /* columns of the last v16: 16, or the rest of n */
};

/* mr rows x nv v16 of C; a[i] is A(i, 0). mr and nv are constants where this is inlined. */
LANES void outer_block(int mr, int nv, float *c, int64_t ldc, const float *const *a, const struct panel *p,
                       bool accumulate)
{
    v16 acc[OUTER_MR][OUTER_NV];
    UNROLL(8) for (int i = 0; i < mr; i++)
        UNROLL(8) for (int j = 0; j < nv; j++)
            acc[i][j] = accumulate ? v16_load_upto(c + i * ldc + j * 16, j == nv - 1 ? p->last : 16) : v16_zero();
    for (int64_t e = 0; e < p->k; e++) {
        const float *b = p->b[e];
        const int64_t offset = p->a_offset[e];
        v16 bv[OUTER_NV];
        UNROLL(8) for (int j = 0; j < nv; j++) bv[j] = v16_load(b + j * 16);
        UNROLL(8) for (int i = 0; i < mr; i++) {
            v16 av = v16_set1(a[i][offset]);
            UNROLL(8) for (int j = 0; j < nv; j++) acc[i][j] = v16_fma(av, bv[j], acc[i][j]);
        }
    }
    UNROLL(8) for (int i = 0; i < mr; i++)
        UNROLL(8) for (int j = 0; j < nv; j++)
            v16_store_upto(c + i * ldc + j * 16, acc[i][j], j == nv - 1 ? p->last : 16);
}

typedef void outer_fn(float *c, int64_t ldc, const float *const *a, const struct panel *p, bool accumulate);
#define OUTER(mr, nv)                                                                                                  \
    static void outer_##mr##x##nv(float *c, int64_t ldc, const float *const *a, const struct panel *p,                 \
                                  bool accumulate)                                                                     \
    {                                                                                                                  \
        outer_block(mr, nv, c, ldc, a, p, accumulate);                                                                 \
    }
#if OUTER_NV == 4
#define OUTER_ROWS(mr) OUTER(mr, 1) OUTER(mr, 2) OUTER(mr, 3) OUTER(mr, 4)
#define OUTER_ENTRY(mr) { NULL, outer_##mr##x1, outer_##mr##x2, outer_##mr##x3, outer_##mr##x4 }
#else
#define OUTER_ROWS(mr) OUTER(mr, 1)
#define OUTER_ENTRY(mr) { NULL, outer_##mr##x1 }
#endif
OUTER_ROWS(1)
OUTER_ROWS(2)
OUTER_ROWS(3)
OUTER_ROWS(4)
#if OUTER_MR == 6
OUTER_ROWS(5)
OUTER_ROWS(6)
#endif
static outer_fn *const outer_of[OUTER_MR + 1][OUTER_NV + 1] = {
    [1] = OUTER_ENTRY(1), [2] = OUTER_ENTRY(2), [3] = OUTER_ENTRY(3), [4] = OUTER_ENTRY(4),
#if OUTER_MR == 6
    [5] = OUTER_ENTRY(5), [6] = OUTER_ENTRY(6),
#endif
};

/* Asks for a row of a strip before it is needed; past the end of memory the request does nothing. */
LANES void fetch_row(const float *c, int nv)
{
    for (int v = 0; v < nv; v++) __builtin_prefetch(c + v * 16, 1);
}

/* Rows k0 … of B from column j on, nv v16 wide: copied to `buffer` (the rest of the last v16 zero) when it is read
 * often or when reading whole registers would pass the end of a row; otherwise left where they are. */
static void fill_panel(struct panel *p, float *buffer, const struct outer_args *g, int64_t k0, int64_t j, int nv)
{
    const int64_t width = COE_MIN(g->n - j, nv * 16);
    p->k = COE_MIN(g->k - k0, KC);
    p->last = (int)(width - (nv - 1) * 16);
    const bool copy = p->last < 16 || g->m > 2 * OUTER_MR;
    for (int64_t e = 0; e < p->k; e++) {
        const float *b = g->b + (g->bi ? g->bi[k0 + e] : k0 + e) * g->ldb + j;
        p->a_offset[e] = (g->ki ? g->ki[k0 + e] : k0 + e) * g->a_k;
        p->b[e] = b;
        if (!copy) continue;
        float *to = buffer + e * nv * 16;
        fetch_row(b + 16 * g->ldb, nv); /* a column strip: too wide a step for the hardware to foresee */
        for (int v = 0; v < nv; v++) v16_store(to + v * 16, v16_load_upto(b + v * 16, width - v * 16));
        p->b[e] = to;
    }
}

static void outer_tile(const struct outer_args *g)
{
    _Alignas(64) float buffer[KC * OUTER_NV * 16];
    struct panel p;
    for (int64_t j = 0; j < g->n; j += OUTER_NV * 16) {
        const int nv = (int)((COE_MIN(g->n - j, OUTER_NV * 16) + 15) / 16);
        for (int64_t k0 = 0; k0 == 0 || k0 < g->k; k0 += KC) {
            fill_panel(&p, buffer, g, k0, j, nv);
            for (int64_t i = 0; i < g->m;) {
                const int mr = strip(g->m - i, OUTER_MR);
                const float *a[OUTER_MR];
                for (int r = 0; r < mr; r++) {
                    a[r] = g->a + (g->mi ? g->mi[i + r] : i + r) * g->a_m;
                    /* C is touched once per tile, far apart: the next tile's rows come while this one is computed */
                    fetch_row(g->c + (i + mr + r) * g->ldc + j, nv);
                }
                outer_of[mr][nv](g->c + i * g->ldc + j, g->ldc, a, &p, g->accumulate || k0 > 0);
                i += mr;
            }
        }
    }
}

void LEVEL_FN(fill_gemm)(struct kernels *k)
{
    k->dot_tile = dot_tile;
    k->dot_bf16 = dot_bf16;
    k->bf16_unit = "fp32";
    k->outer_tile = outer_tile;
}
