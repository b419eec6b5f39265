/* linear.c — router logits z = (x · W_rᵀ (+ b)) / temperature, in FP32.
 *
 * Paper: Outrageously Large Neural Networks, 2017 (card: routing.md, conventions; the temperature: 19, Hecto has 1.5).
 * One matrix [E, d] per chain iteration. */
#include "moe/moe.h"

static const struct part_param params[] = {
    { "temperature", "divides the logits", NULL, 1e-3, 1e3, 1, false },
    { 0 },
};

static struct val *logits(const struct router_call *call)
{
    struct val *z = router_scores(call, call->x);
    const double temperature = call->spec->router.kind_param[0];
    return temperature == 1 ? z : nn_scale(call->pass->c, z, (float)(1 / temperature));
}

static const struct router_part linear = { .logits = logits, .matrix = router_has_matrix };
COE_PART(router, linear, .summary = "one matrix from hidden state to expert logits",
         .paper = "Sparsely-Gated Mixture-of-Experts, 2017", .card = "routing.md conventions", .unit = "token",
         .params = params, .impl = &linear)
