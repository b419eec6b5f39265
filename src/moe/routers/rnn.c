/* rnn.c — the recurrent router with a plain cell: h = tanh(W_i u + b_i + W_h h + b_h).
 *
 * Paper: Layerwise Recurrent Router for Mixture-of-Experts (RMoE), 2024, its `rnn` variant (card: routing.md 6). With
 * W_h = 0 every layer has an independent router of two layers, z = W2 tanh(W_i W1 x + b). */
#include "moe/routers/recurrent.h"

static struct val *cell(struct nn *c, struct val *u, struct val *h, const struct weight *const *w)
{
    struct val *a = nn_linear(c, u, w[INPUT], w[INPUT_BIAS]), *b = nn_linear(c, h, w[STATE], w[STATE_BIAS]);
    struct val *sum = nn_add(c, a, b);
    return sum ? nn_softcap(c, sum, 1) : NULL;
}

static struct val *logits(const struct router_call *call) { return recurrent_logits(call, cell); }

static const struct router_part rnn = { .logits = logits, .weights = recurrent_weights, .carries = recurrent_carries };
COE_PART(router, rnn, .summary = "a plain recurrent cell over a token's routing decisions", .paper = "RMoE, 2024",
         .card = "routing.md 6", .unit = "token", .params = recurrent_params, .impl = &rnn)
