/* hf.c — load balancing as the transformers library computes it: the tokens of all layers are one pool, f_e = c_e /
 * pairs, L = E Σ f_e P_e, so balance is asked of the average over layers only and perfect balance gives top_k.
 *
 * Paper: Switch Transformers, 2021, in the form of the Mixtral, OLMoE and Qwen-MoE releases (card: routing.md 12a).
 * Chain iterations are records like layers. Layers of different E cannot be pooled and are refused. */
#include "moe/losses/balance.h"

static coe_status apply(const struct loss_call *c, double *value)
{
    struct token_range *set = arena_push(c->c->arena, (size_t)c->n_records * sizeof *set);
    if (!set) return COE_E_NOMEM;
    const int32_t experts = c->records[0]->route.n_experts;
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        if (r->route.n_experts != experts)
            return coe_fail(COE_E_USAGE, "loss hf: layer %d has %d experts, layer %d has %d; they cannot be pooled",
                            r->layer, r->route.n_experts, c->records[0]->layer, experts);
        set[i] = (struct token_range){ r, 0, r->route.n_tokens };
    }
    return balance_set(c, set, c->n_records, (double)experts, NULL, 1, value);
}

static const struct loss_part hf_loss = { .apply = apply };
COE_PART(loss, hf, .summary = "E sum f P with all layers pooled; balance gives top_k",
         .paper = "Switch Transformers, 2021 (transformers form)", .card = "routing.md 12a", .unit = "block",
         .impl = &hf_loss)
