/* consistency.c — the distance between two predictions of the same token: symmetric KL divergence of two softmaxes.
 *
 * Paper: Taming Sparsely Activated Transformer with Stochastic Experts (THOR), 2021 (card: routing.md 20). Over the
 * rows that count, with l = log p - log q L = 1/2 Σ (p - q) l;   dL/da = 1/2 (p (l - Σ p l) + p - q),   dL/db = 1/2 (q
 * (Σ q l - l) + q - p) since L is half of KL(p|q) + KL(q|p). */
#include "base/part.h"
#include "nn/nn.h"

struct consistency_saved {
    struct val *a, *b;
    const uint8_t *counts;
    const float *lse_a, *lse_b;
    float scale;
};

/* p, q [vocab] of one row and l in their logarithms' difference; returns L. kl: Σ p l, Σ q l */
static double row_of(const float *a, const float *b, float lse_a, float lse_b, int64_t vocab, float *p, float *q,
                     double kl[2])
{
    kern->exp(p, a, lse_a, vocab);
    kern->exp(q, b, lse_b, vocab);
    kl[0] = kl[1] = 0;
    for (int64_t i = 0; i < vocab; i++) {
        const double l = (double)(a[i] - lse_a) - (double)(b[i] - lse_b);
        kl[0] += (double)p[i] * l;
        kl[1] += (double)q[i] * l;
    }
    return (kl[0] - kl[1]) / 2;
}

static void consistency_back(struct nn *c, void *saved)
{
    struct consistency_saved *s = saved;
    const int64_t v = s->a->cols;
    float *da = nn_grad(c, s->a), *db = nn_grad(c, s->b);
    const struct arena_mark mark = arena_save(c->arena);
    float *scratch = arena_push(c->arena, 2 * (size_t)coe_threads() * (size_t)v * sizeof *scratch);
    if (!da || !db || !scratch) return;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < s->a->rows; t++) {
        if (!s->counts[t]) continue;
        const float *a = s->a->data + t * v, *b = s->b->data + t * v, half = s->scale / 2;
        float *p = scratch + 2 * (int64_t)thread_index() * v, *q = p + v;
        double kl[2];
        row_of(a, b, s->lse_a[t], s->lse_b[t], v, p, q, kl);
        for (int64_t i = 0; i < v; i++) {
            const float l = (float)((double)(a[i] - s->lse_a[t]) - (double)(b[i] - s->lse_b[t]));
            da[t * v + i] += half * (p[i] * (l - (float)kl[0]) + p[i] - q[i]);
            db[t * v + i] += half * (q[i] * ((float)kl[1] - l) + q[i] - p[i]);
        }
    }
    arena_rewind(c->arena, mark);
}

static double distance(const struct consistency_saved *s, float *scratch, double *loss)
{
    const int64_t v = s->a->cols;
    double sum = 0;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < s->a->rows; t++) {
        float *p = scratch + 2 * (int64_t)thread_index() * v;
        double kl[2];
        loss[t] = s->counts[t]
                      ? row_of(s->a->data + t * v, s->b->data + t * v, s->lse_a[t], s->lse_b[t], v, p, p + v, kl)
                      : 0;
    }
    for (int64_t t = 0; t < s->a->rows; t++) sum += loss[t];
    return sum;
}

coe_status nn_consistency(struct nn *c, struct val *a, struct val *b, const int32_t *target, double scale, double *sum)
{
    if (!a || !b) return coe_last_status();
    assert(a->rows == b->rows && a->cols == b->cols);
    const size_t n = (size_t)a->rows;
    struct consistency_saved *s = arena_push(c->arena, sizeof *s);
    uint8_t *counts = arena_push(c->arena, n);
    float *lse = arena_push(c->arena, 2 * n * sizeof *lse);
    const struct arena_mark mark = arena_save(c->arena);
    double *loss = arena_push(c->arena, n * sizeof *loss);
    int32_t *any = arena_push_zero(c->arena, n * sizeof *any);
    float *unused = arena_push(c->arena, n * sizeof *unused);
    float *scratch = arena_push(c->arena, 2 * (size_t)coe_threads() * (size_t)a->cols * sizeof *scratch);
    if (!s || !counts || !lse || !loss || !any || !unused || !scratch) return COE_E_NOMEM;
    for (size_t t = 0; t < n; t++) counts[t] = target[t] >= 0;
    nn_xent_rows(a->data, a->rows, a->cols, any, unused, lse);
    nn_xent_rows(b->data, b->rows, b->cols, any, unused, lse + n);
    *s = (struct consistency_saved){ a, b, counts, lse, lse + n, (float)scale };
    *sum = distance(s, scratch, loss);
    arena_rewind(c->arena, mark);
    return nn_record(c, consistency_back, s) ? COE_OK : COE_E_NOMEM;
}

COE_PART(objective, consistency, .summary = "two passes with other draws of experts shall predict the same",
         .paper = "THOR: Stochastic Experts, 2021", .card = "routing.md 20", .unit = "token")
