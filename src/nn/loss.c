/* loss.c — softmax cross-entropy over rows of logits. */
#include <string.h>

#include "nn/nn.h"

struct xent_saved {
    struct val *logits;
    const int32_t *target;
    const float *lse;
    double scale, z_scale;
};

static void xent_back(struct nn *c, void *p)
{
    struct xent_saved *s = p;
    bool fresh;
    float *d = nn_grad_raw(c, s->logits, &fresh);
    if (!d) return;
    assert(fresh);
    const int64_t v = s->logits->cols;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < s->logits->rows; t++) {
        if (s->target[t] < 0) memset(d + t * v, 0, (size_t)v * sizeof(float));
        else kern->xent_back(d + t * v, s->logits->data + t * v, v, s->target[t], s->lse[t], (float)s->scale,
                             (float)(2.0 * s->z_scale * (double)s->lse[t]));
    }
}

void nn_xent_rows(const float *logits, int64_t n, int64_t vocab, const int32_t *target, float *loss, float *lse)
{
#pragma omp parallel for schedule(static) if (n > 1)
    for (int64_t t = 0; t < n; t++) {
        float l = 0;
        loss[t] = target[t] < 0 ? 0.0f : kern->xent(logits + t * vocab, vocab, target[t], &l);
        if (lse) lse[t] = l;
    }
}

coe_status nn_xent(struct nn *c, struct val *logits, const int32_t *target, double scale, double z_coef, double *sum,
                   int64_t *count)
{
    if (!logits) return coe_last_status();
    const int64_t n = logits->rows;
    float *loss = arena_push(c->arena, (size_t)n * sizeof(float)),
          *lse = arena_push(c->arena, (size_t)n * sizeof(float));
    if (!loss || !lse) return COE_E_NOMEM;
    nn_xent_rows(logits->data, n, logits->cols, target, loss, lse);
    *sum = 0;
    *count = 0;
    for (int64_t t = 0; t < n; t++)
        if (target[t] >= 0) {
            *sum += (double)loss[t];
            ++*count;
        }
    if (!c->tape) return COE_OK;
    struct xent_saved *s = arena_push(c->arena, sizeof *s);
    int32_t *kept = arena_push(c->arena, (size_t)n * sizeof *kept);
    if (!s || !kept) return COE_E_NOMEM;
    memcpy(kept, target, (size_t)n * sizeof *kept);
    *s = (struct xent_saved){ logits, kept, lse, scale, *count ? z_coef / (double)*count : 0.0 };
    return nn_record(c, xent_back, s) ? COE_OK : COE_E_NOMEM;
}
