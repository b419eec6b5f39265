/* probability.c — see probability.h. Sums over experts are one chain in ascending id. */
#include <float.h>
#include <math.h>

#include "moe/routers/probability.h"

struct saved {
    struct val *x, *y;
};

static bool save(struct nn *c, void (*back)(struct nn *, void *), struct val *x, struct val *y)
{
    if (!c->tape) return true;
    struct saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return false;
    *s = (struct saved){ x, y };
    return nn_record(c, back, s);
}

/* dz = p (dp - ⟨p, dp⟩) */
static void softmax_back(struct nn *c, void *p)
{
    const struct saved *s = p;
    const int64_t n = s->x->cols;
    float *dz = s->y->grad ? nn_grad(c, s->x) : NULL;
    if (!dz) return;
#pragma omp parallel for schedule(static) if (s->x->rows * n > NN_ALONE_BELOW / 8)
    for (int64_t t = 0; t < s->x->rows; t++) {
        const float *y = s->y->data + t * n, *dy = s->y->grad + t * n;
        float mean = 0;
        for (int64_t e = 0; e < n; e++) mean = fmaf(y[e], dy[e], mean);
        for (int64_t e = 0; e < n; e++) dz[t * n + e] += y[e] * (dy[e] - mean);
    }
}

struct val *router_softmax(struct nn *c, struct val *z, const struct route_hook *hook)
{
    const uint8_t *keep = hook ? hook->keep : NULL;
    struct val *p = z ? nn_val(c, z->rows, z->cols) : NULL;
    if (!p) return NULL;
    const int64_t n = z->cols;
#pragma omp parallel for schedule(static) if (z->rows * n > NN_ALONE_BELOW / 8)
    for (int64_t t = 0; t < z->rows; t++) {
        const float *x = z->data + t * n;
        float *y = p->data + t * n, max = -INFINITY, sum = 0;
        for (int64_t e = 0; e < n; e++)
            if (!keep || keep[e]) max = COE_MAX(max, x[e]);
        kern->exp(y, x, max, n);
        for (int64_t e = 0; e < n; e++) {
            if (keep && !keep[e]) y[e] = 0;
            sum += y[e];
        }
        for (int64_t e = 0; e < n; e++) y[e] /= sum;
    }
    return save(c, softmax_back, z, p) ? p : NULL;
}

static void log_back(struct nn *c, void *p)
{
    const struct saved *s = p;
    float *dp = s->y->grad ? nn_grad(c, s->x) : NULL;
    for (int64_t i = 0; dp && i < s->x->rows * s->x->cols; i++)
        if (s->x->data[i] >= FLT_MIN) dp[i] += s->y->grad[i] / s->x->data[i];
}

struct val *router_log(struct nn *c, struct val *p)
{
    struct val *y = p ? nn_val(c, p->rows, p->cols) : NULL;
    if (!y) return NULL;
#pragma omp parallel for schedule(static) if (p->rows * p->cols > NN_ALONE_BELOW / 8)
    for (int64_t i = 0; i < p->rows * p->cols; i++) y->data[i] = kern->log1(COE_MAX(p->data[i], FLT_MIN));
    return save(c, log_back, p, y) ? y : NULL;
}

coe_status router_needs_softmax(const struct moe_spec *m, const char *where)
{
    if (m->router.score == SCORE_SOFTMAX) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: router %s mixes probabilities and needs softmax scores", where, m->router.kind);
}
