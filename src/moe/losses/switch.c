/* switch.c — load balancing as Switch Transformers normalise it: f_e = c_e / T, L = E Σ f_e P_e, so perfect balance
 * gives top_k. Summed over layers and chain iterations; P carries the gradient, f is a constant.
 *
 * Paper: Switch Transformers, 2021 (card: routing.md 12a). */
#include "moe/losses/balance.h"

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        const struct token_range all = { r, 0, r->route.n_tokens };
        COE_TRY(balance_set(c, &all, 1, (double)r->route.n_experts, NULL, 1, value));
    }
    return COE_OK;
}

static const struct loss_part switch_loss = { .apply = apply };
COE_PART(loss, switch, .summary = "E sum f P with f = assignments / tokens; balance gives top_k",
         .paper = "Switch Transformers, 2021", .card = "routing.md 12a", .unit = "block", .impl = &switch_loss)
