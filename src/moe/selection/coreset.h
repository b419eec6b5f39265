/* coreset.h — what the two selections of Dynamic Expert Sharing have in common: blocks of tokens decoded together. */
#ifndef COE_CORESET_H
#define COE_CORESET_H

#include "moe/selection/pick.h"

/* Adds the votes of one token to votes [E]; ids: its best experts, best first. */
typedef void coreset_vote(const struct selection_call *c, int32_t token, const int32_t *ids, int32_t n, float *votes);
/* Cuts each sequence at positions that `block` divides. In every block: votes of all tokens with their best `k_vote`
 * experts, the `core` experts of most votes (those with none never) are the block's, each token takes its best k of
 * them. */
coe_status coreset_choose(const struct selection_call *c, int32_t block, int32_t k_vote, int32_t core,
                          coreset_vote *vote);

#endif
