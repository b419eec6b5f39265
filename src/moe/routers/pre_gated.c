/* pre_gated.c — routes by the input of the decision before, so that the experts are known one layer ahead.
 *
 * Paper: Pre-gated MoE, 2023 (card: routing.md 24). The router of layer l lies with layer l, whose experts it chooses,
 * and reads what entered the experts of the layer before (with a chain: of the pass before). The first decision reads
 * its own input. A trained model becomes pre-gated without a change of its weights (coe convert --router pre_gated) and
 * is then trained on; equal inputs give equal routes. */
#include "moe/moe.h"

static struct val *logits(const struct router_call *call)
{
    struct moe_pass *p = call->pass;
    struct val *z = router_scores(call, p->carried ? p->carried : call->x);
    return moe_carry(p, call->x) ? z : NULL;
}

static int64_t carries(const struct moe_spec *m, int64_t d_model)
{
    (void)m;
    return d_model;
}

static const struct router_part pre_gated = { .logits = logits, .matrix = router_has_matrix, .carries = carries };
COE_PART(router, pre_gated, .summary = "reads the input of the layer before: experts are known a layer ahead",
         .paper = "Pre-gated MoE, 2023", .card = "routing.md 24", .unit = "token", .impl = &pre_gated)
