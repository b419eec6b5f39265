/* codes.h — products whose other factor is not taken as it is: quantised for quantised weights, or rounded to BF16.
 *
 * Definition (DESIGN §3), the same for one row or many and on every level. Each row of x is cut into blocks of
 * dtype_info[t].x_block elements (32 or 256, as the weight's type asks):
 *     d = max|x| / 127,  q_i = x_i / d to the nearest whole number, even in the middle, -127 … 127;  d = 0: q_i = 0
 * A weight row is its blocks of d, dmin, scale, min and code (quant/block.h); a block longer than x_block counts as
 * several with one d. In whole numbers
 *     isum = Σ_s scale_s Σ_{i in s} code_i q_i        msum = Σ_s min_s Σ_{i in s} q_i
 * and then, blocks in ascending order, y = fma(d_w d_x, isum, y), and where the type has mins y = fma(-(dmin_w d_x),
 * msum, y).
 * Blocks of one element stand for BF16 weights under `--math bf16`: x is rounded to nearest, even in the middle, and
 * kernels.h says what becomes of the products (dot_bf16). */
#ifndef COE_CODES_H
#define COE_CODES_H

#include "tensor/tensor.h"

/* n quantised rows of k values; k a multiple of the block. */
struct codes {
    int64_t n, k;
    int32_t block;        /* 32, 256, or 1: then only */
    const int8_t *q;      /* [n, k] */
    const float *d;       /* [n, k / block] */
    const int16_t *sum;   /* [n, k / 16] sums of sixteen q */
    const int16_t *pair;  /* [n, k / 32] with blocks of 256: sums of 32, of each four S0 S2 S1 S3; else NULL */
    const uint16_t *bf16; /* [n, k]                          … this */
    void *memory;         /* all of it */
};
/* Places of an activation's codes by their blocks. */
enum { CODES_32, CODES_256, CODES_BF16, CODES_KINDS };
static inline int codes_kind(int32_t block) { return block == 1 ? CODES_BF16 : block == 256 ? CODES_256 : CODES_32; }
/* Bytes that hold such codes. */
size_t codes_bytes(int64_t n, int64_t k, int32_t block);
/* Quantises x, rows ldx apart, into `memory` [codes_bytes], 64-byte aligned, which *c borrows. Threaded. */
void codes_make(struct codes *c, void *memory, const float *x, int64_t ldx, int64_t n, int64_t k, int32_t block);
/* In two steps, for who makes x piece by piece: places for n rows (block 32 or 256), and then columns k0 … k0+k-1 of a
 * row, whole blocks. Pieces that do not overlap may be made by several threads at once. */
void codes_lay_out(struct codes *c, void *memory, int64_t n, int64_t k, int32_t block);
void codes_piece(const struct codes *c, int64_t row, int64_t k0, const float *x, int64_t k);

#endif
