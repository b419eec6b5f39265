/* per_layer.h — numbers of experts that differ from layer to layer, as the "coe" object gives them. */
#ifndef COE_MODEL_PER_LAYER_H
#define COE_MODEL_PER_LAYER_H

#include "model/spec.h"

/* Member `key` of o, if it is there, into n_experts of the MoE layers, or their top_k. */
coe_status spec_per_layer(struct spec *s, const json_t *o, const char *key, bool top_k, const char *where);

#endif
