/* uncertainty.c — several passes with dropout weigh an expert by how sure the router is of it.
 *
 * Paper: Efficient Deweather Mixture-of-Experts with Uncertainty-aware Feature-wise Linear Modulation (MoFME), 2023
 * (card: composition.md; there its published code drops nothing out, so that all passes are equal, and this is the
 * form the card says to use). In training, with M masks of the input:
 *     p_m = softmax(W drop_m(x));  g = mean_m p_m / (1 + sd_m p_m)
 * per expert, sd with M in the divisor. The logits are log g; at inference nothing is dropped and they are W x. */
#include <math.h>

#include "moe/routers/masked.h"
#include "moe/routers/probability.h"

enum { PASSES, DROPOUT };
#define MOST_PASSES 32
static const struct part_param params[] = {
    { "passes", "with masks of their own", NULL, 2, MOST_PASSES, 5, true },
    { "dropout", "share of the input that a mask takes", NULL, 0, 0.9, 0.1, false },
    { 0 },
};

struct sure_saved {
    struct val *p[MOST_PASSES], *g;
    float *mean, *sd; /* [T, E] */
    int32_t n;
};

/* ∂g/∂p_m = (1 - g (p_m - mean) / sd) / (M (1 + sd)); equal passes have no direction in which sd grows */
static void sure_back(struct nn *c, void *saved)
{
    const struct sure_saved *s = saved;
    const int64_t n = s->g->rows * s->g->cols;
    for (int32_t m = 0; s->g->grad && m < s->n; m++) {
        float *dp = nn_grad(c, s->p[m]);
        if (!dp) return;
#pragma omp parallel for schedule(static) if (n > NN_ALONE_BELOW / 8)
        for (int64_t i = 0; i < n; i++) {
            const float away = s->sd[i] > 0 ? (s->p[m]->data[i] - s->mean[i]) / s->sd[i] : 0;
            dp[i] += s->g->grad[i] * (1 - s->g->data[i] * away) / ((float)s->n * (1 + s->sd[i]));
        }
    }
}

static void mean_and_sd(const struct sure_saved *s, int64_t i)
{
    float sum = 0, square = 0;
    for (int32_t m = 0; m < s->n; m++) sum += s->p[m]->data[i];
    s->mean[i] = sum / (float)s->n;
    for (int32_t m = 0; m < s->n; m++) {
        const float d = s->p[m]->data[i] - s->mean[i];
        square = fmaf(d, d, square);
    }
    s->sd[i] = sqrtf(square / (float)s->n);
}

static struct val *sureness(struct nn *c, struct sure_saved *s)
{
    const int64_t n = s->p[0]->rows * s->p[0]->cols;
    s->g = nn_val(c, s->p[0]->rows, s->p[0]->cols);
    s->mean = arena_push(c->arena, (size_t)n * sizeof(float));
    s->sd = arena_push(c->arena, (size_t)n * sizeof(float));
    if (!s->g || !s->mean || !s->sd) return NULL;
#pragma omp parallel for schedule(static) if (n > NN_ALONE_BELOW / 8)
    for (int64_t i = 0; i < n; i++) {
        mean_and_sd(s, i);
        s->g->data[i] = s->mean[i] / (1 + s->sd[i]);
    }
    return nn_record(c, sure_back, s) ? s->g : NULL;
}

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    const double *param = call->spec->router.kind_param;
    if (!c->tape || !(param[DROPOUT] > 0)) return router_scores(call, call->x);
    struct sure_saved *s = arena_push_zero(c->arena, sizeof *s);
    if (!s) return NULL;
    for (; s->n < (int32_t)param[PASSES]; s->n++) {
        struct val *z = masked_linear(c, call->x, call->w->router[call->iteration],
                                      call->w->router_bias[call->iteration], param[DROPOUT]);
        if (!(s->p[s->n] = router_softmax(c, z, call->hook))) return NULL;
    }
    return router_log(c, sureness(c, s));
}

static const struct router_part uncertainty = { .logits = logits,
                                                .matrix = router_has_matrix,
                                                .check = router_needs_softmax };
COE_PART(router, uncertainty, .summary = "passes with dropout weigh experts by how sure the router is",
         .paper = "MoFME, 2023", .card = "composition.md MoFME", .unit = "token", .params = params,
         .impl = &uncertainty)
