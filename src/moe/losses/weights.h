/* weights.h — what losses of the weights themselves share; they see no token, and add to the weights' own gradients. */
#ifndef COE_LOSSES_WEIGHTS_H
#define COE_LOSSES_WEIGHTS_H

#include "moe/losses/balance.h"

/* The matrix [E, d] whose rows stand for the experts; COE_E_USAGE where a router has none. */
coe_status loss_router_rows(const struct route_record *r, const char *loss, const struct weight **out);
/* COE_E_USAGE unless every expert that has weights has a gate matrix over `cols` inputs. */
coe_status loss_gate_matrices(const struct route_record *r, const char *loss, int64_t cols);
/* Whether an earlier record of the call has the same router (a shared gate), or the same experts (a chain). */
bool loss_router_seen(const struct loss_call *c, int32_t record);
bool loss_experts_seen(const struct loss_call *c, int32_t record);

#endif
