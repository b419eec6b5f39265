/* latent.c — the two products that turn latent attention into attention with one shared key head.
 *
 * Paper: DeepSeek-V2, 2024 (card: routing.md 2). A head's score q_nope·(W_k c) is (W_kᵀ q_nope)·c and its output W_v Σ
 * p c, so keys and values of all heads are the latent c itself. One form for prefill and decoding: the same bits from
 * both. The expanded form, on request, makes every head's keys and values instead. */
#include <string.h>

#include "nn/nn.h"

struct latent_saved {
    struct val *x, *y;
    const struct weight *kv_b;
    struct latent_shape s;
};

/* Rows of kv_b that belong to the keys or values of a head, as a weight of its own. */
static struct weight rows_of(const struct weight *w, int64_t first, int64_t n)
{
    const int64_t bytes = w->cols * dtype_info[w->type].bytes;
    struct weight part = *w; /* adapters leave kv_b alone */
    part.rows = n;
    part.data = (const char *)w->data + first * bytes;
    if (w->grad) part.grad = w->grad + first * w->cols;
    return part;
}

static struct weight key_part(const struct latent_saved *l, int32_t h)
{
    return rows_of(l->kv_b, (int64_t)h * (l->s.nope + l->s.v_dim), l->s.nope);
}

static struct weight value_part(const struct latent_saved *l, int32_t h)
{
    return rows_of(l->kv_b, (int64_t)h * (l->s.nope + l->s.v_dim) + l->s.nope, l->s.v_dim);
}

static struct latent_saved *save(struct nn *c, struct val *x, const struct weight *kv_b, const struct latent_shape *s,
                                 int64_t cols)
{
    struct latent_saved *l = arena_push(c->arena, sizeof *l);
    struct val *y = nn_val(c, x->rows, cols);
    if (!l || !y) return NULL;
    *l = (struct latent_saved){ x, y, kv_b, *s };
    return l;
}

static void query_back(struct nn *c, void *p)
{
    struct latent_saved *l = p;
    const int64_t in = l->s.nope + l->s.rope, out = l->s.rope + l->s.rank, n = l->x->rows;
    float *dx = l->y->grad ? nn_grad(c, l->x) : NULL;
    if (!dx) return;
    struct arena_mark mark = arena_save(c->arena);
    float *part = arena_push(c->arena, (size_t)(n * l->s.nope) * sizeof(float));
    for (int32_t h = 0; part && h < l->s.n_heads; h++) {
        const float *dy = l->y->grad + h * out;
        struct weight w = key_part(l, h);
        gemm_xwt(part, l->s.nope, dy + l->s.rope, l->y->cols, n, &w, NULL);
        if (w.grad) gemm_dw(&w, NULL, l->x->data + h * in, l->x->cols, dy + l->s.rope, l->y->cols, n);
        for (int64_t t = 0; t < n; t++) {
            kern->add(dx + t * l->x->cols + h * in, part + t * l->s.nope, l->s.nope);
            kern->add(dx + t * l->x->cols + h * in + l->s.nope, dy + t * l->y->cols, l->s.rope);
        }
    }
    arena_rewind(c->arena, mark);
}

struct val *nn_latent_query(struct nn *c, struct val *q, const struct weight *kv_b, const struct latent_shape *s)
{
    if (!q) return NULL;
    const int64_t in = s->nope + s->rope, out = s->rope + s->rank;
    struct latent_saved *l = save(c, q, kv_b, s, s->n_heads * out);
    if (!l) return NULL;
    struct arena_mark mark = arena_save(c->arena);
    float *wide = kv_b->type == DT_F32 ? NULL : arena_push(c->arena, (size_t)(s->nope * s->rank) * sizeof(float));
    if (kv_b->type != DT_F32 && !wide) return NULL;
    for (int32_t h = 0; h < s->n_heads; h++) {
        struct weight w = key_part(l, h);
        if (wide) {
            widen(wide, w.data, w.type, (int64_t)s->nope * s->rank);
            w.data = wide, w.type = DT_F32;
        }
        gemm_dx(l->y->data + h * out + s->rope, l->y->cols, q->data + h * in, q->cols, q->rows, &w, false);
        for (int64_t t = 0; t < q->rows; t++)
            memcpy(l->y->data + t * l->y->cols + h * out, q->data + t * q->cols + h * in + s->nope,
                   (size_t)s->rope * sizeof(float));
    }
    arena_rewind(c->arena, mark);
    return nn_record(c, query_back, l) ? l->y : NULL;
}

static void output_back(struct nn *c, void *p)
{
    struct latent_saved *l = p;
    float *dx = l->y->grad ? nn_grad(c, l->x) : NULL;
    for (int32_t h = 0; dx && h < l->s.n_heads; h++) {
        struct weight w = value_part(l, h);
        const float *dy = l->y->grad + (int64_t)h * l->s.v_dim;
        if (w.grad) gemm_dw(&w, NULL, dy, l->y->cols, l->x->data + (int64_t)h * l->s.rank, l->x->cols, l->x->rows);
        gemm_dx(dx + (int64_t)h * l->s.rank, l->x->cols, dy, l->y->cols, l->x->rows, &w, true);
    }
}

struct val *nn_latent_output(struct nn *c, struct val *o, const struct weight *kv_b, const struct latent_shape *s)
{
    if (!o) return NULL;
    struct latent_saved *l = save(c, o, kv_b, s, (int64_t)s->n_heads * s->v_dim);
    if (!l) return NULL;
    for (int32_t h = 0; h < s->n_heads; h++) {
        struct weight w = value_part(l, h);
        gemm_xwt(l->y->data + (int64_t)h * s->v_dim, l->y->cols, o->data + (int64_t)h * s->rank, o->cols, o->rows, &w,
                 NULL);
    }
    return nn_record(c, output_back, l) ? l->y : NULL;
}

struct val *nn_latent_heads(struct nn *c, struct val *rope, struct val *nope, const struct latent_shape *s)
{
    if (!rope || !nope || nn_forward_only(c, "the expanded form of latent attention")) return NULL;
    const int64_t width = s->rope + s->nope, next = rope->cols == s->rope ? 0 : s->rope;
    struct val *y = nn_val(c, nope->rows, s->n_heads * width);
    for (int64_t t = 0; y && t < y->rows; t++)
        for (int32_t h = 0; h < s->n_heads; h++) {
            float *to = y->data + t * y->cols + h * width;
            memcpy(to, rope->data + t * rope->cols + h * next, (size_t)s->rope * sizeof(float));
            memcpy(to + s->rope, nope->data + t * nope->cols + (int64_t)h * s->nope, (size_t)s->nope * sizeof(float));
        }
    return y;
}
