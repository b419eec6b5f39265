/* ffn.h — the feed-forward expert kind, for executors. */
#ifndef COE_EXPERTS_FFN_H
#define COE_EXPERTS_FFN_H

#include "moe/moe.h"

/* Fills call->y (and call->rows if asked for); records the backward pass. */
coe_status experts_ffn(struct nn *c, struct expert_call *call);

#endif
