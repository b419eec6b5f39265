/* frozen.c — a random matrix that training never changes, with its bias.
 *
 * Paper: Sparse MoE as the New Dropout (SMoE-Dropout), 2023 (card: routing.md 21). Use it with `router_bias: true` and
 * the selection growing_k; afterwards any k works. A checkpoint keeps the matrix where a linear router has it. */
#include "moe/moe.h"

static struct val *logits(const struct router_call *call) { return router_scores(call, call->x); }

static const struct router_part frozen = { .logits = logits, .matrix = router_has_matrix, .frozen = true };
COE_PART(router, frozen, .summary = "one random matrix that is never trained", .paper = "SMoE-Dropout, 2023",
         .card = "routing.md 21", .unit = "token", .impl = &frozen)
