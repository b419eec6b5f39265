/* product.c — quantised rows and their products with quantised weights: see tensor/codes.h for the definition.
 *
 * A weight row is taken apart block by block and meets all rows of x before the next block: unpacking is shared, and
 * every output is still one chain over the blocks in ascending order. */
#include "tensor/codes.h"

#include <math.h>
#include <string.h>

#include "block.h"
#include "panel.h"
#include "tensor/kernels.h"

#define ALIGN 64

static size_t padded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

size_t codes_bytes(int64_t n, int64_t k, int32_t block)
{
    if (block == 1) return padded((size_t)(n * k) * sizeof(uint16_t));
    return padded((size_t)(n * k)) + padded((size_t)(n * (k / block)) * sizeof(float)) +
           padded((size_t)(n * (k / 16)) * sizeof(int16_t));
}

static void round_rows(struct codes *c, uint16_t *rows, const float *x, int64_t ldx)
{
    COE_SPREAD(c->n * c->k > 32768, for (int64_t i = 0; i < c->n; i++),
               kern->narrow(rows + i * c->k, DT_BF16, x + i * ldx, c->k));
    c->bf16 = rows;
}

void codes_make(struct codes *c, void *memory, const float *x, int64_t ldx, int64_t n, int64_t k, int32_t block)
{
    *c = (struct codes){ .n = n, .k = k, .block = block };
    if (block == 1) {
        round_rows(c, memory, x, ldx);
        return;
    }
    char *at = memory;
    int8_t *q = memory;
    float *d = (float *)(void *)(at += padded((size_t)(n * k)));
    int16_t *sum = (int16_t *)(void *)(at + padded((size_t)(n * (k / block)) * sizeof(float)));
    assert(k % block == 0 && k % 16 == 0);
    COE_SPREAD(n * k > 32768, for (int64_t i = 0; i < n; i++),
               kern->quantise(q + i * k, d + i * (k / block), sum + i * (k / 16), x + i * ldx, k, block));
    c->q = q, c->d = d, c->sum = sum;
}

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
