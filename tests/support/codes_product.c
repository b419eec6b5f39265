/* codes_product.c — products of quantised rows and weights as tensor/codes.h defines them, one element after the other:
 * what every kernel must match bit for bit. */
#include "codes_product.h"

#include <math.h>

#include "tensor/quant/block.h"
#include "tensor/quant/panel.h"

/* Elements from … from+len-1 of an unpacked block times those of x: the two whole sums */
static void whole_sums(int32_t *isum, int32_t *msum, const struct quant_block *u, int from, int len, const int8_t *q,
                       const int16_t *sum)
{
    *isum = *msum = 0;
    for (int s = from / 16; s < (from + len) / 16; s++, q += 16, sum++) {
        int32_t dot = 0;
        for (int i = 0; i < 16; i++) dot += u->code[16 * s + i] * q[i];
        *isum += u->scale[s] * dot;
        *msum += u->min[s] * *sum;
    }
}

static void one_row(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                    const uint8_t *w, enum dtype t)
{
    const int block = dtype_info[t].block, len = COE_MIN(block, x->block);
    struct quant_block u;
    for (int64_t i = 0; i < m; i++) y[i * ldy] = 0;
    for (int64_t k = 0; k < x->k; k += len) {
        if (k % block == 0) quant_unpacker(t)(&u, w + k / block * dtype_info[t].bytes);
        for (int64_t i = 0; i < m; i++) {
            const int64_t row = xrow ? xrow[i] : first + i;
            const float d = x->d[row * (x->k / x->block) + k / x->block];
            int32_t isum, msum;
            whole_sums(&isum, &msum, &u, (int)(k % block), len, x->q + row * x->k + k, x->sum + (row * x->k + k) / 16);
            y[i * ldy] = fmaf(u.d * d, (float)isum, y[i * ldy]);
            if (code_format[t].mins) y[i * ldy] = fmaf(-(u.dmin * d), (float)msum, y[i * ldy]);
        }
    }
}

void codes_product(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                   const void *w, enum dtype t, int64_t n)
{
    const int64_t row_bytes = x->k / dtype_info[t].block * dtype_info[t].bytes;
    assert(dtype_info[t].x_block == x->block && x->k % dtype_info[t].block == 0);
    for (int64_t j = 0; j < n; j++) one_row(y + j, ldy, x, xrow, first, m, (const uint8_t *)w + j * row_bytes, t);
}
