/* gshard.c — load balancing in GShard's form: f_e is the share of tokens whose FIRST choice is e, L = E Σ f_e P_e;
 * balance gives 1. Summed over layers and chain iterations.
 *
 * Paper: GShard, 2020 (cards: routing.md 12a, systems.md part D). First choice = highest weight, ties to the lower
 * id. */
#include "moe/losses/balance.h"

/* share of the counting tokens whose best expert is e */
static void first_choices(const struct loss_call *c, const struct route_record *r, double *f)
{
    int64_t tokens = 0;
    for (int32_t t = 0; t < r->route.n_tokens; t++) {
        if (!token_counts(c, t)) continue;
        tokens++;
        if (r->route.tok_off[t + 1] > r->route.tok_off[t]) f[r->route.expert[r->route.tok_off[t]]] += 1;
    }
    for (int32_t e = 0; tokens && e < r->route.n_experts; e++) f[e] /= (double)tokens;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        double *f = arena_push_zero(c->c->arena, (size_t)r->route.n_experts * sizeof *f);
        if (!f) return COE_E_NOMEM;
        first_choices(c, r, f);
        const struct token_range all = { r, 0, r->route.n_tokens };
        COE_TRY(balance_set(c, &all, 1, (double)r->route.n_experts, f, 1, value));
    }
    return COE_OK;
}

static const struct loss_part gshard_loss = { .apply = apply };
COE_PART(loss, gshard, .summary = "E sum f P with f from first choices only; balance gives 1", .paper = "GShard, 2020",
         .card = "routing.md 12a", .unit = "block", .impl = &gshard_loss)
