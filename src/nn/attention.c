/* attention.c — causal attention with grouped key/value heads over a cache. The forward definition is in kernels.h; the
 * backward pass recomputes the probabilities from the kept maximum and total of each row, tile by tile, as matrix
 * products.
 *
 * Gradients of a key head's keys and values are sums over query heads and rows: one task owns (sequence, key head) and
 * walks heads, then query tiles, in ascending order. */
#include <math.h>
#include <string.h>

#include "nn/nn.h"

#define ROWS 32 /* query rows per forward task */
#define TILE 64 /* query rows and keys per backward tile */

struct attn_saved {
    struct val *q, *k, *v, *out;
    struct attn_shape shape;
    struct attn_batch batch;
    int64_t *lo, *hi;
    float *max, *total; /* [n_heads, n] */
};

static int64_t padded(int64_t n) { return (n + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK; }

/* Temporary caches of a training batch: exactly as long as each sequence. */
static struct kv_layer *make_caches(struct nn *c, const struct attn_shape *s, const struct attn_batch *b)
{
    struct kv_layer *kv = arena_push(c->arena, (size_t)b->n_seq * sizeof *kv);
    for (int32_t i = 0; kv && i < b->n_seq; i++) {
        int64_t n = padded(b->off[i + 1] - b->off[i]);
        kv[i].capacity = n;
        kv[i].k = arena_push_zero(c->arena, (size_t)(s->n_kv_heads * n * s->head_dim) * sizeof(float));
        kv[i].v = arena_push(c->arena, (size_t)(s->n_kv_heads * n * s->head_dim_v) * sizeof(float));
        if (!kv[i].k || !kv[i].v) return NULL;
    }
    return kv;
}

static void store(const struct val *k, const struct val *v, const struct attn_shape *s, const struct attn_batch *b,
                  struct kv_layer *kv)
{
    for (int32_t i = 0; i < b->n_seq; i++)
#pragma omp parallel for schedule(static) if (b->off[i + 1] - b->off[i] > 16)
        for (int32_t h = 0; h < s->n_kv_heads; h++) {
            float *kb = kv[i].k + h * kv[i].capacity * s->head_dim, *vb = kv[i].v + h * kv[i].capacity * s->head_dim_v;
            for (int64_t t = b->off[i]; t < b->off[i + 1]; t++) {
                int64_t pos = b->pos0[i] + t - b->off[i];
                assert(pos < kv[i].capacity);
                kern->store_key(kb, pos, k->data + t * k->cols + h * s->head_dim, s->head_dim);
                memcpy(vb + pos * s->head_dim_v, v->data + t * v->cols + h * s->head_dim_v,
                       (size_t)s->head_dim_v * sizeof(float));
            }
        }
}

static void visible(int64_t *lo, int64_t *hi, const struct attn_shape *s, const struct attn_batch *b)
{
    for (int32_t i = 0; i < b->n_seq; i++)
        for (int64_t t = b->off[i]; t < b->off[i + 1]; t++) {
            int64_t pos = b->pos0[i] + t - b->off[i];
            lo[t] = s->window && pos >= s->window ? pos - s->window + 1 : 0;
            if (s->chunk) lo[t] = COE_MAX(lo[t], pos / s->chunk * s->chunk);
            if (b->start) lo[t] = COE_MAX(lo[t], b->start[t]);
            hi[t] = pos + 1;
        }
}

struct task {
    int32_t seq;
    int64_t row; /* first row of the tile */
};

/* Query tiles of all sequences, later tiles (more keys) first so that threads finish together. */
static int64_t make_tasks(struct task *out, const struct attn_batch *b)
{
    int64_t n = 0;
    for (int32_t i = 0; i < b->n_seq; i++)
        for (int64_t tiles = (b->off[i + 1] - b->off[i] + ROWS - 1) / ROWS, j = tiles; j-- > 0;)
            out[n++] = (struct task){ i, b->off[i] + j * ROWS };
    return n;
}

static void attn_back(struct nn *c, void *p);

static void forward_tile(const struct attn_saved *s, const struct kv_layer *kv, const struct task *t, int32_t h,
                         const float *sinks)
{
    const struct attn_shape *sh = &s->shape;
    const int32_t kvh = h / (sh->n_heads / sh->n_kv_heads);
    const int64_t n = COE_MIN((int64_t)ROWS, s->batch.off[t->seq + 1] - t->row), all = s->q->rows;
    float sink[ROWS];
    for (int i = 0; i < ROWS; i++) sink[i] = sinks ? sinks[h] : 0;
    const struct kv_layer *l = &kv[t->seq];
    kern->attn(&(struct attn_args){
        .out = s->out->data + t->row * s->out->cols + h * sh->head_dim_v, .ld_out = s->out->cols,
        .q = s->q->data + t->row * s->q->cols + h * sh->head_dim, .ld_q = s->q->cols,
        .k = l->k + kvh * l->capacity * sh->head_dim, .v = l->v + kvh * l->capacity * sh->head_dim_v,
        .lo = s->lo + t->row, .hi = s->hi + t->row, .n_rows = n, .head_dim = sh->head_dim, .head_dim_v = sh->head_dim_v,
        .scale = sh->scale, .cap = sh->cap, .sink = sinks ? sink : NULL,
        .max = s->max ? s->max + h * all + t->row : NULL, .total = s->total ? s->total + h * all + t->row : NULL });
}

struct val *nn_attention(struct nn *c, struct val *q, struct val *k, struct val *v, const struct attn_shape *shape,
                         const struct attn_batch *batch, struct kv_layer *kv)
{
    if (!q || !k || !v) return NULL;
    const int64_t n = q->rows;
    struct attn_saved *s = arena_push(c->arena, sizeof *s);
    struct val *out = nn_val(c, n, (int64_t)shape->n_heads * shape->head_dim_v);
    struct task *tasks = arena_push(c->arena, (size_t)(n / ROWS + batch->n_seq + 1) * sizeof *tasks);
    if (!s || !out || !tasks) return NULL;
    *s = (struct attn_saved){ q, k, v, out, *shape, *batch, NULL, NULL, NULL, NULL };
    s->lo = arena_push(c->arena, (size_t)n * sizeof *s->lo);
    s->hi = arena_push(c->arena, (size_t)n * sizeof *s->hi);
    if (c->tape) {
        assert(!kv);
        s->max = arena_push(c->arena, (size_t)(n * shape->n_heads) * sizeof(float));
        s->total = arena_push(c->arena, (size_t)(n * shape->n_heads) * sizeof(float));
        if (!s->max || !s->total) return NULL;
    }
    if (!kv) kv = make_caches(c, shape, batch);
    if (!kv || !s->lo || !s->hi) return NULL;
    store(k, v, shape, batch, kv);
    visible(s->lo, s->hi, shape, batch);
    const float *sinks = shape->sink ? shape->sink->data : NULL;
    const int64_t n_tasks = make_tasks(tasks, batch), keys = n ? s->hi[n - 1] - s->lo[n - 1] : 0;
    const bool parallel = n * keys * shape->n_heads * shape->head_dim > NN_ALONE_BELOW;
#pragma omp parallel for schedule(dynamic, 1) collapse(2) if (parallel)
    for (int64_t i = 0; i < n_tasks; i++)
        for (int32_t h = 0; h < shape->n_heads; h++) forward_tile(s, kv, &tasks[i], h, sinks);
    return nn_record(c, attn_back, s) ? out : NULL;
}

/* Buffers of one thread */
struct scratch {
    float p[TILE * TILE], dp[TILE * TILE];
};

/* probabilities p and, from dp = dO·V, the score gradients ds in place of dp; both [rows, keys] with leading dimension
 * TILE */
static void tile_scores(const struct attn_saved *s, struct scratch *x, int32_t h, int64_t row, int64_t rows,
                        int64_t key0, int64_t first_row, int64_t keys, const float *delta)
{
    const int64_t all = s->q->rows;
    const float *max = s->max + h * all, *total = s->total + h * all, scale = s->shape.scale, cap = s->shape.cap;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t t = row + i, base = s->hi[first_row] - 1; /* position of the sequence's first row */
        float *p = x->p + i * TILE, *dp = x->dp + i * TILE, raw[TILE];
        for (int64_t j = 0; j < keys; j++) {
            raw[j] = p[j] * scale;
            p[j] = cap > 0 ? cap * fm_tanh(raw[j] / cap) : raw[j];
        }
        memcpy(raw, p, (size_t)keys * sizeof(float));
        kern->exp(p, p, max[t], keys);
        for (int64_t j = 0; j < keys; j++) {
            int64_t pos = base + key0 - first_row + j;
            p[j] = pos >= s->lo[t] && pos < s->hi[t] ? p[j] / total[t] : 0.0f;
            float slope = cap > 0 ? 1.0f - (raw[j] / cap) * (raw[j] / cap) : 1.0f;
            dp[j] = p[j] * (dp[j] - delta[t]) * (scale * slope);
        }
    }
}

static void backward_head(const struct attn_saved *s, struct scratch *x, int32_t seq, int32_t h, const float *delta)
{
    const struct attn_shape *sh = &s->shape;
    const int64_t hd = sh->head_dim, hv = sh->head_dim_v, kvh = h / (sh->n_heads / sh->n_kv_heads);
    const int64_t first = s->batch.off[seq], end = s->batch.off[seq + 1], qc = s->q->cols, kc = s->k->cols,
                  vc = s->v->cols, oc = s->out->cols;
    const float *q = s->q->data + h * hd, *k = s->k->data + kvh * hd, *v = s->v->data + kvh * hv,
                *go = s->out->grad + h * hv;
    float *dq = s->q->grad + h * hd, *dk = s->k->grad + kvh * hd, *dv = s->v->grad + kvh * hv;
    for (int64_t row = first; row < end; row += TILE) {
        const int64_t rows = COE_MIN((int64_t)TILE, end - row), base = s->hi[first] - 1;
        const int64_t from = first + (s->lo[row] - base) / TILE * TILE; /* lo never falls along a sequence's rows */
        for (int64_t key = COE_MAX(first, from); key < row + rows; key += TILE) {
            const int64_t keys = COE_MIN((int64_t)TILE, row + rows - key);
            kern->dot_tile(x->p, TILE, q + row * qc, qc, NULL, rows, k + key * kc, DT_F32, kc, keys, hd);
            kern->dot_tile(x->dp, TILE, go + row * oc, oc, NULL, rows, v + key * vc, DT_F32, vc, keys, hv);
            tile_scores(s, x, h, row, rows, key, first, keys, delta);
            kern->outer_tile(&(struct outer_args){ .c = dv + key * vc, .ldc = vc, .a = x->p, .a_m = 1, .a_k = TILE,
                                                   .b = go + row * oc,
                                                   .ldb = oc, .m = keys, .n = hv, .k = rows, .accumulate = true });
            kern->outer_tile(&(struct outer_args){ .c = dk + key * kc, .ldc = kc, .a = x->dp, .a_m = 1, .a_k = TILE,
                                                   .b = q + row * qc,
                                                   .ldb = qc, .m = keys, .n = hd, .k = rows, .accumulate = true });
            kern->outer_tile(&(struct outer_args){ .c = dq + row * qc, .ldc = qc, .a = x->dp, .a_m = TILE, .a_k = 1,
                                                   .b = k + key * kc,
                                                   .ldb = kc, .m = rows, .n = hd, .k = keys, .accumulate = true });
        }
    }
}

/* d sink_h = sum over rows of -p_sink * delta, p_sink = exp(sink - max) / total */
static void sink_back(const struct attn_saved *s, const float *delta)
{
    const int64_t all = s->q->rows;
    const float *sink = s->shape.sink->data;
    for (int32_t h = 0; h < s->shape.n_heads; h++) {
        float sum = 0;
        for (int64_t t = 0; t < all; t++)
            sum -= fm_exp(sink[h] - s->max[h * all + t]) / s->total[h * all + t] * delta[h * all + t];
        s->shape.sink->grad[h] += sum;
    }
}

static void attn_back(struct nn *c, void *p)
{
    struct attn_saved *s = p;
    const struct attn_shape *sh = &s->shape;
    if (!s->out->grad || !nn_grad(c, s->q) || !nn_grad(c, s->k) || !nn_grad(c, s->v)) return;
    const int64_t n = s->q->rows, hv = sh->head_dim_v;
    const int32_t group = sh->n_heads / sh->n_kv_heads;
    struct arena_mark mark = arena_save(c->arena);
    float *delta = arena_push(c->arena, (size_t)(n * sh->n_heads) * sizeof(float));
    struct scratch *scratch = arena_push(c->arena, (size_t)coe_threads() * sizeof *scratch);
    if (!delta || !scratch) return;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < n; t++)
        for (int32_t h = 0; h < sh->n_heads; h++) {
            int64_t at = t * s->out->cols + h * hv;
            delta[h * n + t] = kern->dot(s->out->grad + at, s->out->data + at, hv);
        }
    if (sh->sink && sh->sink->grad) sink_back(s, delta);
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
    for (int32_t i = 0; i < s->batch.n_seq; i++)
        for (int32_t kvh = 0; kvh < sh->n_kv_heads; kvh++)
            for (int32_t h = kvh * group; h < (kvh + 1) * group; h++)
                backward_head(s, scratch + thread_index(), i, h, delta + h * n);
    arena_rewind(c->arena, mark);
}
