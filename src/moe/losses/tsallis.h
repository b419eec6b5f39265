/* tsallis.h — mean Tsallis entropy of routing, which Shannon's is a case of. */
#ifndef COE_TSALLIS_H
#define COE_TSALLIS_H

#include "moe/losses/balance.h"

/* Value and gradient of the mean over tokens of S_q(p) = (1 - Σ p^q) / (q - 1) (q = 1: -Σ p log p), over its maximum if
 * `normalized`, summed over the records. COE_E_USAGE for sigmoid scores. */
coe_status tsallis_apply(const struct loss_call *c, double q, bool normalized, double *value);

#endif
