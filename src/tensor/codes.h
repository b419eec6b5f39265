/* codes.h — products of quantised weights: the other factor, quantised too.
 *
 * Definition (DESIGN §3), the same for one row or many and on every level. Each row of x is cut into blocks of
 * dtype_info[t].x_block elements (32 or 256, as the weight's type asks):
 *     d = max|x| / 127,  q_i = x_i / d to the nearest whole number, even in the middle, -127 … 127;  d = 0: q_i = 0
 * A weight row is its blocks of d, dmin, scale, min and code (quant/block.h); a block longer than x_block counts as
 * several with one d. In whole numbers
 *     isum = Σ_s scale_s Σ_{i in s} code_i q_i        msum = Σ_s min_s Σ_{i in s} q_i
 * and then, blocks in ascending order, y = fma(d_w d_x, isum, y), and where the type has mins y = fma(-(dmin_w d_x),
 * msum, y). */
#ifndef COE_CODES_H
#define COE_CODES_H

#include "tensor/tensor.h"

/* n quantised rows of k values; k a multiple of 16. */
struct codes {
    int64_t n, k;
    int32_t block;      /* 32 or 256 */
    const int8_t *q;    /* [n, k] */
    const float *d;     /* [n, k / block] */
    const int16_t *sum; /* [n, k / 16] sums of sixteen q */
};
/* Bytes that hold such codes. */
size_t codes_bytes(int64_t n, int64_t k, int32_t block);
/* Quantises x, rows ldx apart, into `memory` [codes_bytes], 64-byte aligned, which *c borrows. Threaded. */
void codes_make(struct codes *c, void *memory, const float *x, int64_t ldx, int64_t n, int64_t k, int32_t block);

/* y[i*ldy + j] = the product above of row (xrow ? xrow[i] : first + i) of x and row j of w; i < m, j < n; w is n rows
 * of type t as stored. */
void codes_product(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                   const void *w, enum dtype t, int64_t n);

#endif
