/* gemm_experts.h — products of an expert layer at inference with what follows them, so that nothing is written that
 * only the next step would read. The bits are those of the separate steps. */
#ifndef COE_GEMM_EXPERTS_H
#define COE_GEMM_EXPERTS_H

#include "tensor/gemm.h"

/* Rows of x in whatever form the weights ask for: F32, codes of each kind (codes.h) or both; row r of the groups reads
 * row (row ? row[r] : r). */
struct gemm_rows {
    const float *x;
    int64_t ldx;
    const struct codes *const *codes; /* [CODES_KINDS], each may be NULL; or NULL */
    const int32_t *row;
};

/* y [m, n] = rows first … first+m-1 of the groups times rows c0 … c0+n-1 of w: one thread's part of any product. With
 * panels c0 is a multiple of PANEL_ROWS. next: see q_product in kernels.h. */
void gemm_part(float *y, int64_t ldy, const struct gemm_rows *x, int64_t first, int64_t m, const struct weight *w,
               int64_t c0, int64_t n, const void *next);
/* Where row `row` of w lies. */
const char *gemm_row(const struct weight *w, int64_t row);

/* u [off[n], gate.rows], ldu apart = act(x·gateᵀ, x·upᵀ); up may be NULL. With `made` (laid out, its rows those of u)
 * u is not written but quantised as it is made. Low-rank parts of weights are not taken along. */
void gemm_gate_up(float *u, int64_t ldu, const struct codes *made, const struct gemm_rows *x, struct groups g,
                  const struct weight *const *gate, const struct weight *const *up, enum activation act,
                  float act_limit);

/* y [T, down.rows], ldy apart: y[token[r]] = fma(weight[r], u row r · downᵀ + bias, y[token[r]]) for the rows of the
 * groups in ascending order, each element one chain; what y holds before is where the chains begin. bias [g.n] of F32,
 * or NULL. Low-rank parts are not taken along. */
void gemm_down(float *y, int64_t ldy, const int32_t *token, const float *weight, const struct gemm_rows *u,
               struct groups g, const struct weight *const *down, const struct weight *const *bias);

#endif
