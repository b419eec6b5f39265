/* attn.c — attention of some query rows over one head's keys and values, by the definition in kernels.h.
 *
 * The keys are walked in blocks, and for each block all rows, ROWS at a time: so a block comes from memory once for the
 * call and from the first-level cache for each tile, and a register loaded once serves all rows of a tile. What a row
 * gets does not depend on its company: a row that sees nothing of a block leaves it out, and a block that some rows see
 * only in part is finished row by row before and after the keys that all see. */
#include "tensor/cpu/attn_tiles.h"

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
    const v16 scale = v16_set1(a->scale), cap = v16_set1(a->cap);
    for (int r = 0; r < on->n; r++)
        for (int j = first; j < end; j += 16) {
            v16 x = v16_mul(v16_load(&on->s[r][j]), scale);
            if (a->cap > 0) x = v16_mul(cap, v16_tanh(v16_div(x, cap)));
            v16_store(&on->s[r][j], x);
        }
}

/* Turns one row's scores into p, moves its maximum and sum on and returns what its output must be multiplied by. */
static float soften(float *s, float *row_max, float *row_sum, int lo, int hi)
{
    const int first = lo / 16 * 16;
    v16 top = v16_set1(-INFINITY);
    for (int j = first; j < hi; j += 16) {
        const m16 seen = v16_lanes(COE_MAX(lo - j, 0), COE_MIN(hi - j, 16));
        top = v16_max(v16_select(seen, v16_load(s + j), v16_set1(-INFINITY)), top);
    }
    const float block_max = v16_top(top), max = block_max > *row_max ? block_max : *row_max;
    const v16 c = v16_exp(v16_set1(*row_max - max)), minus = v16_set1(max);
    v16 sum = v16_mul(v16_load(row_sum), c);
    for (int j = first; j < hi; j += 16) {
        const m16 seen = v16_lanes(COE_MAX(lo - j, 0), COE_MIN(hi - j, 16));
        v16 p = v16_select(seen, v16_exp(v16_sub(v16_load(s + j), minus)), v16_zero());
        sum = v16_add(sum, p); /* + 0 for a masked key: sums are never -0, so that changes nothing */
        v16_store(s + j, p);
    }
    v16_store(row_sum, sum);
    *row_max = max;
    return v16_first(c);
}

static void multiply(float *x, float by, int64_t n)
{
    if (by == 1.0f) return;
    for (int64_t i = 0; i < n; i += 16)
        v16_store_upto(x + i, v16_mul(v16_load_upto(x + i, n - i), v16_set1(by)), n - i);
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
    on->n = 0;
    for (int64_t row = first; row < end; row++) {
        const int64_t t = row / a->heads, g = row % a->heads;
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
        for (int r = 0; r < on.n; r++)
            multiply(on.out[r], soften(on.s[r], rows->max + on.row[r], rows->sum + 16 * on.row[r], on.lo[r], on.hi[r]),
                     a->head_dim_v);
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
