/* z.c — router z-loss: L = mean_t logsumexp(z_t)², dz = 2 lse_t softmax(z_t) / T. Summed over layers and chain
 * iterations.
 *
 * Paper: ST-MoE, 2022 (card: routing.md 12a). Typical coefficient 1e-3. */
#include <math.h>

#include "moe/losses/balance.h"

static double logsumexp(const float *z, int32_t n)
{
    double max = -INFINITY, sum = 0;
    for (int32_t e = 0; e < n; e++) max = COE_MAX(max, (double)z[e]);
    for (int32_t e = 0; e < n; e++) sum += exp((double)z[e] - max);
    return max + log(sum);
}

static coe_status one(const struct loss_call *c, struct route_record *r, double *value)
{
    const int32_t n = r->route.n_experts;
    const int64_t tokens = r->z->rows;
    int64_t counted = 0;
    for (int64_t t = 0; t < tokens; t++) counted += token_counts(c, t);
    float *dz = c->scale != 0 ? loss_dz(c->c, r) : NULL;
    if (!counted) return COE_OK;
    if (c->scale != 0 && !dz) return COE_E_NOMEM;
    double sum = 0;
    for (int64_t t = 0; t < tokens; t++) {
        if (!token_counts(c, t)) continue;
        const float *z = r->z->data + t * n;
        const double lse = logsumexp(z, n), slope = c->coef * c->scale * 2 * lse / (double)counted;
        sum += lse * lse;
        for (int32_t e = 0; dz && e < n; e++) dz[t * n + e] += (float)(slope * exp((double)z[e] - lse));
    }
    *value += sum / (double)counted;
    return COE_OK;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) COE_TRY(one(c, c->records[i], value));
    return COE_OK;
}

static const struct loss_part z_loss = { .apply = apply };
COE_PART(loss, z, .summary = "mean squared logsumexp of the router logits", .paper = "ST-MoE, 2022",
         .card = "routing.md 12a", .unit = "token", .impl = &z_loss)
