/* modes.h — every router mode of the Chain-of-Experts card, for the gradient tests of layers and of whole models. */
#ifndef COE_TESTS_MODES_H
#define COE_TESTS_MODES_H

#include <stdio.h>

#include "moe/moe.h"

enum { ROUTER_MODES = 16, SHARED_MODES = 3 };
static const char *const shared_name[SHARED_MODES] = { "no shared expert", "a shared expert", "a gated shared expert" };

/* Bits of `router`: sigmoid, renormalise, selection bias, groups. The number of passes, the shared gate, learned chain
 * weights and the losses go round with it, so that all of them meet all residual modes. 4 experts in 2 groups, top 2.
 */
static inline struct moe_spec mode_spec(int router, enum residual_mode residual, int shared)
{
    static const char *const losses[] = { "sequence", "hf", "switch", "z", "gshard", "assign", "global" };
    struct moe_spec s = moe_spec_default();
    s.n_experts = 4;
    s.expert_ffn = 3;
    s.router.score = router & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
    s.router.renormalize = router & 2;
    s.router.renorm_eps = router & 1 ? 1e-20f : 0;
    s.router.selection_bias = router & 4;
    s.router.bias = (router & 5) == 5;
    s.router.scale = router & 1 ? 1.25f : 1;
    if (router & 8)
        s.router.n_group = 2, s.router.topk_group = 1, s.router.group_score = router & 4 ? GROUP_SUM2 : GROUP_MAX;
    /* gated experts square small inputs: a third pass without the inner residual would compare rounding errors */
    const bool fades = residual == RESIDUAL_OUTER || residual == RESIDUAL_NEITHER;
    s.chain.n_iterations = 1 + (router + shared) % (fades ? 2 : 3);
    s.chain.residual = residual;
    s.chain.shared_gate = (router + (int)residual) % 2;
    s.chain.learned_weight = residual == RESIDUAL_PRENORM && router % 3 == 1;
    s.shared_ffn = shared ? 5 : 0;
    s.shared_gate = shared == 2;
    s.loss[s.n_losses++] = (struct loss_spec){ losses[(router + (int)residual) % 7], 0.3 };
    s.loss[s.n_losses++] = (struct loss_spec){ losses[(router + (int)residual + 3) % 7], 0.2 };
    return s;
}

static inline const char *mode_name(const struct moe_spec *s)
{
    static char text[200];
    snprintf(text, sizeof text, "%s%s%s%s, %d passes%s%s, losses %s and %s", score_name[s->router.score],
             s->router.renormalize ? ", renormalised" : "", s->router.selection_bias ? ", selection bias" : "",
             s->router.n_group > 1 ? ", groups" : "", s->chain.n_iterations, s->chain.shared_gate ? " of one gate" : "",
             s->chain.learned_weight ? ", learned weight" : "", s->loss[0].kind, s->loss[1].kind);
    return text;
}

#endif
