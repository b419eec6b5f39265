/* uncertainty.c — several passes with dropout weigh an expert by how sure the router is of it.
 *
 * Paper: Efficient Deweather Mixture-of-Experts with Uncertainty-aware Feature-wise Linear Modulation (MoFME), 2023
 * (card: composition.md; there its published code drops nothing out, so that all passes are equal, and this is the
 * form the card says to use). In training, with M masks of the input:
 *     p_m = softmax(W drop_m(x));  g = mean_m p_m / (1 + sd_m p_m)
 * per expert, sd with M in the divisor. The logits are log g; at inference nothing is dropped and they are W x. */
#include <math.h>

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
    int32_t n;
};

static void mean_and_sd(const struct sure_saved *s, int64_t i, float *mean, float *sd)
{
    float sum = 0, square = 0;
    for (int32_t m = 0; m < s->n; m++) sum += s->p[m]->data[i];
    *mean = sum / (float)s->n;
    for (int32_t m = 0; m < s->n; m++) {
        const float d = s->p[m]->data[i] - *mean;
        square = fmaf(d, d, square);
    }
    *sd = sqrtf(square / (float)s->n);
}

/* ∂g/∂p_m = (1 - g (p_m - mean) / sd) / (M (1 + sd)); equal passes have no direction in which sd grows */
static void sure_back(struct nn *c, void *saved)
{
    const struct sure_saved *s = saved;
    if (!s->g->grad) return;
    for (int32_t m = 0; m < s->n; m++) {
        float *dp = nn_grad(c, s->p[m]);
        for (int64_t i = 0; dp && i < s->g->rows * s->g->cols; i++) {
            float mean, sd;
            mean_and_sd(s, i, &mean, &sd);
            const float away = sd > 0 ? (s->p[m]->data[i] - mean) / sd : 0;
            dp[i] += s->g->grad[i] * (1 - s->g->data[i] * away) / ((float)s->n * (1 + sd));
        }
    }
}

static struct val *sureness(struct nn *c, struct sure_saved *s)
{
    s->g = nn_val(c, s->p[0]->rows, s->p[0]->cols);
    for (int64_t i = 0; s->g && i < s->g->rows * s->g->cols; i++) {
        float mean, sd;
        mean_and_sd(s, i, &mean, &sd);
        s->g->data[i] = mean / (1 + sd);
    }
    return s->g && nn_record(c, sure_back, s) ? s->g : NULL;
}

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    const double *param = call->spec->router.kind_param;
    if (!c->tape || !(param[DROPOUT] > 0)) return router_scores(call, call->x);
    struct sure_saved *s = arena_push_zero(c->arena, sizeof *s);
    if (!s) return NULL;
    const float rate = c->dropout;
    c->dropout = (float)param[DROPOUT];
    for (s->n = 0; s->n < (int32_t)param[PASSES]; s->n++) {
        struct val *x = nn_dropout(c, call->x);
        if (!x || !(s->p[s->n] = router_softmax(c, router_scores(call, x), call->hook))) break;
    }
    c->dropout = rate;
    return s->n == (int32_t)param[PASSES] ? router_log(c, sureness(c, s)) : NULL;
}

static const struct router_part uncertainty = { .logits = logits,
                                                .matrix = router_has_matrix,
                                                .check = router_needs_softmax };
COE_PART(router, uncertainty, .summary = "passes with dropout weigh experts by how sure the router is",
         .paper = "MoFME, 2023", .card = "composition.md MoFME", .unit = "token", .params = params,
         .impl = &uncertainty)
