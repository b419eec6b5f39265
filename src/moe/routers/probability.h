/* probability.h — between logits and probabilities, for routers that mix probabilities. The layer's softmax takes the
 * logarithm of a mixture back to the mixture. */
#ifndef COE_ROUTERS_PROBABILITY_H
#define COE_ROUTERS_PROBABILITY_H

#include "moe/moe.h"

/* p [T, E] = softmax of each row of z, masked experts 0, so that masking one and removing it are the same; NULL on
 * failure (z NULL) */
struct val *router_softmax(struct nn *c, struct val *z, const struct route_hook *hook);
/* log p, of at least the smallest normal number */
struct val *router_log(struct nn *c, struct val *p);
/* For `check`: COE_E_INPUT when the score is not softmax. */
coe_status router_needs_softmax(const struct moe_spec *m, const char *where);

#endif
