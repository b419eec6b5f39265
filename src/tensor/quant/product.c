/* product.c — rows of x as codes, threaded: see tensor/codes.h for the definition. */
#include "tensor/codes.h"

#include "tensor/kernels.h"

#define ALIGN 64

static size_t padded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

size_t codes_bytes(int64_t n, int64_t k, int32_t block)
{
    if (block == 1) return padded((size_t)(n * k) * sizeof(uint16_t));
    return padded((size_t)(n * k)) + padded((size_t)(n * (k / block)) * sizeof(float)) +
           padded((size_t)(n * (k / 16)) * sizeof(int16_t)) +
           (block == 256 ? padded((size_t)(n * (k / 32)) * sizeof(int16_t)) : 0);
}

static void round_rows(struct codes *c, uint16_t *rows, const float *x, int64_t ldx)
{
    COE_SPREAD(c->n * c->k > 32768, for (int64_t i = 0; i < c->n; i++),
               kern->narrow(rows + i * c->k, DT_BF16, x + i * ldx, c->k));
    c->bf16 = rows;
}

static void make_pairs(int16_t *pair, const int16_t *sum, int64_t k)
{
    for (int64_t i = 0; i < k / 128; i++, pair += 4, sum += 8)
        for (int j = 0; j < 4; j++) pair[j / 2 + j % 2 * 2] = (int16_t)(sum[2 * j] + sum[2 * j + 1]);
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
    int16_t *sum = (int16_t *)(void *)(at += padded((size_t)(n * (k / block)) * sizeof(float)));
    int16_t *pair = block == 256 ? (int16_t *)(void *)(at + padded((size_t)(n * (k / 16)) * sizeof *sum)) : NULL;
    assert(k % block == 0 && k % 16 == 0);
    COE_SPREAD(n * k > 32768, for (int64_t i = 0; i < n; i++), {
        kern->quantise(q + i * k, d + i * (k / block), sum + i * (k / 16), x + i * ldx, k, block);
        if (pair) make_pairs(pair + i * (k / 32), sum + i * (k / 16), k);
    });
    c->q = q, c->d = d, c->sum = sum, c->pair = pair;
}
