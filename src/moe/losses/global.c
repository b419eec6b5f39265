/* global.c — load balancing over the whole optimiser step: f_e is the share of assignments over all micro-batches of
 * the step so far (this one included), P_e the mean score of this micro-batch, L = E Σ f_e P_e; balance gives 1. Summed
 * over layers and chain iterations.
 *
 * Paper: Demons in the Detail, 2025 (card: routing.md 12a). Earlier micro-batches of a step see fewer counts than later
 * ones: f may be slightly stale, P never is. */
#include "moe/losses/balance.h"

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        const int32_t n = r->route.n_experts;
        double *f = arena_push_zero(c->c->arena, (size_t)n * sizeof *f);
        if (!f) return COE_E_NOMEM;
        const struct token_range all = { r, 0, r->route.n_tokens };
        double tokens = (double)balance_counts(c, &all, f) + (double)c->step_tokens;
        for (int32_t e = 0; e < n; e++) {
            if (c->step_counts) f[e] += (double)c->step_counts[(int64_t)i * c->step_stride + e];
            f[e] /= tokens > 0 ? tokens * r->spec->router.top_k : 1;
        }
        COE_TRY(balance_set(c, &all, 1, (double)n, f, 1, value));
    }
    return COE_OK;
}

static const struct loss_part global_loss = { .apply = apply };
COE_PART(loss, global, .summary = "balance over all micro-batches of a step; balance gives 1",
         .paper = "Demons in the Detail, 2025", .card = "routing.md 12a", .unit = "block", .impl = &global_loss)
