/* attn.c — attention of some query rows over one head's keys and values, by the definition in kernels.h.
 *
 * Rows are taken ROWS at a time, so that a key or value register loaded once serves all of them; what a row gets does
 * not depend on its company: a row that sees nothing of a block leaves it out, and a block that some rows see only in
 * part is finished row by row before and after the keys that all see. */
#include "tensor/cpu/fmath.h"

#if defined(ISA_avx512)
#define ROWS 6
#define NV 4
#elif defined(ISA_avx2)
#define ROWS 6
#define NV 1
#else
#define ROWS 4
#define NV 1
#endif

/* A few rows' state while the blocks pass. Ranges are of the current block: lo <= j < hi counted from its start. */
struct rows {
    int n;
    const float *q[ROWS];
    float *out[ROWS];
    float max[ROWS];
    v16 sum[ROWS];
    float s[ROWS][ATTN_BLOCK]; /* scores, then probabilities */
};
/* The rows that see something of the current block. */
struct active {
    int n, row[ROWS];
    int lo[ROWS], hi[ROWS];
};

/* Scores of mr rows against nv key blocks that follow each other. */
LANES void score_block(int mr, int nv, float *s, const float *const *q, const float *k, int32_t head_dim)
{
    v16 acc[ROWS][NV];
    const int64_t block = (int64_t)head_dim * KEY_BLOCK;
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(4) for (int v = 0; v < nv; v++) acc[r][v] = v16_zero();
    for (int32_t e = 0; e < head_dim; e++) {
        v16 key[NV];
        UNROLL(4) for (int v = 0; v < nv; v++) key[v] = v16_load(k + v * block + e * KEY_BLOCK);
        UNROLL(8) for (int r = 0; r < mr; r++) {
            v16 x = v16_set1(q[r][e]);
            UNROLL(4) for (int v = 0; v < nv; v++) acc[r][v] = v16_fma(x, key[v], acc[r][v]);
        }
    }
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(4) for (int v = 0; v < nv; v++) v16_store(s + r * ATTN_BLOCK + v * 16, acc[r][v]);
}

/* out[r][0 .. 16 nv) by chains over keys lo … hi-1; p[r] and v are at key 0 of the block. `last` columns of the last
 * v16. */
LANES void value_block(int mr, int nv, float *const *out, const float *const *p, const float *v, int64_t ldv, int lo,
                       int hi, int64_t last)
{
    v16 acc[ROWS][NV];
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(4) for (int c = 0; c < nv; c++) acc[r][c] = v16_load_upto(out[r] + c * 16, c == nv - 1 ? last : 16);
    for (int j = lo; j < hi; j++) {
        v16 value[NV];
        UNROLL(4) for (int c = 0; c < nv; c++) value[c] = v16_load_upto(v + j * ldv + c * 16, c == nv - 1 ? last : 16);
        UNROLL(8) for (int r = 0; r < mr; r++) {
            v16 x = v16_set1(p[r][j]);
            UNROLL(4) for (int c = 0; c < nv; c++) acc[r][c] = v16_fma(x, value[c], acc[r][c]);
        }
    }
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(4) for (int c = 0; c < nv; c++) v16_store_upto(out[r] + c * 16, acc[r][c], c == nv - 1 ? last : 16);
}

typedef void score_fn(float *s, const float *const *q, const float *k, int32_t head_dim);
typedef void value_fn(float *const *out, const float *const *p, const float *v, int64_t ldv, int lo, int hi,
                      int64_t last);
#define BOTH(mr, nv)                                                                                                   \
    static void score_##mr##x##nv(float *s, const float *const *q, const float *k, int32_t head_dim)                   \
    {                                                                                                                  \
        score_block(mr, nv, s, q, k, head_dim);                                                                        \
    }                                                                                                                  \
    static void value_##mr##x##nv(float *const *out, const float *const *p, const float *v, int64_t ldv, int lo,       \
                                  int hi, int64_t last)                                                                \
    {                                                                                                                  \
        value_block(mr, nv, out, p, v, ldv, lo, hi, last);                                                             \
    }
#if NV == 4
#define TILES(mr) BOTH(mr, 1) BOTH(mr, 4)
#define ENTRY(kind, mr) { kind##_##mr##x1, kind##_##mr##x4 }
#else
#define TILES(mr) BOTH(mr, 1)
#define ENTRY(kind, mr) { kind##_##mr##x1 }
#endif
TILES(1)
TILES(2)
TILES(3)
TILES(4)
#if ROWS == 6
TILES(5)
TILES(6)
#define ENTRIES(kind) { ENTRY(kind, 1), ENTRY(kind, 2), ENTRY(kind, 3), ENTRY(kind, 4), ENTRY(kind, 5), ENTRY(kind, 6) }
#else
#define ENTRIES(kind) { ENTRY(kind, 1), ENTRY(kind, 2), ENTRY(kind, 3), ENTRY(kind, 4) }
#endif
static score_fn *const score_of[ROWS][NV == 4 ? 2 : 1] = ENTRIES(score);
static value_fn *const value_of[ROWS][NV == 4 ? 2 : 1] = ENTRIES(value);

/* Scores of the active rows against the key blocks that any of them sees. */
static void score(struct rows *w, const struct active *on, const struct attn_args *a, int64_t start)
{
    const float *q[ROWS];
    float s[ROWS][ATTN_BLOCK];
    int first = ATTN_BLOCK, end = 0;
    for (int r = 0; r < on->n; r++) {
        q[r] = w->q[on->row[r]];
        first = COE_MIN(first, on->lo[r]);
        end = COE_MAX(end, on->hi[r]);
    }
    first = first / KEY_BLOCK * KEY_BLOCK;
    for (int j = first; j < end;) {
        const int nv = end - j > KEY_BLOCK * (NV - 1) ? NV : 1;
        score_of[on->n - 1][nv > 1](&s[0][j], q, a->k + (start + j) * a->head_dim, a->head_dim);
        j += nv * KEY_BLOCK;
    }
    const v16 scale = v16_set1(a->scale), cap = v16_set1(a->cap);
    for (int r = 0; r < on->n; r++)
        for (int j = first; j < end; j += 16) {
            v16 x = v16_mul(v16_load(&s[r][j]), scale);
            if (a->cap > 0) x = v16_mul(cap, v16_tanh(v16_div(x, cap)));
            v16_store(&w->s[on->row[r]][j], x);
        }
}

/* Turns one row's scores into p, moves its maximum and sum on and returns what its output must be multiplied by. */
static float soften(struct rows *w, int row, int lo, int hi)
{
    float *s = w->s[row];
    const int first = lo / 16 * 16;
    v16 top = v16_set1(-INFINITY);
    for (int j = first; j < hi; j += 16) {
        const m16 seen = v16_lanes(COE_MAX(lo - j, 0), COE_MIN(hi - j, 16));
        top = v16_max(v16_select(seen, v16_load(s + j), v16_set1(-INFINITY)), top);
    }
    const float block_max = v16_top(top), max = block_max > w->max[row] ? block_max : w->max[row];
    const v16 c = v16_exp(v16_set1(w->max[row] - max)), minus = v16_set1(max);
    v16 sum = v16_mul(w->sum[row], c);
    for (int j = first; j < hi; j += 16) {
        const m16 seen = v16_lanes(COE_MAX(lo - j, 0), COE_MIN(hi - j, 16));
        v16 p = v16_select(seen, v16_exp(v16_sub(v16_load(s + j), minus)), v16_zero());
        sum = v16_add(sum, p); /* + 0 for a masked key: sums are never -0, so that changes nothing */
        v16_store(s + j, p);
    }
    w->sum[row] = sum;
    w->max[row] = max;
    return v16_first(c);
}

static void multiply(float *x, float by, int64_t n)
{
    if (by == 1.0f) return;
    for (int64_t i = 0; i < n; i += 16)
        v16_store_upto(x + i, v16_mul(v16_load_upto(x + i, n - i), v16_set1(by)), n - i);
}

/* Keys lo … hi-1 for n rows, all columns. */
static void add_values(int n, float *const *out, const float *const *p, const float *v, int64_t dv, int lo, int hi)
{
    if (lo >= hi) return;
    for (int64_t c = 0; c < dv;) {
        const int nv = dv - c >= NV * 16 ? NV : 1;
        float *to[ROWS];
        for (int r = 0; r < n; r++) to[r] = out[r] + c;
        value_of[n - 1][nv > 1](to, p, v + c, dv, lo, hi, COE_MIN(dv - c - (nv - 1) * 16, 16));
        c += nv * 16;
    }
}

/* Each row: its keys before those that all rows see, then these together, then the rest. */
static void values(struct rows *w, const struct active *on, const float *v, int64_t dv)
{
    float *out[ROWS];
    const float *p[ROWS];
    int from = 0, to = ATTN_BLOCK;
    for (int r = 0; r < on->n; r++) {
        out[r] = w->out[on->row[r]];
        p[r] = w->s[on->row[r]];
        from = COE_MAX(from, on->lo[r]);
        to = COE_MIN(to, on->hi[r]);
    }
    if (from > to) from = to; /* nothing in common: all keys count as "the rest" */
    for (int r = 0; r < on->n; r++) add_values(1, &out[r], &p[r], v, dv, on->lo[r], COE_MIN(from, on->hi[r]));
    add_values(on->n, out, p, v, dv, from, to);
    for (int r = 0; r < on->n; r++) add_values(1, &out[r], &p[r], v, dv, COE_MAX(to, on->lo[r]), on->hi[r]);
}

static void finish(const struct attn_args *a, const struct rows *w, int64_t row0)
{
    for (int r = 0; r < w->n; r++) {
        float max = w->max[r], extra = 0.0f, c = 1.0f;
        if (a->sink) {
            const float sink = a->sink[row0 + r];
            max = sink > max ? sink : max;
            c = v16_first(v16_exp(v16_set1(w->max[r] - max)));
            extra = v16_first(v16_exp(v16_set1(sink - max)));
        }
        const float total = v16_sum(v16_mul(w->sum[r], v16_set1(c))) + extra;
        multiply(w->out[r], c, a->head_dim_v);
        const v16 t = v16_set1(total > 0.0f || total != total ? total : 1.0f); /* a row that sees nothing stays zero */
        for (int64_t i = 0, n = a->head_dim_v; i < n; i += 16)
            v16_store_upto(w->out[r] + i, v16_div(v16_load_upto(w->out[r] + i, n - i), t), n - i);
        if (a->max) a->max[row0 + r] = max;
        if (a->total) a->total[row0 + r] = total;
    }
}

static void attend(const struct attn_args *a, int64_t row0, int n)
{
    struct rows w = { .n = n };
    int64_t first = INT64_MAX, end = 0;
    for (int r = 0; r < n; r++) {
        w.q[r] = a->q + (row0 + r) * a->ld_q;
        w.out[r] = a->out + (row0 + r) * a->ld_out;
        w.max[r] = -INFINITY;
        w.sum[r] = v16_zero();
        memset(w.out[r], 0, (size_t)a->head_dim_v * sizeof *a->out);
        if (a->lo[row0 + r] >= a->hi[row0 + r]) continue;
        first = COE_MIN(first, a->lo[row0 + r]);
        end = COE_MAX(end, a->hi[row0 + r]);
    }
    for (int64_t start = end ? first / ATTN_BLOCK * ATTN_BLOCK : 0; start < end; start += ATTN_BLOCK) {
        struct active on = { 0 };
        for (int r = 0; r < n; r++) {
            const int64_t lo = COE_MAX(a->lo[row0 + r] - start, 0), hi = COE_MIN(a->hi[row0 + r] - start, ATTN_BLOCK);
            if (lo >= hi) continue;
            on.row[on.n] = r;
            on.lo[on.n] = (int)lo;
            on.hi[on.n++] = (int)hi;
        }
        if (!on.n) continue;
        score(&w, &on, a, start);
        for (int r = 0; r < on.n; r++)
            multiply(w.out[on.row[r]], soften(&w, on.row[r], on.lo[r], on.hi[r]), a->head_dim_v);
        values(&w, &on, a->v + start * a->head_dim_v, a->head_dim_v);
    }
    finish(a, &w, row0);
}

static void attn(const struct attn_args *a)
{
    for (int64_t r = 0; r < a->n_rows; r += ROWS) attend(a, r, (int)COE_MIN(ROWS, a->n_rows - r));
}

static void store_key(float *kblocks, int64_t position, const float *key, int32_t head_dim)
{
    float *to = kblocks + position / KEY_BLOCK * KEY_BLOCK * head_dim + position % KEY_BLOCK;
    for (int32_t i = 0; i < head_dim; i++) to[(int64_t)i * KEY_BLOCK] = key[i];
}

void LEVEL_FN(fill_attn)(struct kernels *k)
{
    k->attn = attn;
    k->store_key = store_key;
}
