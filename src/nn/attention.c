/* attention.c — causal attention with grouped key/value heads over a cache. The forward definition is in kernels.h; the
 * backward pass recomputes the probabilities from the kept maximum and total of each row, block by block.
 *
 * Forward: a tile is some tokens times the query heads that share a key head. Where there are many tiles, a thread
 * walks all keys of one; where there are few (a token at a time), the parts of ATTN_PART keys are tasks of their own
 * and joined afterwards. The joins are the same and in the same order, so neither choice changes a bit.
 *
 * Gradients of a key head's keys and values are sums over query heads and rows: one task owns (sequence, key head) and
 * walks blocks of keys, for each of them heads, then rows, all in ascending order. */
#include <math.h>
#include <string.h>

#include "nn/nn.h"

#define ROWS 96 /* query rows (tokens times heads) of a forward tile at most: their state fits the second-level cache \
                 */
#define LEAST 6 /* rows of the kernels' register tile: smaller tiles would read the keys more often */

struct attn_saved {
    struct val *q, *k, *v, *out;
    struct attn_shape shape;
    struct attn_batch batch;
    const struct kv_layer *kv;
    int64_t *lo, *hi;
    float *max, *total; /* [n_heads, n] */
};

static int64_t padded(int64_t n) { return (n + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK; }

/* Temporary caches of a batch without sessions: exactly as long as each sequence. */
static struct kv_layer *make_caches(struct nn *c, const struct attn_shape *s, const struct attn_batch *b)
{
    const int64_t key = kv_key_bytes(s->kv, s->head_dim) / KEY_BLOCK, value = kv_value_bytes(s->kv, s->head_dim_v);
    struct kv_layer *kv = arena_push(c->arena, (size_t)b->n_seq * sizeof *kv);
    for (int32_t i = 0; kv && i < b->n_seq; i++) {
        const int64_t n = padded(b->off[i + 1] - b->off[i]);
        kv[i] = (struct kv_layer){ .capacity = n };
        kv[i].k = arena_push(c->arena, (size_t)(s->n_kv_heads * n * key));
        kv[i].v = arena_push(c->arena, (size_t)(s->n_kv_heads * n * value));
        if (!kv[i].k || !kv[i].v) return NULL;
        for (int32_t h = 0; n && h < s->n_kv_heads; h++) /* a part of the last block may stay empty */
            memset((char *)kv[i].k + ((h + 1) * n - KEY_BLOCK) * key, 0, (size_t)(KEY_BLOCK * key));
    }
    return kv;
}

static char *keys_of(const struct kv_layer *l, const struct attn_shape *s, int64_t head)
{
    return (char *)l->k + head * (l->capacity / KEY_BLOCK) * kv_key_bytes(s->kv, s->head_dim);
}
static char *values_of(const struct kv_layer *l, const struct attn_shape *s, int64_t head)
{
    return (char *)l->v + head * l->capacity * kv_value_bytes(s->kv, s->head_dim_v);
}

static void store(const struct val *k, const struct val *v, const struct attn_shape *s, const struct attn_batch *b,
                  struct kv_layer *kv)
{
    for (int32_t i = 0; i < b->n_seq; i++)
        COE_SPREAD(b->off[i + 1] - b->off[i] > 16, for (int32_t h = 0; h < s->n_kv_heads; h++), {
            char *keys = keys_of(&kv[i], s, h), *values = values_of(&kv[i], s, h);
            for (int64_t t = b->off[i]; t < b->off[i + 1]; t++) {
                const int64_t pos = b->pos0[i] + t - b->off[i];
                assert(pos < kv[i].capacity);
                kv_store_key(keys, s->kv, pos, k->data + t * k->cols + h * s->head_dim, s->head_dim);
                kv_store_value(values, s->kv, pos, v->data + t * v->cols + h * s->head_dim_v, s->head_dim_v);
            }
        });
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

/* Consecutive tokens of one sequence */
struct span {
    int32_t seq;
    int64_t row, n;
};

/* One forward call, cut into tiles: span × piece of the heads that share a key head. */
struct plan {
    const struct attn_saved *s;
    const struct kv_layer *kv;
    struct span *spans;
    int64_t n_spans;
    int32_t heads, pieces;                 /* heads of a tile, tiles of one key head's query heads */
    int64_t parts;                         /* of the longest sequence */
    bool split;                            /* parts are tasks of their own; their rows are in: */
    float *part_out, *part_max, *part_sum; /* [parts][n][n_heads*head_dim_v], [parts][n*n_heads], [parts][…][16] */
    float *scratch;                        /* of each thread: a widened block, then the rows of a part */
    int64_t scratch_floats, block_floats;
};
struct tile {
    struct attn_args args;
    struct attn_rows rows; /* out is set, the rest where the rows' state is to be */
    int64_t first, end;    /* parts that some row sees, as positions */
    int64_t state;         /* rows before this tile's */
};

/* Spans of all sequences, later ones (more keys) first so that threads finish together. */
static void make_spans(struct plan *p, const struct attn_batch *b, int64_t tokens)
{
    p->n_spans = 0;
    for (int32_t i = 0; i < b->n_seq; i++)
        for (int64_t n = b->off[i + 1] - b->off[i], j = (n + tokens - 1) / tokens; j-- > 0;)
            p->spans[p->n_spans++] = (struct span){ i, b->off[i] + j * tokens, COE_MIN(tokens, n - j * tokens) };
}

static int64_t count_spans(const struct attn_batch *b, int64_t tokens)
{
    int64_t n = 0;
    for (int32_t i = 0; i < b->n_seq; i++) n += (b->off[i + 1] - b->off[i] + tokens - 1) / tokens;
    return n;
}

static void attn_back(struct nn *c, void *p);

static struct tile tile_of(const struct plan *p, int64_t index)
{
    const struct attn_saved *s = p->s;
    const struct attn_shape *sh = &s->shape;
    const int64_t all = s->q->rows, group = sh->n_heads / sh->n_kv_heads, per_span = sh->n_kv_heads * p->pieces;
    const struct span *sp = &p->spans[index / per_span];
    const int64_t kvh = index % per_span / p->pieces, skip = index % p->pieces * p->heads, h = kvh * group + skip;
    const struct kv_layer *l = &p->kv[sp->seq];
    struct tile t = { .state = sp->row * sh->n_heads + h * sp->n };
    t.args = (struct attn_args){ .q = s->q->data + sp->row * s->q->cols + h * sh->head_dim,
                                 .ld_q = s->q->cols,
                                 .k = keys_of(l, sh, kvh),
                                 .v = values_of(l, sh, kvh),
                                 .type = sh->kv,
                                 .lo = s->lo + sp->row,
                                 .hi = s->hi + sp->row,
                                 .n_tokens = sp->n,
                                 .heads = (int32_t)COE_MIN(p->heads, group - skip),
                                 .head_dim = sh->head_dim,
                                 .head_dim_v = sh->head_dim_v,
                                 .scale = sh->scale,
                                 .cap = sh->cap,
                                 .sink = sh->sink ? (const float *)sh->sink->data + h : NULL,
                                 .max = s->max ? s->max + h * all + sp->row : NULL,
                                 .total = s->total ? s->total + h * all + sp->row : NULL,
                                 .ld_stat = all };
    t.rows = (struct attn_rows){ s->out->data + sp->row * s->out->cols + h * sh->head_dim_v, s->out->cols, NULL, NULL };
    t.first = t.args.lo[0], t.end = t.args.hi[sp->n - 1]; /* neither falls along a sequence */
    t.first = t.first / ATTN_PART * ATTN_PART;
    return t;
}

static void use_scratch(const struct plan *p, struct attn_args *a)
{
    if (p->block_floats) a->scratch = p->scratch + thread_index() * p->scratch_floats;
}

/* All parts of one tile, one after another. */
static void whole_tile(const struct plan *p, int64_t index)
{
    struct tile t = tile_of(p, index);
    float max[2][ROWS], sum[2][ROWS * 16];
    float *other = p->scratch ? p->scratch + thread_index() * p->scratch_floats + p->block_floats : NULL;
    const struct attn_rows part = { other, (int64_t)t.args.heads * t.args.head_dim_v, max[1], sum[1] };
    t.rows.max = max[0], t.rows.sum = sum[0];
    use_scratch(p, &t.args);
    kern->attn(&t.args, t.first, &t.rows);
    for (int64_t from = t.first + ATTN_PART; from < t.end; from += ATTN_PART) {
        kern->attn(&t.args, from, &part);
        kern->attn_join(&t.args, &t.rows, &part, from);
    }
    kern->attn_end(&t.args, &t.rows);
}

/* Where the rows of a tile's part are; the first part's output is the result's place. */
static struct attn_rows rows_of_part(const struct plan *p, const struct tile *t, int64_t from)
{
    const struct attn_saved *s = p->s;
    const int64_t part = from / ATTN_PART, rows = s->q->rows * s->shape.n_heads, at = part * rows + t->state;
    struct attn_rows r = { t->rows.out, t->rows.ld_out, p->part_max + at, p->part_sum + 16 * at };
    if (from == t->first) return r;
    r.out = p->part_out + at * s->shape.head_dim_v;
    r.ld_out = (int64_t)t->args.heads * s->shape.head_dim_v;
    return r;
}

static void one_part(const struct plan *p, int64_t index, int64_t part)
{
    struct tile t = tile_of(p, index);
    const int64_t from = part * ATTN_PART;
    if (from < t.first || from >= t.end) return;
    const struct attn_rows rows = rows_of_part(p, &t, from);
    use_scratch(p, &t.args);
    kern->attn(&t.args, from, &rows);
}

static void join_parts(const struct plan *p, int64_t index)
{
    const struct tile t = tile_of(p, index);
    const struct attn_rows rows = rows_of_part(p, &t, t.first);
    for (int64_t from = t.first + ATTN_PART; from < t.end; from += ATTN_PART) {
        const struct attn_rows part = rows_of_part(p, &t, from);
        kern->attn_join(&t.args, &rows, &part, from);
    }
    kern->attn_end(&t.args, &rows);
}

/* Sizes of tiles: large ones read keys seldom, but every thread should get some. What is allocated depends on the
 * caches' capacity, not on how far they are filled, so that decoding needs the same memory at every token. */
static bool make_plan(struct nn *c, struct plan *p)
{
    const struct attn_shape *sh = &p->s->shape;
    const struct attn_batch *b = &p->s->batch;
    const int64_t n = p->s->q->rows, group = sh->n_heads / sh->n_kv_heads, wanted = 2 * (int64_t)coe_threads();
    int64_t heads = COE_MIN(group, (int64_t)ROWS), tokens = ROWS / heads, longest = 0, room = 0, tiles;
    for (int32_t i = 0; i < b->n_seq; i++) {
        room = COE_MAX(room, p->kv[i].capacity);
        if (b->off[i + 1] > b->off[i]) longest = COE_MAX(longest, p->s->hi[b->off[i + 1] - 1]);
    }
    while ((tiles = count_spans(b, tokens) * sh->n_kv_heads * ((group + heads - 1) / heads)) < wanted) {
        if (tokens > 1 && tokens * heads > LEAST)
            tokens = (tokens + 1) / 2;
        else if (heads > LEAST && longest <= ATTN_PART)
            heads = (heads + 1) / 2;
        else
            break;
    }
    p->heads = (int32_t)heads;
    p->pieces = (int32_t)((group + heads - 1) / heads);
    p->parts = (room + ATTN_PART - 1) / ATTN_PART;
    if (!(p->spans = arena_push(c->arena, (size_t)count_spans(b, tokens) * sizeof *p->spans))) return false;
    make_spans(p, b, tokens);
    p->block_floats = sh->kv == DT_F32 ? 0 : ATTN_BLOCK * (int64_t)(sh->head_dim + sh->head_dim_v);
    p->scratch_floats = p->block_floats + (p->parts > 1 ? ROWS * (int64_t)sh->head_dim_v : 0);
    const size_t rows = (size_t)(p->parts * n * sh->n_heads), threads = (size_t)coe_threads();
    if (p->scratch_floats && !(p->scratch = arena_push(c->arena, (size_t)p->scratch_floats * threads * sizeof(float))))
        return false;
    if (p->parts == 1 || tiles >= wanted) return true;
    p->split = longest > ATTN_PART;
    p->part_out = arena_push(c->arena, rows * (size_t)sh->head_dim_v * sizeof(float));
    p->part_max = arena_push(c->arena, rows * sizeof(float));
    p->part_sum = arena_push(c->arena, rows * 16 * sizeof(float));
    return p->part_out && p->part_max && p->part_sum;
}

static void attend(const struct plan *p)
{
    const struct attn_saved *s = p->s;
    const int64_t n = s->q->rows, tiles = p->n_spans * s->shape.n_kv_heads * p->pieces, parts = p->parts;
    const int64_t keys = n ? s->hi[n - 1] - s->lo[n - 1] : 0;
    const bool parallel = n * keys * s->shape.n_heads * s->shape.head_dim > NN_ALONE_BELOW;
    if (!parallel || coe_threads() == 1) { /* without the runtime, see COE_SPREAD */
        for (int64_t i = 0; i < tiles; i++) whole_tile(p, i);
        return;
    }
    if (!p->split) {
#pragma omp parallel for schedule(dynamic, 1)
        for (int64_t i = 0; i < tiles; i++) whole_tile(p, i);
        return;
    }
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (int64_t i = 0; i < tiles; i++)
            for (int64_t j = 0; j < parts; j++) one_part(p, i, j);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles; i++) join_parts(p, i);
    }
}

struct val *nn_attention(struct nn *c, struct val *q, struct val *k, struct val *v, const struct attn_shape *shape,
                         const struct attn_batch *batch, struct kv_layer *kv)
{
    if (!q || !k || !v) return NULL;
    const int64_t n = q->rows;
    struct attn_saved *s = arena_push(c->arena, sizeof *s);
    struct val *out = nn_val(c, n, (int64_t)shape->n_heads * shape->head_dim_v);
    if (!s || !out) return NULL;
    *s = (struct attn_saved){ q, k, v, out, *shape, *batch, NULL, NULL, NULL, NULL, NULL };
    s->lo = arena_push(c->arena, (size_t)n * sizeof *s->lo);
    s->hi = arena_push(c->arena, (size_t)n * sizeof *s->hi);
    if (c->tape) {
        assert(!kv && shape->kv == DT_F32);
        s->max = arena_push(c->arena, (size_t)(n * shape->n_heads) * sizeof(float));
        s->total = arena_push(c->arena, (size_t)(n * shape->n_heads) * sizeof(float));
        if (!s->max || !s->total) return NULL;
    }
    if (!kv) kv = make_caches(c, shape, batch);
    if (!kv || !s->lo || !s->hi) return NULL;
    store(k, v, shape, batch, kv);
    visible(s->lo, s->hi, shape, batch);
    s->kv = kv;
    struct plan p = { .s = s, .kv = kv };
    if (!make_plan(c, &p)) return NULL;
    attend(&p);
    return nn_record(c, attn_back, s) ? out : NULL;
}

/* Gradients through one key head: for each block of keys the query heads that share it, for each of them the rows. */
static void backward_head(const struct attn_saved *s, float *scratch, int32_t seq, int32_t kvh, const float *delta)
{
    const struct attn_shape *sh = &s->shape;
    const int64_t hd = sh->head_dim, hv = sh->head_dim_v, group = sh->n_heads / sh->n_kv_heads, all = s->q->rows;
    const int64_t first = s->batch.off[seq], end = s->batch.off[seq + 1], oc = s->out->cols;
    float *values = scratch + 2 * ATTN_BLOCK * ATTN_BLOCK;
    struct attn_back_args a = { .ld_q = s->q->cols, .ld_go = oc, .ld_k = s->k->cols, .ld_v = s->v->cols,
                                .head_dim = sh->head_dim, .head_dim_v = sh->head_dim_v, .scale = sh->scale,
                                .cap = sh->cap, .v_blocks = values, .scratch = scratch };
    for (int64_t key = first; key < end; key += ATTN_BLOCK) {
        a.start = key - first, a.n_keys = COE_MIN((int64_t)ATTN_BLOCK, end - key);
        a.k = s->k->data + key * a.ld_k + kvh * hd, a.dk = s->k->grad + key * a.ld_k + kvh * hd;
        a.dv = s->v->grad + key * a.ld_v + kvh * hv;
        a.k_blocks = (const float *)(const void *)keys_of(&s->kv[seq], sh, kvh) + a.start * hd;
        for (int64_t j = 0; j < a.n_keys; j++)
            kv_store_key(values, DT_F32, j, s->v->data + (key + j) * a.ld_v + kvh * hv, hv);
        for (int64_t h = kvh * group; h < (kvh + 1) * group; h++)
            for (int64_t row = key; row < end && s->lo[row] < a.start + a.n_keys; row += ATTN_BLOCK) {
                a.n = COE_MIN((int64_t)ATTN_BLOCK, end - row);
                a.q = s->q->data + row * a.ld_q + h * hd, a.dq = s->q->grad + row * a.ld_q + h * hd;
                a.go = s->out->grad + row * oc + h * hv;
                a.lo = s->lo + row, a.hi = s->hi + row;
                a.max = s->max + h * all + row, a.total = s->total + h * all + row, a.delta = delta + h * all + row;
                kern->attn_back(&a);
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
    struct arena_mark mark = arena_save(c->arena);
    float *delta = arena_push(c->arena, (size_t)(n * sh->n_heads) * sizeof(float));
    const int64_t room = 2 * ATTN_BLOCK * ATTN_BLOCK + ATTN_BLOCK * hv; /* of one thread */
    float *scratch = arena_push_zero(c->arena, (size_t)(coe_threads() * room) * sizeof *scratch);
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
            backward_head(s, scratch + thread_index() * room, i, kvh, delta);
    arena_rewind(c->arena, mark);
}
