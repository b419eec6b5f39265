/* two_layer.h — the two-layer scores, for routers that do something around them. */
#ifndef COE_ROUTERS_TWO_LAYER_H
#define COE_ROUTERS_TWO_LAYER_H

#include "moe/moe.h"

enum router_activation { ROUTER_TANH, ROUTER_SILU, ROUTER_GELU, ROUTER_RELU };
/* z [T, E] = fc2 · a(fc1 · x); fc1 [hidden, d], fc2 [E, hidden]; NULL on failure */
struct val *router_two_layer(struct nn *c, struct val *x, const struct weight *fc1, const struct weight *fc2,
                             enum router_activation a);

#endif
