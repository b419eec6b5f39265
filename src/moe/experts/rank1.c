/* rank1.c — every rank of one adapter is an expert: E_i(x) = (alpha / top_k) b_i (a_i · x).
 *
 * Paper: SMoRA, Each Rank Could be an Expert, 2025 (card: routing.md 23). The range's A and B [n, d] hold row i of the
 * down matrix and column i of the up matrix; B starts from zero. The published router is sigmoid with a selection bias
 * that also weighs ("bias_in_weights"), weights renormalised and times k ("scale": top_k). All ranks with equal scores
 * are then an ordinary adapter. */
#include "moe/experts/rows.h"

enum { DOWN, UP };

static const struct part_param params[] = {
    { "alpha", "scale of the adapter, divided by top_k", NULL, 0, 1e6, 16, false },
    { 0 },
};

struct ranks {
    struct val *x, *y; /* [n, d] */
    float *h;          /* [n] scaled a · x */
    float scale;
    const struct weight *a, *b;
    struct groups of;
};

/* Row i of a matrix, as floats; wide [cols] is room for types that are not. */
static const float *row_of(const struct weight *w, int32_t i, float *wide)
{
    uint64_t at = 0;
    if (w->type == DT_F32) return (const float *)w->data + (int64_t)i * w->cols;
    (void)dtype_bytes(w->type, (uint64_t)i * (uint64_t)w->cols, &at);
    widen(wide, (const char *)w->data + at, w->type, w->cols);
    return wide;
}

static void ranks_back(struct nn *c, void *saved)
{
    const struct ranks *s = saved;
    const int64_t d = s->x->cols;
    if (!s->y->grad) return;
    bool fresh;
    float *dx = nn_grad_raw(c, s->x, &fresh);
    if (!dx) return;
#pragma omp parallel for schedule(dynamic) if (s->x->rows * d > NN_ALONE_BELOW)
    for (int32_t e = 0; e < s->of.n; e++)
        for (int32_t i = s->of.off[e]; i < s->of.off[e + 1]; i++) {
            const float *dy = s->y->grad + i * d;
            const float dh = s->scale * kern->dot(dy, (const float *)s->b->data + e * d, d);
            if (fresh)
                kern->scale(dx + i * d, (const float *)s->a->data + e * d, dh, d);
            else
                kern->fma_row(dx + i * d, dh, (const float *)s->a->data + e * d, d);
            if (s->a->grad) kern->fma_row(s->a->grad + e * d, dh, s->x->data + i * d, d);
            if (s->b->grad) kern->fma_row(s->b->grad + e * d, s->h[i], dy, d);
        }
}

/* Expert e on its rows */
static void apply(struct ranks *s, int32_t e, float *wide)
{
    const int32_t from = s->of.off[e], end = s->of.off[e + 1];
    const int64_t d = s->x->cols;
    if (from == end) return;
    const float *a = row_of(s->a, e, wide);
    for (int32_t i = from; i < end; i++) s->h[i] = s->scale * kern->dot(s->x->data + i * d, a, d);
    const float *b = row_of(s->b, e, wide);
    for (int32_t i = from; i < end; i++) kern->scale(s->y->data + i * d, b, s->h[i], d);
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct val *x = experts_inputs(c, rows), *y = x ? nn_val(c, x->rows, x->cols) : NULL;
    const int64_t d = x ? x->cols : 0;
    struct ranks *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    float *h = s ? arena_push(c->arena, (size_t)x->rows * sizeof *h) : NULL;
    float *wide = h ? arena_push(c->arena, (size_t)rows->of.n * (size_t)d * sizeof *wide) : NULL;
    if (!wide) return NULL;
    *s = (struct ranks){ x,
                         y,
                         h,
                         (float)(rows->range->param[0] / rows->call->spec->router.top_k),
                         experts_weight(rows, DOWN),
                         experts_weight(rows, UP),
                         rows->of };
#pragma omp parallel for schedule(dynamic) if (x->rows * d > NN_ALONE_BELOW)
    for (int32_t e = 0; e < rows->of.n; e++) apply(s, e, wide + e * d);
    return nn_record(c, ranks_back, s) ? y : NULL;
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static bool shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->range->n, *cols = at->d_model;
    return true;
}

static const struct part_weight weights[] = {
    { .name = "lora_A.weight", .scope = PART_OF_LAYER, .by_expert = true, .shape = shape },
    { .name = "lora_B.weight", .scope = PART_OF_LAYER, .by_expert = true, .init = INIT_ZERO, .shape = shape },
    { 0 },
};

static const struct expert_part rank1 = { .run = run, .weights = weights, .reads = true };
COE_PART(expert, rank1, .summary = "one rank of an adapter that all such experts make up", .paper = "SMoRA, 2025",
         .card = "routing.md 23", .unit = "token", .params = params, .impl = &rank1)
