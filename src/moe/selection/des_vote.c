/* des_vote.c — the tokens of a block vote for the few experts that all of them share.
 *
 * Paper: Dynamic Expert Sharing, 2026, DES-Vote (card: routing.md 10). Votes of expert e: the sum of its scores over
 * the tokens that have it among their best k; the `core` experts of most votes are the block's, and each token takes
 * its best k of those. core = E is plain top-k, and so is a block of one token with core >= k.
 * A block is the tokens of a sequence that run together, cut at positions that `block` divides: token by token every
 * block is one token. core below k lowers k. */
#include "moe/selection/coreset.h"

enum { CORE, BLOCK };

static void vote(const struct selection_call *c, int32_t token, const int32_t *ids, int32_t n, float *votes)
{
    for (int32_t i = 0; i < n; i++) votes[ids[i]] += c->p[(int64_t)token * c->out->n_experts + ids[i]];
}

static coe_status choose(const struct selection_call *c)
{
    const double *param = c->spec->router.param;
    return coreset_choose(c, (int32_t)param[BLOCK], c->k, COE_MIN((int32_t)param[CORE], c->out->n_experts), vote);
}

static const struct part_param params[] = {
    { "core", "experts that a block shares", NULL, 1, 65536, 16, true },
    { "block", "tokens decoded together", NULL, 1, 1 << 20, 32, true },
    { 0 },
};
static const struct selection_part des_vote = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, des_vote, .summary = "the tokens of a block vote for the experts they share",
         .paper = "Dynamic Expert Sharing, 2026", .card = "routing.md 10", .unit = "block", .impl = &des_vote,
         .params = params)
