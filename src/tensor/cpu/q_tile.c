/* q_tile.c — products of quantised weights: definition in tensor/codes.h.
 *
 * Lanes run over the rows of a panel. A tile is MR rows of x times NV registers of weight rows: one broadcast of four
 * codes of x meets NV registers of weights. What was tried: bench/kernels/q_tile.md. */
#include "tensor/cpu/q_tile.h"

#if defined(ISA_vnni) || defined(ISA_avx512)
#define MR 6
#define NV 2
#else
#define MR 3
#define NV 1
#endif
/* Rows of x so few that each goes by itself, without a tile. */
#if defined(ISA_portable)
#define ROWS_ALONE 0
#define ROW_PRODUCT(y, panel, t, x, n_blocks, run) \
    ((void)(y), (void)(panel), (void)(x), (void)(n_blocks), (void)(run))
#else
#define ROWS_ALONE 3
#define ROW_PRODUCT LEVEL_FN(q_row)
#endif

/* A row of x and what the sum of each of its runs of codes under one scale begins with; of runs of sixteen those with
 * even numbers, then the others. */
struct tile_row {
    struct x_row x;
    _Alignas(64) int32_t start[TILE_K / 16];
};
LANES int start_at(int sub, int run) { return sub == 16 ? run % 2 * 16 + run / 2 : run; }

/* What is constant where tile_block is inlined. */
struct shape {
    int mr, sub;
    bool mins, wide;
    int fit; /* steps of four products whose sum with x, in halves, an int16 holds; 0: not for sure */
};

/* What is asked for while a tile is multiplied: from `at` to `end`, a `step` with each run of codes. Asked for at once
 * it would fill all places where the core waits for lines, and the products would stand behind it. */
struct ahead {
    const uint8_t *at, *end;
    int64_t step;
};
LANES void ask_step(const struct ahead *a, int i)
{
    const uint8_t *from = a->at + i * a->step;
    q_fetch(from, COE_MIN(from + a->step, a->end));
}

LANES q16 dot4(struct shape z, q16 s, q16 w, q16 x) { return z.wide ? q16_dot4_wide(s, w, x) : q16_dot4(s, w, x); }

#if defined(PAIRS)
/* Where codes are small, steps are added before they are made 32 bits wide. */
LANES void dots_of_small(struct shape z, q16 part[MR][NV], const struct q_tile *t, const struct tile_row *x, int first,
                         int k4, int n4)
{
    for (int k = k4; k < k4 + n4; k += z.fit)
        UNROLL(8) for (int v = 0; v < NV; v++) {
            q16 pair[MR];
            UNROLL(8) for (int i = 0; i < z.fit; i++) {
                const q16 w = q16_load(t->code[k + i][first + v * 16]);
                UNROLL(8) for (int j = 0; j < z.mr; j++) {
                    const q16 p = q16_pairs(w, q16_four(x[j].x.q + 4 * (k + i)));
                    pair[j] = i ? q16_add16(pair[j], p) : p;
                    q16_pin(&pair[j]); /* a tree of sums would need more registers than there are */
                }
            }
            UNROLL(8) for (int j = 0; j < z.mr; j++) part[j][v] = q16_add_pairs(part[j][v], pair[j]);
        }
}
#endif

/* part[j][v] = the dot products of the s-th run of n4 times four k, less what the offset of the codes adds. */
LANES void dots(struct shape z, q16 part[MR][NV], const struct q_tile *t, const struct tile_row *x, int first, int s,
                int n4)
{
    const int k4 = s * n4;
    UNROLL(8) for (int j = 0; j < z.mr; j++) {
        const q16 start = z.mins ? q16_zero() : q16_four(x[j].start + start_at(z.sub, s));
        UNROLL(8) for (int v = 0; v < NV; v++) part[j][v] = start;
    }
#if defined(PAIRS)
    if (z.fit) {
        dots_of_small(z, part, t, x, first, k4, n4);
        return;
    }
#endif
    UNROLL(8) for (int k = 0; k < n4; k++) {
        q16 w[NV];
        UNROLL(8) for (int v = 0; v < NV; v++) w[v] = q16_load(t->code[k4 + k][first + v * 16]);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const q16 four = q16_four(x[j].x.q + 4 * (k4 + k));
            UNROLL(8) for (int v = 0; v < NV; v++) part[j][v] = dot4(z, part[j][v], w[v], four);
        }
    }
}

/* acc [mr][PANEL_ROWS] from `first` on: blocks of 32 codes under one scale. */
LANES void plain_blocks(struct shape z, float *acc, const struct q_tile *t, const struct tile_row *x, int first,
                        int n_blocks, const struct ahead *next)
{
    v16 y[MR][NV];
    UNROLL(8) for (int j = 0; j < z.mr; j++)
        UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_load(acc + j * PANEL_ROWS + first + v * 16);
    for (int b = 0; b < n_blocks; b++) {
        q16 part[MR][NV];
        if (!first) ask_step(next, b);
        dots(z, part, t, x, first, b, 8);
        v16 d[NV], dmin[NV];
        UNROLL(8) for (int v = 0; v < NV; v++) d[v] = v16_load(t->d[b] + first + v * 16);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].x.d[b]);
            UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_fma(v16_mul(d[v], dx), q16_float(part[j][v]), y[j][v]);
        }
        if (!z.mins) continue;
        UNROLL(8) for (int v = 0; v < NV; v++) dmin[v] = v16_load(t->minus_dmin[b] + first + v * 16);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].x.d[b]), sum = v16_set1((float)(x[j].x.sum[2 * b] + x[j].x.sum[2 * b + 1]));
            UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_fma(v16_mul(dmin[v], dx), sum, y[j][v]);
        }
    }
    UNROLL(8) for (int j = 0; j < z.mr; j++)
        UNROLL(8) for (int v = 0; v < NV; v++) v16_store(acc + j * PANEL_ROWS + first + v * 16, y[j][v]);
}

/* The same for blocks of 256 codes with a scale for every z.sub of them. */
LANES void scaled_blocks(struct shape z, float *acc, const struct q_tile *t, const struct tile_row *x, int first,
                         int n_blocks, const struct ahead *next)
{
    const int n_sub = 256 / (z.sub ? z.sub : 256);
    for (int b = 0; b < n_blocks; b++) {
        q16 isum[MR][NV], part[MR][NV];
        UNROLL(8) for (int j = 0; j < z.mr; j++)
            UNROLL(8) for (int v = 0; v < NV; v++) isum[j][v] = q16_zero();
        for (int s = 0; s < n_sub; s++) {
            if (!first) ask_step(next, n_sub * b + s);
            dots(z, part, t, x, first, n_sub * b + s, z.sub / 4);
            q16 scale[NV];
            UNROLL(8) for (int v = 0; v < NV; v++) scale[v] = q16_load(t->scale[b * n_sub + s] + first + v * 16);
            UNROLL(8) for (int j = 0; j < z.mr; j++)
                UNROLL(8) for (int v = 0; v < NV; v++) isum[j][v] = q16_add(isum[j][v], q16_mul(part[j][v], scale[v]));
        }
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].x.d[b]);
            UNROLL(8) for (int v = 0; v < NV; v++) {
                float *at = acc + j * PANEL_ROWS + first + v * 16;
                v16 y = v16_fma(v16_mul(v16_load(t->d[b] + first + v * 16), dx), q16_float(isum[j][v]), v16_load(at));
                if (z.mins) {
                    q16 msum = q16_zero();
                    const int twos = z.sub == 32 ? 4 : 8;
                    UNROLL(8) for (int s = 0; s < twos; s++)
                        msum = q16_dot2(msum, q16_load(t->min[8 * b + s][first + v * 16]),
                                        q16_four(z.sub == 32 ? x[j].x.pair + 8 * b + 2 * s
                                                             : x[j].x.sum + 16 * b + 2 * s));
                    y = v16_fma(v16_mul(v16_load(t->minus_dmin[b] + first + v * 16), dx), q16_float(msum), y);
                }
                v16_store(at, y);
            }
        }
    }
}

typedef void tile_fn(float *acc, const struct q_tile *t, const struct tile_row *x, int n_blocks,
                     const struct ahead *next);
#define TILE(mr, name, sub_, mins_, wide_, fit)                                                                        \
    static void tile_##name##_##mr(float *acc, const struct q_tile *t, const struct tile_row *x, int n_blocks,         \
                                   const struct ahead *next)                                                           \
    {                                                                                                                  \
        const struct shape z = { mr, sub_, mins_, wide_, fit };                                                        \
        for (int first = 0; first < PANEL_ROWS; first += 16 * NV)                                                      \
            if (sub_) scaled_blocks(z, acc, t, x, first, n_blocks, next);                                              \
            else plain_blocks(z, acc, t, x, first, n_blocks, next);                                                    \
    }
/* The last: codes with their offset are at most 31 in blocks of 32 and in types with mins (2 · 31 · 127 · 4 < 2^15), at
 * most 63 in sub-blocks of sixteen but for those with an offset of 64. */
#define TILES(mr)                                                                                                      \
    TILE(mr, plain, 0, false, false, 4)                                                                                \
    TILE(mr, plain_wide, 0, false, true, 0)                                                                            \
    TILE(mr, plain_mins, 0, true, false, 4)                                                                            \
    TILE(mr, sub32, 32, false, false, 0)                                                                               \
    TILE(mr, sub32_wide, 32, false, true, 0)                                                                           \
    TILE(mr, sub32_mins, 32, true, false, 4)                                                                           \
    TILE(mr, sub16, 16, false, false, 2)                                                                               \
    TILE(mr, sub16_high, 16, false, false, 0)                                                                          \
    TILE(mr, sub16_mins, 16, true, false, 4)
#define ENTRY(mr)                                                                                                      \
    {                                                                                                                  \
        tile_plain_##mr, tile_plain_wide_##mr, tile_plain_mins_##mr, tile_sub32_##mr, tile_sub32_wide_##mr,            \
            tile_sub32_mins_##mr, tile_sub16_##mr, tile_sub16_high_##mr, tile_sub16_mins_##mr                          \
    }
TILES(1)
TILES(2)
#if MR >= 3
TILES(3)
#endif
#if MR == 6
TILES(4)
TILES(5)
TILES(6)
#endif
enum { PLAIN, PLAIN_WIDE, PLAIN_MINS, SUB32, SUB32_WIDE, SUB32_MINS, SUB16, SUB16_HIGH, SUB16_MINS };
static tile_fn *const tile_of[MR + 1][9] = {
    [1] = ENTRY(1), [2] = ENTRY(2),
#if MR >= 3
    [3] = ENTRY(3),
#endif
#if MR == 6
    [4] = ENTRY(4), [5] = ENTRY(5), [6] = ENTRY(6),
#endif
};

static int shape_of(struct code_format f)
{
    const bool wide = f.offset == 128;
    if (f.sub == 16) return f.mins ? SUB16_MINS : f.offset == 64 ? SUB16_HIGH : SUB16;
    if (f.sub == 32) return f.mins ? SUB32_MINS : wide ? SUB32_WIDE : SUB32;
    return f.mins ? PLAIN_MINS : wide ? PLAIN_WIDE : PLAIN;
}

/* Row r of x from k on. */
static struct x_row row_from(const struct codes *x, int64_t r, int64_t k)
{
    const int64_t at = r * x->k + k, block = x->block == 32 ? at / 32 : at / 256;
    return (struct x_row){ x->q + at, x->d + block, x->sum + at / 16, x->pair ? x->pair + at / 32 : NULL };
}

/* The same and the starts of TILE_K of its k (behind the end of a row something else is read, and nobody asks for it).
 * Codes of types with mins have no offset: theirs begin at 0. */
LANES void set_row(struct tile_row *to, const struct codes *x, int64_t r, int64_t k, struct code_format f)
{
    to->x = row_from(x, r, k);
    if (f.mins) return;
    const int offset = f.offset == 128 ? WIDE_OFFSET : f.offset;
    const int32_t low = (uint16_t)-offset, high = (int32_t)((uint32_t)low << 16);
    const q16 twos = q16_load(to->x.sum);
    q16_store(to->start, q16_dot2(q16_zero(), q16_set1(f.sub == 16 ? low : low | high), twos));
    if (f.sub == 16) q16_store(to->start + 16, q16_dot2(q16_zero(), q16_set1(high), twos));
}

#define X_ROWS 192   /* rows of x that meet a tile before the next is unpacked */
#define TILE_ROWS 40 /* fewer: smaller tiles */
#define STEP_BYTES (TILE_K / 32 * 36) /* of one row's TILE_K of k: no type of panels has more than 36 for 32 k */

/* What the strips of x need to know of the weight. */
struct panel_call {
    const struct codes *x;
    const int32_t *xrow;
    int64_t first, m;
    const struct weight *w;
    const uint8_t *at; /* the first row */
    int valid;         /* rows; fewer than PANEL_ROWS, or weights without panels: as stored */
    struct run run;    /* all rows of the call */
};

static int64_t x_index(const struct panel_call *c, int64_t i) { return c->xrow ? c->xrow[i] : c->first + i; }

/* The m rows of x by the tile of k … k+depth-1; `next` [bytes] is what the following tile is made of. */
static void strips(float *acc, const struct q_tile *tile, const struct panel_call *c, int64_t k, int n_blocks,
                   const uint8_t *next, int64_t bytes)
{
    const struct code_format format = code_format[c->w->type];
    const int shape = shape_of(format), runs = n_blocks * (format.sub ? 256 / format.sub : 1);
    for (int64_t i = 0; i < c->m;) {
        const int mr = strip(c->m - i, MR);
        struct tile_row rows[MR];
        for (int j = 0; j < mr; j++) set_row(&rows[j], c->x, x_index(c, i + j), k, format);
        /* the next tile's bytes come from memory while this one is multiplied */
        struct ahead ahead = { next + bytes * i / c->m, next + bytes * (i + mr) / c->m, 0 };
        ahead.step = (ahead.end - ahead.at + runs - 1) / runs;
        tile_of[mr][shape](acc + i * PANEL_ROWS, tile, rows, n_blocks, &ahead);
        i += mr;
    }
}

/* Few rows of x go each by itself through the panel's n_blocks blocks from k on. */
static void rows_alone(float *acc, const struct panel_call *c, const uint8_t *panel, int64_t k, int64_t n_blocks,
                       const struct run *run)
{
    for (int64_t i = 0; i < c->m; i++)
        ROW_PRODUCT(acc + i * PANEL_ROWS, panel, c->w->type, row_from(c->x, x_index(c, i), k), n_blocks,
                    run);
}

/* Blocks of stored rows from k on in panel order; rows that are not there repeat the last one. */
static void pack_step(uint8_t *panel, const struct panel_call *c, int64_t k, int64_t depth, const uint8_t *next)
{
    const struct dtype_info *t = &dtype_info[c->w->type];
    const int64_t row_bytes = c->w->cols / t->block * t->bytes, bytes = depth / t->block * t->bytes;
    const uint8_t *from = c->at + k / t->block * t->bytes;
    if (c->valid == PANEL_ROWS) {
        LEVEL_FN(q_pack)(panel, from, (size_t)row_bytes, c->w->type, depth / t->block, next);
        return;
    }
    uint8_t rows[PANEL_ROWS * STEP_BYTES];
    for (int r = 0; r < PANEL_ROWS; r++)
        memcpy(rows + r * bytes, from + COE_MIN(r, c->valid - 1) * row_bytes, (size_t)bytes);
    LEVEL_FN(q_pack)(panel, rows, (size_t)bytes, c->w->type, depth / t->block, NULL);
}

/* acc [m][PANEL_ROWS], m <= X_ROWS */
static void panel_product(float *acc, const struct panel_call *c)
{
    struct q_tile tile;
    _Alignas(64) uint8_t packed[PANEL_ROWS * STEP_BYTES];
    const enum dtype t = c->w->type;
    const int64_t block = dtype_info[t].block, bytes = dtype_info[t].bytes, cols = c->w->cols;
    const bool panel = c->w->panels && c->valid == PANEL_ROWS, packs = !panel && panel_type(t);
    const bool alone = (panel || packs) && c->m <= ROWS_ALONE;
    /* few rows of x: a smaller tile leaves room in the first-level cache */
    const int64_t step = panel && alone ? cols : c->m < TILE_ROWS ? TILE_K / 2 : TILE_K;
    /* what comes next: of a panel the following step, of stored rows the same part of the following rows */
    const int64_t ahead = panel ? step / block * bytes * PANEL_ROWS : cols / block * bytes * PANEL_ROWS;
    memset(acc, 0, (size_t)c->m * PANEL_ROWS * sizeof *acc);
    for (int64_t k = 0; k < cols; k += step) {
        const int64_t depth = COE_MIN(cols - k, step), size = depth / block * bytes * PANEL_ROWS;
        const int n_blocks = (int)(depth / c->x->block);
        const uint8_t *at = c->at + k / block * bytes * PANEL_ROWS, *from = packs ? packed : at;
        if (packs) pack_step(packed, c, k, depth, alone ? at + ahead : NULL);
        if (alone) {
            const struct run again = { packed + size, packed }; /* in the caches: nothing to ask for */
            rows_alone(acc, c, from, k, n_blocks, packs ? &again : &c->run);
            continue;
        }
        if (panel || packs) LEVEL_FN(q_unpack)(&tile, from, t, n_blocks);
        else LEVEL_FN(q_unpack_stored)(&tile, c->at, cols / block * bytes, c->valid, t, k, n_blocks);
        strips(acc, &tile, c, k, n_blocks, at + ahead, size);
    }
}

/* Nearly always n is PANEL_ROWS: too few to call somebody for. */
LANES void copy_row(float *to, const float *from, int n)
{
    if (n == PANEL_ROWS)
        for (int i = 0; i < PANEL_ROWS; i += 16) v16_store(to + i, v16_load(from + i));
    else memcpy(to, from, (size_t)n * sizeof *to);
}

static void q_product(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                      const struct weight *w, int64_t row, int64_t n, const void *next)
{
    _Alignas(64) float acc[X_ROWS * PANEL_ROWS];
    const int64_t row_bytes = w->cols / dtype_info[w->type].block * dtype_info[w->type].bytes;
    const uint8_t *at = (const uint8_t *)w->data + row * row_bytes;
    for (int64_t j = 0; j < n; j += PANEL_ROWS)
        for (int64_t i = 0; i < m; i += X_ROWS) {
            const struct panel_call c = { .x = x, .xrow = xrow ? xrow + i : NULL, .first = first + i,
                                          .m = COE_MIN(m - i, X_ROWS), .w = w,
                                          .at = at + j * row_bytes,
                                          .valid = (int)COE_MIN(n - j, PANEL_ROWS),
                                          .run = { at + n * row_bytes, next } };
            panel_product(acc, &c);
            for (int64_t r = 0; r < c.m; r++) copy_row(y + (i + r) * ldy + j, acc + r * PANEL_ROWS, c.valid);
        }
}

void LEVEL_FN(fill_q)(struct kernels *k)
{
    k->q_product = q_product;
    k->q_pack = LEVEL_FN(q_pack);
}
