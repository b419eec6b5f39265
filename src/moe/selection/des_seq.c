/* des_seq.c — the tokens of a block share the union of their very best experts.
 *
 * Paper: Dynamic Expert Sharing, 2026, DES-Seq (card: routing.md 10). The block's experts are the union over its tokens
 * of their best `core_k` (fewer than top_k); each token takes its best top_k of the union. core_k = top_k is plain
 * top-k. A block is the tokens of a sequence that run together, cut at positions that `block` divides: token by token
 * every block is one token, which then uses core_k experts. */
#include "moe/selection/coreset.h"

enum { CORE_K, BLOCK };

static void vote(const struct selection_call *c, int32_t token, const int32_t *ids, int32_t n, float *votes)
{
    (void)c, (void)token;
    for (int32_t i = 0; i < n; i++) votes[ids[i]] = 1;
}

static coe_status choose(const struct selection_call *c)
{
    const double *param = c->spec->router.param;
    return coreset_choose(c, (int32_t)param[BLOCK], COE_MIN((int32_t)param[CORE_K], c->k), c->out->n_experts, vote);
}

static const struct part_param params[] = {
    { "core_k", "experts that each token brings into the block", NULL, 1, MAX_TOP_K, 1, true },
    { "block", "tokens decoded together", NULL, 1, 1 << 20, 32, true },
    { 0 },
};
static const struct selection_part des_seq = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, des_seq, .summary = "the tokens of a block share the union of their very best experts",
         .paper = "Dynamic Expert Sharing, 2026", .card = "routing.md 10", .unit = "block", .impl = &des_seq,
         .params = params)
