/* low_rank.h — what an adapter adds to a weight: W + scale · B·A, never multiplied out, with W as it is stored.
 *
 * Paper: LoRA: Low-Rank Adaptation of Large Language Models, 2021. A [r, cols], B [rows, r], both F32.
 *     y_t += scale · B (A x_t)     per row of x: r dots, then one dot and one fma for each output, whatever the batch
 * so a sequence gets the same bits alone and in a batch. Products with a weight that has one (nn_linear, nn_grouped,
 * gemm_dx, gemm_dw and the grouped ones) take it along by themselves. */
#ifndef COE_LOW_RANK_H
#define COE_LOW_RANK_H

#include "tensor/gemm.h"

#define LOW_RANK_MAX 1024 /* largest r */

struct low_rank {
    struct weight *a, *b; /* several weights may share one A */
    float scale;
};

/* Arguments as in gemm.h; weights without a low-rank part are left alone. */
void low_rank_add(float *y, int64_t ldy, const float *x, int64_t ldx, const int32_t *xrow, struct groups g,
                  const struct weight *const *w);
/* x [n] += columns col … of row `row` of scale · B·A, for merging. */
void low_rank_values(float *x, const struct low_rank *l, int64_t row, int64_t col, int64_t n);
/* dx += scale · (dy B) A */
void low_rank_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, const int32_t *dyrow, struct groups g,
                 const struct weight *const *w);
/* B.grad += scale · dyᵀ (x Aᵀ), A.grad += scale · (dy B)ᵀ x, chains over a group's rows in ascending order. When memory
 * is out the error is set and nothing is added. */
void low_rank_dw(const struct weight *const *w, const float *dy, int64_t lddy, const int32_t *dyrow, const float *x,
                 int64_t ldx, const int32_t *xrow, struct groups g);

#endif
