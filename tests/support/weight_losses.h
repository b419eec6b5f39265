/* weight_losses.h — losses of the weights themselves, on one layer of tests. */
#ifndef COE_TESTS_WEIGHT_LOSSES_H
#define COE_TESTS_WEIGHT_LOSSES_H

#include "support/block.h"
#include "support/losses.h"

/* E experts of width f over d, and the loss with these settings */
static inline struct block weight_loss_block(const char *kind, int32_t experts, int32_t f, int64_t d,
                                             const double *param, int32_t n_params)
{
    struct moe_spec s = routes_spec(experts, 1, "top_k");
    s.expert_ffn = f;
    s.loss[0] = (struct loss_spec){ kind, 1 };
    part_defaults(part_find("loss", kind), s.loss_param[0]);
    for (int32_t i = 0; i < n_params; i++) s.loss_param[0][i] = param[i];
    s.n_losses = 1;
    assert_ok(moe_spec_check(&s, "test"));
    return block_make(&s, d, BLOCK_GATED);
}

/* Value of the loss behind a pass over one token; its gradients, times scale, are added to the weights'. */
static inline double weight_loss(struct block *b, double scale, uint64_t step)
{
    struct nn *c = routes_training(step);
    struct block_run run = { 0 };
    block_forward(b, c, NULL, nn_wrap(c, random_floats(1, b->d, 1), 1, b->d), &run);
    const struct loss_call call = { .c = c, .records = run.records, .n_records = run.n_records, .scale = scale };
    double total;
    assert_ok(moe_losses(&call, &total, NULL));
    return total;
}

#endif
