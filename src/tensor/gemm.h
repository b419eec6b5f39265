/* gemm.h — matrix products over threads. Each function splits the work over OpenMP threads by output tiles; the bits
 * never depend on how (kernels.h). All matrices row-major. */
#ifndef COE_GEMM_H
#define COE_GEMM_H

#include "tensor/codes.h"
#include "tensor/kernels.h"

/* y [n, w.rows] = x [n, w.cols] · wᵀ (+ bias [w.rows] after the product, or NULL). ldx, ldy ≥ their widths. */
void gemm_xwt(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t n, const struct weight *w,
              const struct weight *bias);
/* The same from the codes of x [codes.n]: for a weight of a block type, or of BF16 from rounded rows. */
void gemm_codes_xwt(float *y, int64_t ldy, const struct codes *x, const struct weight *w, const struct weight *bias);
/* dx [n, w.cols] (+)= dy [n, w.rows] · w, w of any type with values. The low-rank part of an adapter is taken along,
 * here and in the gradients below. */
void gemm_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, int64_t n, const struct weight *w,
             bool accumulate);
/* w.grad [rows, cols] += dyᵀ · x; bias (or NULL).grad += column sums of dy, chains over rows. Nothing where a gradient
 * is NULL: frozen weights. */
void gemm_dw(const struct weight *w, const struct weight *bias, const float *dy, int64_t lddy, const float *x,
             int64_t ldx, int64_t n);

/* Grouped: group g owns rows off[g] … off[g+1]-1 of the grouped arrays and its own weight w[g] (all of one shape;
 * w[g] may be NULL only for an empty group). Work is split over (group, row tile, column tile) and balanced by
 * cost. */
struct groups {
    int32_t n;          /* groups */
    const int32_t *off; /* [n+1] */
};
/* y [off[n], rows] = x·wᵀ; row r of the groups reads row (xrow ? xrow[r] : r) of x. Types may differ from group to
 * group: `codes` are those of x by kind (codes.h), each NULL (or codes itself) when no weight needs them; given the
 * rounded rows, weights of BF16 are multiplied with them. */
void gemm_grouped_xwt(float *y, int64_t ldy, const float *x, int64_t ldx, const struct codes *const codes[CODES_KINDS],
                      const int32_t *xrow, struct groups g, const struct weight *const *w);
/* dx [off[n], cols] (+)= dy[(dyrow ? dyrow[r] : r)] · w[g] */
void gemm_grouped_dx(float *dx, int64_t lddx, const float *dy, int64_t lddy, const int32_t *dyrow, struct groups g,
                     const struct weight *const *w, bool accumulate);
/* w[g].grad += Σ_r dy[dyrow r]ᵀ x[xrow r], chains over the group's rows in ascending order; empty groups untouched. */
void gemm_grouped_dw(const struct weight *const *w, const float *dy, int64_t lddy, const int32_t *dyrow, const float *x,
                     int64_t ldx, const int32_t *xrow, struct groups g);

/* What the products of this process took while `on` was set, for benchmarks; 2 operations for each multiply-add.
 * Products called from several threads at once are not told apart. */
struct gemm_clock {
    bool on;
    double seconds, operations;
};
extern struct gemm_clock gemm_clock;

#endif
