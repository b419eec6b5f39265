/* linear.c — router logits z = x · W_rᵀ (+ b), in FP32.
 *
 * Paper: Outrageously Large Neural Networks, 2017 (card: routing.md, conventions). One matrix [E, d] per chain
 * iteration. */
#include "moe/moe.h"

static struct val *logits(struct nn *c, const struct moe_spec *spec, const struct moe_weights *w, int32_t iteration,
                          struct val *x)
{
    (void)spec;
    return nn_linear(c, x, w->router[iteration], w->router_bias[iteration]);
}

static const struct router_part linear = { .logits = logits };
COE_PART(router, linear, .summary = "one matrix from hidden state to expert logits",
         .paper = "Sparsely-Gated Mixture-of-Experts, 2017", .card = "routing.md conventions", .unit = "token",
         .impl = &linear)
