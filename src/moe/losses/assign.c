/* assign.c — load balancing with f_e = c_e / (T k), L = E Σ f_e P_e: perfect balance gives 1. Summed over layers and
 * chain iterations.
 *
 * Paper: DeepSeekMoE, 2024, expert-level loss (card: routing.md 2 and 12a). */
#include "moe/losses/balance.h"

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        const struct token_range all = { r, 0, r->route.n_tokens };
        COE_TRY(balance_set(c, &all, 1, (double)r->route.n_experts / r->spec->router.top_k, NULL, 1, value));
    }
    return COE_OK;
}

static const struct loss_part assign_loss = { .apply = apply };
COE_PART(loss, assign, .summary = "E sum f P with f = share of assignments; balance gives 1",
         .paper = "DeepSeekMoE, 2024", .card = "routing.md 12a", .unit = "block", .impl = &assign_loss)
