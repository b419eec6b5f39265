/* gru.c — a router with memory: one gated recurrent unit, shared by all layers, walks over the routing decisions of a
 * token.
 *
 * Paper: Layerwise Recurrent Router for Mixture-of-Experts (RMoE), 2024 (card: routing.md 6). Each layer has its own
 * projections W1 [p, d] and W2 [E, p]:
 *     u = W1 x;  h = GRU(u, h before);  z = W2 h        h = 0 before the first decision
 * The three gates lie in one matrix, [r | q | n]. The cell starts from orthogonal rows. */
#include "moe/routers/recurrent.h"

static struct val *cell(struct nn *c, struct val *u, struct val *h, const struct weight *const *w)
{
    return nn_gru(c, nn_linear(c, u, w[INPUT], w[INPUT_BIAS]), nn_linear(c, h, w[STATE], w[STATE_BIAS]), h);
}

static struct val *logits(const struct router_call *call) { return recurrent_logits(call, cell); }

static const struct router_part gru = { .logits = logits, .weights = recurrent_weights, .carries = recurrent_carries };
COE_PART(router, gru, .summary = "a gated recurrent unit over a token's routing decisions", .paper = "RMoE, 2024",
         .card = "routing.md 6", .unit = "token", .params = recurrent_params, .impl = &gru)
