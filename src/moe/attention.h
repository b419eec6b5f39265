/* attention.h — attention whose query and output projections are experts. */
#ifndef COE_MOE_ATTENTION_H
#define COE_MOE_ATTENTION_H

#include "moe/moe.h"

/* Rotary tables of the batch, or half = 0 */
struct moe_rope {
    const float *cos, *sin; /* [n, half] */
    int64_t half;
    bool interleaved;
};
/* Weights: router[0] [E,d], gate[e] [n_kv*hd, d] makes expert e's queries, down[e] [d, n_kv*hd] its output, out_bias
 * [d]. */
struct moe_attention_call {
    const struct moe_spec *spec;
    const struct moe_weights *w;
    struct attn_shape shape; /* n_kv_heads heads of one expert */
    struct moe_rope rope;
    const struct attn_batch *batch;
    struct kv_layer *kv;
    int32_t layer;
};
/* The layer's output [T, d] without residual; k, v [T, n_kv*hd], rotated already. Without a backward pass. */
struct val *moe_attention(struct moe_pass *p, const struct moe_attention_call *call, struct val *x, struct val *k,
                          struct val *v);

#endif
