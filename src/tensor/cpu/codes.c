/* codes.c — rows of x quantised for the products of block types: definition in tensor/codes.h. */
#include "tensor/cpu/lanes.h"

/* 1.5 * 2^23: what is added to it and taken away again is rounded to the nearest whole number, even in the middle. */
#define ROUND 12582912.0f

LANES float largest(const float *x, int32_t n)
{
    v16 top = v16_zero();
    for (int32_t i = 0; i < n; i += 16) top = v16_max(v16_abs(v16_load(x + i)), top); /* a NaN on the left loses */
    return v16_top(top);
}

LANES v16 whole(v16 v) { return v16_sub(v16_add(v, v16_set1(ROUND)), v16_set1(ROUND)); }

/* What is within this of the middle between two whole numbers is divided; else multiplying by 1/d, which misses x/d by
 * no more than 2^-15 where that is at most 127, rounds to the same. */
#define CLEAR 1e-4f

/* Sixteen codes. A NaN becomes 127. */
LANES void sixteen(int8_t *q, v16 x, v16 d, v16 inverse)
{
    const v16 r = v16_mul(x, inverse), near = whole(r);
    const v16 off = v16_abs(v16_sub(v16_abs(v16_sub(r, near)), v16_set1(0.5f)));
    if (m16_all(v16_lt(v16_set1(CLEAR), off))) v16_store_i8(q, near);
    else v16_store_i8(q, whole(v16_max(v16_min(v16_div(x, d), v16_set1(127)), v16_set1(-127))));
}

static void quantise(int8_t *q, float *d, int16_t *sum, const float *x, int64_t k, int32_t block)
{
    for (int64_t at = 0; at < k; at += block, d++, q += block, sum += block / 16, x += block) {
        *d = largest(x, block) / 127.0f;
        if (!(*d > 0)) {
            memset(q, 0, (size_t)block);
            memset(sum, 0, (size_t)(block / 16) * sizeof *sum);
            continue;
        }
        const v16 divisor = v16_set1(*d), inverse = v16_div(v16_set1(1), divisor);
        for (int32_t i = 0; i < block; i += 16) sixteen(q + i, v16_load(x + i), divisor, inverse);
        for (int32_t i = 0; i < block; i += 16) {
            int all = 0;
            for (int j = 0; j < 16; j++) all += q[i + j];
            sum[i / 16] = (int16_t)all;
        }
    }
}

void LEVEL_FN(fill_codes)(struct kernels *k) { k->quantise = quantise; }
