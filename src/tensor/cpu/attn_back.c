/* attn_back.c — gradients of attention between some query rows of one head and one block of keys, by the definition in
 * kernels.h: scores and probabilities once more, then the three products, all with lanes over keys or columns.
 *
 * Rows and keys are walked in pieces of PIECE, and a pair of pieces is computed when some row of the one sees some key
 * of the other. Inside such a pair p and ds of what a row does not see are 0. Pieces are the same at every level, so
 * the register tiles below them change no bit. */
#include "tensor/cpu/attn_tiles.h"

#define PIECE KEY_BLOCK
#define PIECES (ATTN_BLOCK / PIECE)

ALL_TILES(F32)
static const struct tiles tiles = TABLE_OF(F32);

/* As value_block, with p read down a column of a block. */
#define COLUMN(mr, nv)                                                                                                 \
    static void column_##mr##_##nv(float *const *out, const float *const *p, const char *v, int64_t ldv, int64_t c,    \
                                   int lo, int hi, int64_t last)                                                       \
    {                                                                                                                  \
        value_block(DT_F32, mr, nv, out, p, ATTN_BLOCK, v, ldv, c, lo, hi, last);                                      \
    }
#if WIDE == 4
#define COLUMNS(mr) COLUMN(mr, 1) COLUMN(mr, 2) COLUMN(mr, 4)
#define COLUMNS_OF(mr) { column_##mr##_1, column_##mr##_2, column_##mr##_4 }
#else
#define COLUMNS(mr) COLUMN(mr, 1)
#define COLUMNS_OF(mr) { column_##mr##_1 }
#endif
COLUMNS(1)
COLUMNS(2)
COLUMNS(3)
COLUMNS(4)
#if ROWS == 6
COLUMNS(5)
COLUMNS(6)
#endif
static value_fn *const column_of[ROWS][3] = { COLUMNS_OF(1), COLUMNS_OF(2), COLUMNS_OF(3), COLUMNS_OF(4),
#if ROWS == 6
                                              COLUMNS_OF(5), COLUMNS_OF(6)
#endif
};

/* What a piece of rows sees of the block, in whole pieces: keys from … to-1. */
struct seen {
    int from, to;
};

static struct seen seen_by(const struct attn_back_args *a, int64_t row, int64_t end)
{
    int64_t lo = ATTN_BLOCK, hi = 0;
    for (int64_t r = row; r < end; r++) {
        lo = COE_MIN(lo, COE_MAX(a->lo[r] - a->start, 0));
        hi = COE_MAX(hi, COE_MIN(a->hi[r] - a->start, a->n_keys));
    }
    if (lo >= hi) return (struct seen){ 0, 0 };
    return (struct seen){ (int)(lo / PIECE * PIECE), (int)((hi + PIECE - 1) / PIECE * PIECE) };
}

/* out[r][16 nv columns …] += the chain of n terms that p and b give; `f` by rows - 1 and half the registers. */
static void accumulate(value_fn *const f[3], float *const *out, const float *const *p, const float *b, int64_t ldb,
                       int64_t cols, int from, int to)
{
    for (int64_t c = 0; c < cols;) {
        int nv = WIDE;
        while (nv > 1 && cols - c <= (nv - 1) * 16) nv /= 2;
        const int64_t last = COE_MIN(cols - c - (nv - 1) * 16, 16);
        f[nv / 2](out, p, (const char *)b, ldb * (int64_t)sizeof *b, c, from, to, last);
        c += nv * 16;
    }
}

/* s[r][key] = the products of mr rows of x with the block's keys (or values) from … to-1 */
static void products(int mr, float *s, const float *x, int64_t ldx, const float *blocks, int64_t dim, struct seen keys)
{
    const float *rows[ROWS];
    for (int r = 0; r < mr; r++) rows[r] = x + r * ldx;
    for (int j = keys.from; j < keys.to;) {
        int nv = WIDE;
        while (nv > 1 && keys.to - j <= PIECE * (nv - 1)) nv /= 2;
        tiles.score[mr - 1][nv / 2](s + j, rows, (const char *)(blocks + j * dim), dim);
        j += nv * PIECE;
    }
}

/* One row: s becomes p, dp becomes ds. */
LANES void differentiate(const struct attn_back_args *a, int64_t row, float *s, float *dp, struct seen keys,
                         bool capped)
{
    const int lo = (int)COE_MAX(a->lo[row] - a->start, 0), hi = (int)COE_MIN(a->hi[row] - a->start, a->n_keys);
    const v16 max = v16_set1(a->max[row]), share = v16_set1(1.0f / a->total[row]), delta = v16_set1(a->delta[row]);
    const v16 scale = v16_set1(a->scale), cap = v16_set1(a->cap), one = v16_set1(1.0f);
    for (int j = keys.from; j < keys.to; j += 16) {
        v16 x = v16_mul(v16_load(s + j), scale), slope = scale;
        if (capped) {
            const v16 t = v16_tanh(v16_div(x, cap));
            x = v16_mul(cap, t);
            slope = v16_mul(scale, v16_sub(one, v16_mul(t, t)));
        }
        v16 p = v16_mul(v16_exp_upto_0(v16_sub(x, max)), share);
        v16 ds = v16_mul(v16_mul(p, v16_sub(v16_load(dp + j), delta)), slope);
        if (j < lo || j + 16 > hi) {
            const m16 mask = v16_lanes(COE_MIN(COE_MAX(lo - j, 0), 16), COE_MIN(COE_MAX(hi - j, 0), 16));
            p = v16_select(mask, p, v16_zero());
            ds = v16_select(mask, ds, v16_zero());
        }
        v16_store(s + j, p);
        v16_store(dp + j, ds);
    }
}

/* p and ds of a piece of rows, and what the keys add to the gradients of these rows. */
static void back_rows(const struct attn_back_args *a, float *p, float *ds, int64_t row, int64_t end, struct seen keys)
{
    for (int64_t i = row; i < end;) {
        const int mr = strip(end - i, ROWS);
        float *out[ROWS];
        const float *from[ROWS];
        products(mr, p + i * ATTN_BLOCK, a->q + i * a->ld_q, a->ld_q, a->k_blocks, a->head_dim, keys);
        products(mr, ds + i * ATTN_BLOCK, a->go + i * a->ld_go, a->ld_go, a->v_blocks, a->head_dim_v, keys);
        for (int64_t r = i; r < i + mr; r++) {
            if (a->cap > 0)
                differentiate(a, r, p + r * ATTN_BLOCK, ds + r * ATTN_BLOCK, keys, true);
            else
                differentiate(a, r, p + r * ATTN_BLOCK, ds + r * ATTN_BLOCK, keys, false);
        }
        for (int r = 0; r < mr; r++) out[r] = a->dq + (i + r) * a->ld_q, from[r] = ds + (i + r) * ATTN_BLOCK;
        accumulate(tiles.value[mr - 1], out, from, a->k, a->ld_k, a->head_dim, keys.from,
                   (int)COE_MIN((int64_t)keys.to, a->n_keys));
        i += mr;
    }
}

/* What rows first … end-1 add to the gradients of keys j … */
static void back_keys(const struct attn_back_args *a, const float *p, const float *ds, int64_t j, int first, int end)
{
    const int64_t last = COE_MIN(j + PIECE, a->n_keys);
    for (int64_t i = j; i < last;) {
        const int mr = strip(last - i, ROWS);
        float *dk[ROWS], *dv[ROWS];
        const float *from_ds[ROWS], *from_p[ROWS];
        for (int r = 0; r < mr; r++) {
            dk[r] = a->dk + (i + r) * a->ld_k, from_ds[r] = ds + i + r;
            dv[r] = a->dv + (i + r) * a->ld_v, from_p[r] = p + i + r;
        }
        accumulate(column_of[mr - 1], dv, from_p, a->go, a->ld_go, a->head_dim_v, first, end);
        accumulate(column_of[mr - 1], dk, from_ds, a->q, a->ld_q, a->head_dim, first, end);
        i += mr;
    }
}

static void attn_back(const struct attn_back_args *a)
{
    float *p = a->scratch, *ds = a->scratch + ATTN_BLOCK * ATTN_BLOCK;
    int first[PIECES], end[PIECES] = { 0 };
    assert(a->n <= ATTN_BLOCK && a->n_keys <= ATTN_BLOCK);
    for (int64_t row = 0; row < a->n; row += PIECE) {
        const int64_t after = COE_MIN(row + PIECE, a->n);
        const struct seen keys = seen_by(a, row, after);
        if (keys.from >= keys.to) continue;
        back_rows(a, p, ds, row, after, keys);
        for (int j = keys.from / PIECE; j < keys.to / PIECE; j++) {
            if (!end[j]) first[j] = (int)row;
            end[j] = (int)after;
        }
    }
    for (int j = 0; j < PIECES; j++)
        if (end[j]) back_keys(a, p, ds, j * PIECE, first[j], end[j]);
}

void LEVEL_FN(fill_attn_back)(struct kernels *k) { k->attn_back = attn_back; }
