/* const.c — an expert between its input and a vector: E(x) = a1 x + a2 v, (a1, a2) = softmax(W x).
 *
 * Paper: MoE++, 2024 (card: routing.md 5). W [2, d], v [d] starts from N(0, 1). With a = (1, 0) it is a copy. It counts
 * as an expert that computes nothing (losses heterogeneous). */
#include "moe/experts/rows.h"

enum { MIX, VECTOR };

struct mixed {
    struct val *x, *z, *y; /* [n, d], [n, 2], [n, d] */
    float *a;              /* [n, 2] softmax of z */
    const struct weight *const *v;
    struct groups of;
};

static void mix_back(struct nn *c, void *saved)
{
    const struct mixed *s = saved;
    const int64_t d = s->x->cols;
    if (!s->y->grad) return;
    float *dx = nn_grad(c, s->x), *dz = nn_grad(c, s->z);
    if (!dx || !dz) return;
#pragma omp parallel for schedule(static) if (s->x->rows * d > NN_ALONE_BELOW)
    for (int32_t e = 0; e < s->of.n; e++)
        for (int32_t i = s->of.off[e]; i < s->of.off[e + 1]; i++) {
            const float *a = s->a + 2 * i, *dy = s->y->grad + i * d;
            const float to_x = kern->dot(dy, s->x->data + i * d, d), to_v = kern->dot(dy, s->v[e]->data, d);
            const float change = a[0] * a[1] * (to_x - to_v); /* of two probabilities one is the rest */
            dz[2 * i] += change;
            dz[2 * i + 1] -= change;
            kern->fma_row(dx + i * d, a[0], dy, d);
            if (s->v[e]->grad) kern->fma_row(s->v[e]->grad, a[1], dy, d);
        }
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct val *x = experts_inputs(c, rows);
    struct val *z = experts_linear(c, x, rows->of, experts_weights(rows, MIX));
    struct val *y = z ? nn_val(c, x->rows, x->cols) : NULL;
    struct mixed *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    float *a = s ? arena_push(c->arena, (size_t)x->rows * 2 * sizeof *a) : NULL;
    if (!a) return NULL;
    *s = (struct mixed){ x, z, y, a, experts_weights(rows, VECTOR), rows->of };
#pragma omp parallel for schedule(dynamic) if (x->rows * x->cols > NN_ALONE_BELOW)
    for (int32_t e = 0; e < rows->of.n; e++)
        for (int32_t i = rows->of.off[e]; i < rows->of.off[e + 1]; i++) {
            a[2 * i] = kern->sigmoid1(z->data[2 * i] - z->data[2 * i + 1]);
            a[2 * i + 1] = kern->sigmoid1(z->data[2 * i + 1] - z->data[2 * i]);
            kern->scale(y->data + i * x->cols, x->data + i * x->cols, a[2 * i], x->cols);
            kern->fma_row(y->data + i * x->cols, a[2 * i + 1], s->v[e]->data, x->cols);
        }
    return nn_record(c, mix_back, s) ? y : NULL;
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static bool mix_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 2, *cols = at->d_model;
    return true;
}

static bool vector_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = at->d_model;
    return true;
}

static const struct part_weight weights[] = {
    { .name = "mix.weight", .scope = PART_OF_EXPERT, .shape = mix_shape },
    { .name = "constant", .scope = PART_OF_EXPERT, .vector = true, .value = 1, .shape = vector_shape },
    { 0 },
};

static const struct expert_part constant = { .run = run, .weights = weights, .idle = true };
COE_PART(expert, const, .summary = "mixes its input with a learned vector", .paper = "MoE++, 2024",
         .card = "routing.md 5", .unit = "token", .impl = &constant)
