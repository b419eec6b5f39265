/* similarity.c — a token's expert probabilities are those of the tokens it resembles.
 *
 * Paper: Improving Routing in Sparse Mixture of Experts with Graph of Tokens, 2025 (card: routing.md 15; the metric and
 * the temperature are the card's defaults, not verified). Over the token itself and those before it in its sequence:
 *     S_ij = softmax_j(⟨x_i, x_j⟩ / τ);  r'_i = Σ_j S_ij softmax(W x_j)
 * which is attention with one head whose values are probabilities. The logits are log r'. Rows of r' sum to one. */
#include <math.h>

#include "moe/routers/probability.h"

static const struct part_param params[] = {
    { "temperature", "divides the products of inputs; 0: the root of their width", NULL, 0, 1e6, 0, false },
    { 0 },
};

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    struct val *x = call->x, *r = router_softmax(c, router_scores(call, x), call->hook);
    const double tau = call->spec->router.kind_param[0];
    if (!r) return NULL;
    const struct attn_shape shape = { .n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = (int32_t)x->cols,
                                      .head_dim_v = (int32_t)r->cols,
                                      .scale = 1.0f / (tau > 0 ? (float)tau : sqrtf((float)x->cols)) };
    struct attn_batch alone;
    struct kv_layer *kv;
    const struct attn_batch *batch = router_batch(call, &alone);
    return batch && router_cache(call, &kv) ? router_log(c, nn_attention(c, x, x, r, &shape, batch, kv)) : NULL;
}

static const struct router_part similarity = {
    .logits = logits, .matrix = router_has_matrix, .context = true, .check = router_needs_softmax
};
COE_PART(router, similarity, .summary = "mixes the probabilities of the tokens that a token resembles",
         .paper = "Graph of Tokens, 2025", .card = "routing.md 15", .unit = "sequence", .params = params,
         .impl = &similarity)
