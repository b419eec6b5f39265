/* linear.c — router logits z = x · W_rᵀ (+ b), in FP32.
 *
 * Paper: Outrageously Large Neural Networks, 2017 (card: routing.md, conventions). One matrix [E, d] per chain
 * iteration. */
#include "moe/moe.h"

static struct val *logits(const struct router_call *call) { return router_scores(call, call->x); }

static const struct router_part linear = { .logits = logits, .matrix = router_has_matrix };
COE_PART(router, linear, .summary = "one matrix from hidden state to expert logits",
         .paper = "Sparsely-Gated Mixture-of-Experts, 2017", .card = "routing.md conventions", .unit = "token",
         .impl = &linear)
