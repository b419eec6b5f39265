/* gru.c — the element-wise part of a gated recurrent unit; its two products are nn_linear. */
#include "nn/nn.h"

struct gru_saved {
    struct val *a, *b, *h, *y;
    float *gates; /* [T, 3p] = [r | q | n] */
};

static void gru_back(struct nn *c, void *p)
{
    struct gru_saved *s = p;
    const int64_t n = s->h->cols;
    float *da = s->y->grad ? nn_grad(c, s->a) : NULL, *db = da ? nn_grad(c, s->b) : NULL;
    float *dh = db ? nn_grad(c, s->h) : NULL;
    if (!dh) return;
#pragma omp parallel for schedule(static) if (s->h->rows * n > NN_ALONE_BELOW)
    for (int64_t t = 0; t < s->h->rows; t++) {
        const float *r = s->gates + t * 3 * n, *q = r + n, *m = q + n, *h = s->h->data + t * n;
        const float *b_n = s->b->data + t * 3 * n + 2 * n, *dy = s->y->grad + t * n;
        float *a_row = da + t * 3 * n, *b_row = db + t * 3 * n;
        for (int64_t i = 0; i < n; i++) {
            const float dn = dy[i] * (1 - q[i]) * (1 - m[i] * m[i]);
            const float dr = dn * b_n[i] * r[i] * (1 - r[i]), dq = dy[i] * (h[i] - m[i]) * q[i] * (1 - q[i]);
            a_row[i] += dr, b_row[i] += dr;
            a_row[n + i] += dq, b_row[n + i] += dq;
            a_row[2 * n + i] += dn, b_row[2 * n + i] += dn * r[i];
            dh[t * n + i] += dy[i] * q[i];
        }
    }
}

struct val *nn_gru(struct nn *c, struct val *a, struct val *b, struct val *h)
{
    if (!a || !b || !h) return NULL;
    const int64_t n = h->cols;
    assert(a->cols == 3 * n && b->cols == 3 * n);
    struct val *y = nn_val(c, h->rows, n);
    struct arena_mark mark = arena_save(c->arena);
    float *gates = y ? arena_push(c->arena, (size_t)(h->rows * 3 * n) * sizeof(float)) : NULL;
    if (!gates) return NULL;
#pragma omp parallel for schedule(static) if (h->rows * n > NN_ALONE_BELOW / 8)
    for (int64_t t = 0; t < h->rows; t++) {
        float *g = gates + t * 3 * n, *m = g + 2 * n;
        const float *x = a->data + t * 3 * n, *z = b->data + t * 3 * n, *old = h->data + t * n;
        kern->sum(g, x, z, 2 * n);
        kern->sigmoid(g, g, 2 * n);
        for (int64_t i = 0; i < n; i++) m[i] = x[2 * n + i] + g[i] * z[2 * n + i];
        kern->tanh(m, m, n);
        for (int64_t i = 0; i < n; i++) y->data[t * n + i] = (1 - g[n + i]) * m[i] + g[n + i] * old[i];
    }
    if (!c->tape) {
        arena_rewind(c->arena, mark);
        return y;
    }
    struct gru_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return NULL;
    *s = (struct gru_saved){ a, b, h, y, gates };
    return nn_record(c, gru_back, s) ? y : NULL;
}
