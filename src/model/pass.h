/* pass.h — one forward pass as its pieces share it: forward.c walks the layers, mixers.c mixes tokens. */
#ifndef COE_MODEL_PASS_H
#define COE_MODEL_PASS_H

#include "model/model.h"

struct pass {
    const struct coe_model *m;
    struct nn *c;
    struct forward *f;
    struct moe_pass moe;
    const int64_t *position; /* [n] */
    const float *cos, *sin;  /* of the rope in use */
    const float *rope_of;    /* inv_freq they were made from */
    struct val *stream, *middle; /* [n, d] without a tape: h behind a layer, and behind its mixer */
};

/* Tables of cos and sin of layer l's rope for this batch. */
bool pass_rope(struct pass *p, int32_t l);
/* y = x · wᵀ + bias of projection number `projection` of layer l, and what experts beside it add (projections.c). */
struct val *pass_linear(struct pass *p, int32_t l, struct val *x, int32_t projection, const struct weight *bias);
/* Attention with chosen heads (heads.c); kv [n_seq] caches of the layer or NULL. */
struct val *pass_heads(struct pass *p, int32_t l, struct val *x, struct kv_layer *kv);
/* What layer l's mixer adds to the stream, of x [n, d] (normalised already); NULL on failure. */
struct val *pass_mix(struct pass *p, int32_t l, struct val *x);

#endif
