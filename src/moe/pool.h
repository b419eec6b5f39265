/* pool.h — experts that several layers share (pool.c), for the layer and for whoever reads specs. */
#ifndef COE_MOE_POOL_H
#define COE_MOE_POOL_H

#include "moe/moe.h"

/* Experts that a router sees at a training step, own ones included. */
int32_t pool_visible(const struct pool_spec *p, int32_t n_experts, uint64_t step);
/* *out: the plan's mask (NULL: none) and what the schedule hides at this step; the arena's. false without memory. */
bool pool_hide(struct nn *c, const struct moe_spec *m, const struct route_record *rec, const struct route_hook *plan,
               struct route_hook *out);
/* COE_E_INPUT for what cannot be shared. */
coe_status pool_check(const struct moe_spec *m, const char *where);

#endif
