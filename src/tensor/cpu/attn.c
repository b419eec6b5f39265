/* attn.c — attention of some query rows over one head's keys and values, by the definition in kernels.h.
 *
 * The keys are walked in blocks, and for each block all rows, ROWS at a time: so a block comes from memory once for the
 * call and from the first-level cache for each tile, and a register loaded once serves all rows of a tile. What a row
 * gets does not depend on its company: a row that sees nothing of a block leaves it out, and a block that some rows see
 * only in part is finished row by row before and after the keys that all see. */
#include "tensor/cpu/attn_tiles.h"

ALL_TILES(F32)
ALL_TILES(F16)
ALL_TILES(Q8_0)
static const struct tiles tiles_of[] = { [DT_F32] = TABLE_OF(F32), [DT_F16] = TABLE_OF(F16),
                                         [DT_Q8_0] = TABLE_OF(Q8_0) };

/* One key block in FP32. */
LANES void widen_keys(enum dtype t, float *dst, const char *k, int64_t head_dim)
{
    const int64_t group = kv_key_bytes(t, KV_GROUP);
    for (int64_t first = 0; first < head_dim; first += KV_GROUP, k += group) {
        const v16 scale = t == DT_Q8_0 ? v16_load_f16((const uint16_t *)(const void *)k) : v16_zero();
        for (int64_t e = 0; e < COE_MIN(head_dim - first, (int64_t)KV_GROUP); e++)
            v16_store(dst + (first + e) * KEY_BLOCK, load_keys(t, k, e, scale));
    }
}
LANES void widen_values(enum dtype t, float *dst, const char *row, int64_t head_dim_v)
{
    for (int64_t c = 0; c < head_dim_v; c += 16)
        v16_store_upto(dst + c, load_values(t, row, c, head_dim_v - c), head_dim_v - c);
}

/* The keys and values of one block, where they lie or widened. */
struct block {
    const struct tiles *tiles;
    int64_t start;
    const char *k, *v;
    int64_t key_bytes, value_bytes; /* of 16 keys, of one value row */
};
/* The rows of a tile that see something of the block. Ranges lo <= j < hi are counted from the block's start. */
struct active {
    int n;
    const float *q[ROWS];
    float *out[ROWS];
    int64_t row[ROWS];
    int lo[ROWS], hi[ROWS];
    float s[ROWS][ATTN_BLOCK]; /* scores, then probabilities */
};

/* Scores of the active rows against the key blocks that any of them sees. */
static void score(struct active *on, const struct attn_args *a, const struct block *b)
{
    const int wide = on->n == 1 ? WIDE1 : WIDE;
    int first = ATTN_BLOCK, end = 0;
    for (int r = 0; r < on->n; r++) {
        first = COE_MIN(first, on->lo[r]);
        end = COE_MAX(end, on->hi[r]);
    }
    first = first / KEY_BLOCK * KEY_BLOCK;
    for (int j = first; j < end;) {
        int nv = wide;
        while (nv > 1 && end - j <= KEY_BLOCK * (nv - 1)) nv /= 2;
        b->tiles->score[on->n - 1][nv / 2](&on->s[0][j], on->q, b->k + j / KEY_BLOCK * b->key_bytes, a->head_dim);
        j += nv * KEY_BLOCK;
    }
}

LANES m16 visible(const struct active *on, int r, int j)
{
    return v16_lanes(COE_MIN(COE_MAX(on->lo[r] - j, 0), 16), COE_MIN(COE_MAX(on->hi[r] - j, 0), 16));
}

static bool sees_all(const struct active *on, int r) { return on->lo[r] == 0 && on->hi[r] == ATTN_BLOCK; }

/* Scales one row's products to scores and returns the largest that the row sees. `all`: it sees the whole block. */
LANES float finish_scores(struct active *on, int r, float by, bool all)
{
    const v16 scale = v16_set1(by), none = v16_set1(-INFINITY);
    const int first = all ? 0 : on->lo[r] / 16 * 16, end = all ? ATTN_BLOCK : on->hi[r];
    v16 top = none;
    UNROLL(4) for (int j = first; j < end; j += 16)
    {
        const v16 x = v16_mul(v16_load(&on->s[r][j]), scale);
        v16_store(&on->s[r][j], x);
        top = v16_max(all ? x : v16_select(visible(on, r, j), x, none), top);
    }
    return v16_top(top);
}

/* A function of its own, so that the others keep their constants in registers. */
static COE_NOINLINE float finish_capped(struct active *on, int r, const struct attn_args *a)
{
    const v16 scale = v16_set1(a->scale), cap = v16_set1(a->cap), none = v16_set1(-INFINITY);
    v16 top = none;
    for (int j = on->lo[r] / 16 * 16; j < on->hi[r]; j += 16) {
        const v16 x = v16_mul(cap, v16_tanh(v16_div(v16_mul(v16_load(&on->s[r][j]), scale), cap)));
        v16_store(&on->s[r][j], x);
        top = v16_max(v16_select(visible(on, r, j), x, none), top);
    }
    return v16_top(top);
}

/* Turns one row's scores into p and adds them to its sum, which is multiplied by c first. */
LANES void soften(struct active *on, int r, float *row_sum, float max, float c, bool all)
{
    const v16 minus = v16_set1(max);
    const int first = all ? 0 : on->lo[r] / 16 * 16, end = all ? ATTN_BLOCK : on->hi[r];
    v16 sum = v16_mul(v16_load(row_sum), v16_set1(c));
    UNROLL(4) for (int j = first; j < end; j += 16)
    {
        v16 p = v16_exp_upto_0(v16_sub(v16_load(&on->s[r][j]), minus));
        if (!all) p = v16_select(visible(on, r, j), p, v16_zero());
        sum = v16_add(sum, p); /* + 0 for a masked key: sums are never -0, so that changes nothing */
        v16_store(&on->s[r][j], p);
    }
    v16_store(row_sum, sum);
}

static void multiply(float *x, float by, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        v16_store_upto(x + i, v16_mul(v16_load_upto(x + i, n - i), v16_set1(by)), n - i);
}

/* Moves the maxima of the active rows, their sums and what they have gathered on to this block's scores, which become
 * p. The factors of all rows are one exponential. */
static void soften_all(struct active *on, const struct attn_args *a, const struct attn_rows *rows)
{
    float factor[16] = { 0 };
    for (int r = 0; r < on->n; r++) {
        float *max = &rows->max[on->row[r]], before = *max;
        const float top = a->cap > 0        ? finish_capped(on, r, a)
                          : sees_all(on, r) ? finish_scores(on, r, a->scale, true)
                                            : finish_scores(on, r, a->scale, false);
        *max = top > before ? top : before;
        factor[r] = before - *max;
    }
    v16_store(factor, v16_exp_upto_0(v16_load(factor)));
    for (int r = 0; r < on->n; r++) {
        float *sum = rows->sum + 16 * on->row[r], max = rows->max[on->row[r]];
        if (sees_all(on, r))
            soften(on, r, sum, max, factor[r], true);
        else
            soften(on, r, sum, max, factor[r], false);
        multiply(on->out[r], factor[r], a->head_dim_v);
    }
}

/* Keys lo … hi-1 for n rows, all columns. */
static void add_values(int n, float *const *out, const float *const *p, const struct block *b, int64_t dv, int lo,
                       int hi)
{
    if (lo >= hi) return;
    for (int64_t c = 0; c < dv;) {
        const bool widest = n == 1 && dv - c > (WIDER1 - 1) * 16;
        int nv = widest ? WIDER1 : n == 1 ? WIDE1 : WIDE;
        while (nv > 1 && dv - c <= (nv - 1) * 16) nv /= 2;
        value_fn *f = widest ? b->tiles->value1 : b->tiles->value[n - 1][nv / 2];
        f(out, p, b->v, b->value_bytes, c, lo, hi, COE_MIN(dv - c - (nv - 1) * 16, 16));
        c += nv * 16;
    }
}

/* Each row: its keys before those that all rows see, then these together, then the rest. */
static void values(const struct active *on, const struct block *b, int64_t dv)
{
    const float *p[ROWS];
    int from = 0, to = ATTN_BLOCK;
    for (int r = 0; r < on->n; r++) {
        p[r] = on->s[r];
        from = COE_MAX(from, on->lo[r]);
        to = COE_MIN(to, on->hi[r]);
    }
    if (from > to) from = to; /* nothing in common: all keys count as "the rest" */
    for (int r = 0; r < on->n; r++) add_values(1, &on->out[r], &p[r], b, dv, on->lo[r], COE_MIN(from, on->hi[r]));
    add_values(on->n, on->out, p, b, dv, from, to);
    for (int r = 0; r < on->n; r++) add_values(1, &on->out[r], &p[r], b, dv, COE_MAX(to, on->lo[r]), on->hi[r]);
}

/* Which of rows first … first + ROWS - 1 see the block. */
static void choose(struct active *on, const struct attn_args *a, const struct attn_rows *rows, int64_t first,
                   int64_t start)
{
    const int64_t end = COE_MIN(first + ROWS, a->n_tokens * a->heads);
    int64_t t = first / a->heads, g = first % a->heads;
    on->n = 0;
    for (int64_t row = first; row < end; row++, g++) {
        if (g == a->heads) t++, g = 0;
        const int64_t lo = COE_MAX(a->lo[t] - start, 0), hi = COE_MIN(a->hi[t] - start, ATTN_BLOCK);
        if (lo >= hi) continue;
        on->row[on->n] = row;
        on->q[on->n] = a->q + t * a->ld_q + g * a->head_dim;
        on->out[on->n] = rows->out + t * rows->ld_out + g * a->head_dim_v;
        on->lo[on->n] = (int)lo;
        on->hi[on->n++] = (int)hi;
    }
}

static void attend(const struct attn_args *a, const struct attn_rows *rows, const struct block *b)
{
    struct active on;
    for (int64_t first = 0; first < a->n_tokens * a->heads; first += ROWS) {
        choose(&on, a, rows, first, b->start);
        if (!on.n) continue;
        score(&on, a, b);
        soften_all(&on, a, rows);
        values(&on, b, a->head_dim_v);
    }
}

/* Positions end of which and more no row sees are not widened: nothing was stored there. */
LANES void widen_block(enum dtype t, struct block *b, const struct attn_args *a, int64_t from, int64_t end)
{
    float *k = a->scratch, *v = a->scratch + ATTN_BLOCK * a->head_dim;
    for (int64_t j = from / KEY_BLOCK; j * KEY_BLOCK < end; j++)
        widen_keys(t, k + j * KEY_BLOCK * a->head_dim, b->k + j * b->key_bytes, a->head_dim);
    for (int64_t j = from; j < end; j++)
        widen_values(t, v + j * a->head_dim_v, b->v + j * b->value_bytes, a->head_dim_v);
    *b = (struct block){ &tiles_of[DT_F32],
                         b->start,
                         (const char *)k,
                         (const char *)v,
                         kv_key_bytes(DT_F32, a->head_dim),
                         kv_value_bytes(DT_F32, a->head_dim_v) };
}

static void clear(const struct attn_args *a, const struct attn_rows *rows)
{
    for (int64_t t = 0; t < a->n_tokens; t++)
        memset(rows->out + t * rows->ld_out, 0, (size_t)(a->heads * a->head_dim_v) * sizeof(float));
    for (int64_t r = 0; r < a->n_tokens * a->heads; r++) {
        rows->max[r] = -INFINITY;
        v16_store(rows->sum + 16 * r, v16_zero());
    }
}

static void attn(const struct attn_args *a, int64_t from, const struct attn_rows *rows)
{
    int64_t first = from + ATTN_PART, end = from;
    for (int64_t t = 0; t < a->n_tokens; t++) {
        if (a->lo[t] >= a->hi[t]) continue;
        first = COE_MIN(first, COE_MAX(a->lo[t], from));
        end = COE_MAX(end, COE_MIN(a->hi[t], from + ATTN_PART));
    }
    clear(a, rows);
    const int64_t key_bytes = kv_key_bytes(a->type, a->head_dim), value_bytes = kv_value_bytes(a->type, a->head_dim_v);
    for (int64_t start = first / ATTN_BLOCK * ATTN_BLOCK; start < end; start += ATTN_BLOCK) {
        struct block b = { &tiles_of[a->type],
                           start,
                           (const char *)a->k + start / KEY_BLOCK * key_bytes,
                           (const char *)a->v + start * value_bytes,
                           key_bytes,
                           value_bytes };
        const int64_t here = COE_MAX(first - start, 0), last = COE_MIN(end - start, ATTN_BLOCK);
        if (a->scratch && a->n_tokens * a->heads > ROWS) {
            if (a->type == DT_F16) widen_block(DT_F16, &b, a, here, last);
            if (a->type == DT_Q8_0) widen_block(DT_Q8_0, &b, a, here, last);
        }
        attend(a, rows, &b);
    }
}

static void join(const struct attn_args *a, const struct attn_rows *rows, const struct attn_rows *part, int64_t r)
{
    const int64_t t = r / a->heads, g = r % a->heads, n = a->head_dim_v;
    float *out = rows->out + t * rows->ld_out + g * n;
    const float *out2 = part->out + t * part->ld_out + g * n, m2 = part->max[r];
    const float max = m2 > rows->max[r] ? m2 : rows->max[r];
    const v16 c = v16_exp(v16_set1(rows->max[r] - max)), c2 = v16_exp(v16_set1(m2 - max));
    float *sum = rows->sum + 16 * r;
    v16_store(sum, v16_fma(v16_load(part->sum + 16 * r), c2, v16_mul(v16_load(sum), c)));
    for (int64_t i = 0; i < n; i += 16)
        v16_store_upto(out + i, v16_fma(v16_load_upto(out2 + i, n - i), c2, v16_mul(v16_load_upto(out + i, n - i), c)),
                       n - i);
    rows->max[r] = max;
}

static void copy(const struct attn_args *a, const struct attn_rows *rows, const struct attn_rows *part, int64_t r)
{
    const int64_t t = r / a->heads, at = r % a->heads * a->head_dim_v;
    memcpy(rows->out + t * rows->ld_out + at, part->out + t * part->ld_out + at, (size_t)a->head_dim_v * sizeof(float));
    rows->max[r] = part->max[r];
    v16_store(rows->sum + 16 * r, v16_load(part->sum + 16 * r));
}

static void attn_join(const struct attn_args *a, const struct attn_rows *rows, const struct attn_rows *part,
                      int64_t from)
{
    for (int64_t r = 0; r < a->n_tokens * a->heads; r++) {
        const int64_t lo = a->lo[r / a->heads], hi = a->hi[r / a->heads];
        if (lo >= hi || hi <= from || lo >= from + ATTN_PART) continue; /* sees nothing of this part */
        if (lo >= from)
            copy(a, rows, part, r);
        else
            join(a, rows, part, r);
    }
}

static void attn_end(const struct attn_args *a, const struct attn_rows *rows)
{
    for (int64_t r = 0; r < a->n_tokens * a->heads; r++) {
        const int64_t t = r / a->heads, g = r % a->heads, n = a->head_dim_v;
        float *out = rows->out + t * rows->ld_out + g * n, max = rows->max[r], extra = 0.0f;
        v16 sum = v16_load(rows->sum + 16 * r);
        if (a->sink) {
            const float top = a->sink[g] > max ? a->sink[g] : max;
            const v16 c = v16_exp(v16_set1(max - top));
            extra = v16_first(v16_exp(v16_set1(a->sink[g] - top)));
            sum = v16_mul(sum, c);
            multiply(out, v16_first(c), n);
            max = top;
        }
        const float total = v16_sum(sum) + extra;
        const v16 by = v16_set1(total > 0.0f || total != total ? total : 1.0f); /* a row that sees nothing stays zero */
        for (int64_t i = 0; i < n; i += 16) v16_store_upto(out + i, v16_div(v16_load_upto(out + i, n - i), by), n - i);
        if (a->max) a->max[t + g * a->ld_stat] = max;
        if (a->total) a->total[t + g * a->ld_stat] = total;
    }
}

void LEVEL_FN(fill_attn)(struct kernels *k)
{
    k->attn = attn;
    k->attn_join = attn_join;
    k->attn_end = attn_end;
}
