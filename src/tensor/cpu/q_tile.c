/* q_tile.c — products of quantised weights: definition in tensor/codes.h.
 *
 * Lanes run over the rows of a panel. A tile is MR rows of x times NV registers of weight rows: one broadcast of four
 * codes of x meets NV registers of weights. What was tried: bench/kernels/q_tile.md. */
#include "tensor/cpu/q_tile.h"

#if defined(ISA_vnni) || defined(ISA_avx512)
#define MR 6
#define NV 2
#elif defined(ISA_avx2)
#define MR 2
#define NV 1
#else
#define MR 2
#define NV 1
#endif

/* Where a row of x is: its codes, scales and sums from the tile's first k on. */
struct x_row {
    const int8_t *q;
    const float *d;
    const int16_t *sum;
};

/* What is constant where tile_block is inlined. */
struct shape {
    int mr, sub;
    bool mins, wide;
};

LANES q16 dot4(struct shape z, q16 s, q16 w, q16 x) { return z.wide ? q16_dot4_wide(s, w, x) : q16_dot4(s, w, x); }

/* part[j][v] = the dot products over n4 times four k from k4 on, less what the offset of the codes adds. */
LANES void dots(struct shape z, q16 part[MR][NV], const struct q_tile *t, const struct x_row *x, int first, int k4,
                int n4, q16 minus_offset)
{
    UNROLL(8) for (int j = 0; j < z.mr; j++) {
        const q16 start = z.mins ? q16_zero() : q16_dot2(q16_zero(), minus_offset, q16_four(x[j].sum + k4 / 8 * 2));
        UNROLL(8) for (int v = 0; v < NV; v++) part[j][v] = start;
    }
    UNROLL(8) for (int k = 0; k < n4; k++) {
        q16 w[NV];
        UNROLL(8) for (int v = 0; v < NV; v++) w[v] = q16_load(t->code[k4 + k][first + v * 16]);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const q16 four = q16_four(x[j].q + 4 * (k4 + k));
            UNROLL(8) for (int v = 0; v < NV; v++) part[j][v] = dot4(z, part[j][v], w[v], four);
        }
    }
}

/* acc [mr][PANEL_ROWS] from `first` on: blocks of 32 codes under one scale. */
LANES void plain_blocks(struct shape z, float *acc, const struct q_tile *t, const struct x_row *x, int first,
                        int n_blocks, int offset)
{
    v16 y[MR][NV];
    const q16 minus_offset = q16_set1((int32_t)((uint16_t)-offset * 0x10001u));
    UNROLL(8) for (int j = 0; j < z.mr; j++)
        UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_load(acc + j * PANEL_ROWS + first + v * 16);
    for (int b = 0; b < n_blocks; b++) {
        q16 part[MR][NV];
        dots(z, part, t, x, first, 8 * b, 8, minus_offset);
        v16 d[NV], dmin[NV];
        UNROLL(8) for (int v = 0; v < NV; v++) d[v] = v16_load(t->d[b] + first + v * 16);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].d[b]);
            UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_fma(v16_mul(d[v], dx), q16_float(part[j][v]), y[j][v]);
        }
        if (!z.mins) continue;
        UNROLL(8) for (int v = 0; v < NV; v++) dmin[v] = v16_load(t->minus_dmin[b] + first + v * 16);
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].d[b]), sum = v16_set1((float)(x[j].sum[2 * b] + x[j].sum[2 * b + 1]));
            UNROLL(8) for (int v = 0; v < NV; v++) y[j][v] = v16_fma(v16_mul(dmin[v], dx), sum, y[j][v]);
        }
    }
    UNROLL(8) for (int j = 0; j < z.mr; j++)
        UNROLL(8) for (int v = 0; v < NV; v++) v16_store(acc + j * PANEL_ROWS + first + v * 16, y[j][v]);
}

/* The same for blocks of 256 codes with a scale for every z.sub of them. */
LANES void scaled_blocks(struct shape z, float *acc, const struct q_tile *t, const struct x_row *x, int first,
                         int n_blocks, int offset)
{
    const int n_sub = 256 / (z.sub ? z.sub : 256);
    for (int b = 0; b < n_blocks; b++) {
        q16 isum[MR][NV], part[MR][NV];
        UNROLL(8) for (int j = 0; j < z.mr; j++)
            UNROLL(8) for (int v = 0; v < NV; v++) isum[j][v] = q16_zero();
        for (int s = 0; s < n_sub; s++) {
            /* of two runs of sixteen under one sum, the one that is meant */
            const uint32_t mask = z.sub == 32 ? ~0u : s % 2 ? 0xFFFF0000u : 0xFFFFu;
            const q16 minus_offset = q16_set1((int32_t)((uint16_t)-offset * 0x10001u & mask));
            dots(z, part, t, x, first, (256 * b + z.sub * s) / 4, z.sub / 4, minus_offset);
            q16 scale[NV];
            UNROLL(8) for (int v = 0; v < NV; v++) scale[v] = q16_load(t->scale[b * n_sub + s] + first + v * 16);
            UNROLL(8) for (int j = 0; j < z.mr; j++)
                UNROLL(8) for (int v = 0; v < NV; v++) isum[j][v] = q16_add(isum[j][v], q16_mul(part[j][v], scale[v]));
        }
        UNROLL(8) for (int j = 0; j < z.mr; j++) {
            const v16 dx = v16_set1(x[j].d[b]);
            UNROLL(8) for (int v = 0; v < NV; v++) {
                float *at = acc + j * PANEL_ROWS + first + v * 16;
                v16 y = v16_fma(v16_mul(v16_load(t->d[b] + first + v * 16), dx), q16_float(isum[j][v]), v16_load(at));
                if (z.mins) {
                    q16 msum = q16_zero();
                    UNROLL(8) for (int s = 0; s < 8; s++)
                        msum = q16_dot2(msum, q16_load(t->min[8 * b + s][first + v * 16]),
                                        q16_four(x[j].sum + 16 * b + 2 * s));
                    y = v16_fma(v16_mul(v16_load(t->minus_dmin[b] + first + v * 16), dx), q16_float(msum), y);
                }
                v16_store(at, y);
            }
        }
    }
}

typedef void tile_fn(float *acc, const struct q_tile *t, const struct x_row *x, int n_blocks, int offset);
#define TILE(mr, name, sub_, mins_, wide_)                                                                             \
    static void tile_##name##_##mr(float *acc, const struct q_tile *t, const struct x_row *x, int n_blocks,            \
                                   int offset)                                                                         \
    {                                                                                                                  \
        const struct shape z = { mr, sub_, mins_, wide_ };                                                             \
        for (int first = 0; first < PANEL_ROWS; first += 16 * NV)                                                      \
            if (sub_) scaled_blocks(z, acc, t, x, first, n_blocks, offset);                                            \
            else plain_blocks(z, acc, t, x, first, n_blocks, offset);                                                  \
    }
#define TILES(mr)                                                                                                      \
    TILE(mr, plain, 0, false, false)                                                                                   \
    TILE(mr, plain_wide, 0, false, true)                                                                               \
    TILE(mr, plain_mins, 0, true, false)                                                                               \
    TILE(mr, sub32, 32, false, false)                                                                                  \
    TILE(mr, sub32_wide, 32, false, true)                                                                              \
    TILE(mr, sub32_mins, 32, true, false)                                                                              \
    TILE(mr, sub16, 16, false, false)                                                                                  \
    TILE(mr, sub16_mins, 16, true, false)
#define ENTRY(mr)                                                                                                      \
    {                                                                                                                  \
        tile_plain_##mr, tile_plain_wide_##mr, tile_plain_mins_##mr, tile_sub32_##mr, tile_sub32_wide_##mr,            \
            tile_sub32_mins_##mr, tile_sub16_##mr, tile_sub16_mins_##mr                                                \
    }
TILES(1)
TILES(2)
#if MR == 6
TILES(3)
TILES(4)
TILES(5)
TILES(6)
#endif
enum { PLAIN, PLAIN_WIDE, PLAIN_MINS, SUB32, SUB32_WIDE, SUB32_MINS, SUB16, SUB16_MINS };
static tile_fn *const tile_of[MR + 1][8] = {
    [1] = ENTRY(1), [2] = ENTRY(2),
#if MR == 6
    [3] = ENTRY(3), [4] = ENTRY(4), [5] = ENTRY(5), [6] = ENTRY(6),
#endif
};

static int shape_of(struct code_format f)
{
    const bool wide = f.offset == 128;
    if (f.sub == 16) return f.mins ? SUB16_MINS : SUB16;
    if (f.sub == 32) return f.mins ? SUB32_MINS : wide ? SUB32_WIDE : SUB32;
    return f.mins ? PLAIN_MINS : wide ? PLAIN_WIDE : PLAIN;
}

#define X_ROWS 192 /* rows of x that meet a tile before the next is unpacked */

/* One panel, or the rows left of one: acc [m][PANEL_ROWS], m <= X_ROWS. */
static void panel_product(float *acc, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                          const struct weight *w, int64_t row, int valid)
{
    struct q_tile tile;
    const struct code_format format = code_format[w->type];
    const int shape = shape_of(format), offset = format.offset == 128 ? WIDE_OFFSET : format.offset;
    const int64_t block = dtype_info[w->type].block, bytes = dtype_info[w->type].bytes;
    const int64_t row_bytes = w->cols / block * bytes;
    const uint8_t *at = (const uint8_t *)w->data + row * row_bytes;
    const bool panel = w->panels && valid == PANEL_ROWS;
    memset(acc, 0, (size_t)m * PANEL_ROWS * sizeof *acc);
    for (int64_t k = 0; k < w->cols; k += TILE_K) {
        const int n_blocks = (int)(COE_MIN(w->cols - k, TILE_K) / x->block);
        if (panel) LEVEL_FN(q_unpack)(&tile, at + k / block * bytes * PANEL_ROWS, w->type, n_blocks);
        else LEVEL_FN(q_unpack_stored)(&tile, at, row_bytes, valid, w->type, k, n_blocks);
        for (int64_t i = 0; i < m;) {
            const int mr = strip(m - i, MR);
            struct x_row rows[MR];
            for (int j = 0; j < mr; j++) {
                const int64_t r = xrow ? xrow[i + j] : first + i + j;
                rows[j] = (struct x_row){ x->q + r * x->k + k, x->d + (r * x->k + k) / x->block,
                                          x->sum + (r * x->k + k) / 16 };
            }
            tile_of[mr][shape](acc + i * PANEL_ROWS, &tile, rows, n_blocks, offset);
            i += mr;
        }
    }
}

static void q_product(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                      const struct weight *w, int64_t row, int64_t n)
{
    _Alignas(64) float acc[X_ROWS * PANEL_ROWS];
    for (int64_t j = 0; j < n; j += PANEL_ROWS)
        for (int64_t i = 0; i < m; i += X_ROWS) {
            const int64_t some = COE_MIN(m - i, X_ROWS);
            const int valid = (int)COE_MIN(n - j, PANEL_ROWS);
            panel_product(acc, x, xrow ? xrow + i : NULL, first + i, some, w, row + j, valid);
            for (int64_t r = 0; r < some; r++)
                memcpy(y + (i + r) * ldy + j, acc + r * PANEL_ROWS, (size_t)valid * sizeof *y);
        }
}

void LEVEL_FN(fill_q)(struct kernels *k) { k->q_product = q_product; }
