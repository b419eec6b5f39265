/* codes.c — rows of x quantised for the products of block types: definition in tensor/codes.h. */
#include "tensor/cpu/lanes.h"

/* 1.5 * 2^23: adding it rounds to the nearest whole number, even in the middle, and leaves it in the lowest bits. */
#define ROUND 12582912.0f

LANES float largest(const float *x, int32_t n)
{
    v16 top = v16_zero();
    for (int32_t i = 0; i < n; i += 16) top = v16_max(v16_abs(v16_load(x + i)), top); /* a NaN on the left loses */
    return v16_top(top);
}

/* Sixteen codes and their sum. A NaN becomes 127. */
LANES int16_t sixteen(int8_t *q, const float *x, v16 d)
{
    float rounded[16];
    uint32_t bits[16];
    int sum = 0;
    const v16 r = v16_max(v16_min(v16_div(v16_load(x), d), v16_set1(127)), v16_set1(-127));
    v16_store(rounded, v16_add(r, v16_set1(ROUND)));
    memcpy(bits, rounded, sizeof bits);
    for (int i = 0; i < 16; i++) q[i] = (int8_t)(uint8_t)bits[i];
    for (int i = 0; i < 16; i++) sum += q[i];
    return (int16_t)sum;
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
        for (int32_t i = 0; i < block; i += 16) sum[i / 16] = sixteen(q + i, x + i, v16_set1(*d));
    }
}

void LEVEL_FN(fill_codes)(struct kernels *k) { k->quantise = quantise; }
