/* product.c — rows of x as codes, threaded: see tensor/codes.h for the definition. */
#include "tensor/codes.h"

#include "tensor/kernels.h"

#define ALIGN 64

static size_t padded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

size_t codes_bytes(int64_t n, int64_t k, int32_t block)
{
    if (block == 1) return padded((size_t)(n * k) * sizeof(uint16_t));
    /* products read a line behind the last sums */
    return ALIGN + padded((size_t)(n * k)) + padded((size_t)(n * (k / block)) * sizeof(float)) +
           padded((size_t)(n * (k / 16)) * sizeof(int16_t)) +
           (block == 256 ? padded((size_t)(n * (k / 32)) * sizeof(int16_t)) : 0);
}

static void round_rows(struct codes *c, uint16_t *rows, const float *x, int64_t ldx)
{
    COE_SPREAD(c->n * c->k > 32768, for (int64_t i = 0; i < c->n; i++),
               kern->narrow(rows + i * c->k, DT_BF16, x + i * ldx, c->k));
    c->bf16 = rows;
}

/* k a multiple of 128 */
static void make_pairs(int16_t *pair, const int16_t *sum, int64_t k)
{
    for (int64_t i = 0; i < k / 128; i++, pair += 4, sum += 8)
        for (int j = 0; j < 4; j++) pair[j / 2 + j % 2 * 2] = (int16_t)(sum[2 * j] + sum[2 * j + 1]);
}

/* What struct codes shows to readers. */
struct places {
    int8_t *q;
    float *d;
    int16_t *sum, *pair;
};

static struct places places_of(void *memory, int64_t n, int64_t k, int32_t block)
{
    char *at = memory;
    struct places p = { .q = memory };
    p.d = (float *)(void *)(at += padded((size_t)(n * k)));
    p.sum = (int16_t *)(void *)(at += padded((size_t)(n * (k / block)) * sizeof *p.d));
    if (block == 256) p.pair = (int16_t *)(void *)(at + padded((size_t)(n * (k / 16)) * sizeof *p.sum));
    return p;
}

void codes_lay_out(struct codes *c, void *memory, int64_t n, int64_t k, int32_t block)
{
    assert(k % block == 0 && k % 16 == 0);
    const struct places p = places_of(memory, n, k, block);
    *c = (struct codes){ .n = n, .k = k, .block = block, .q = p.q, .d = p.d, .sum = p.sum, .pair = p.pair,
                         .memory = memory };
}

void codes_piece(const struct codes *c, int64_t row, int64_t k0, const float *x, int64_t k)
{
    const struct places p = places_of(c->memory, c->n, c->k, c->block);
    const int64_t at = row * c->k + k0;
    int16_t *sum = p.sum + at / 16;
    kern->quantise(p.q + at, p.d + at / c->block, sum, x, k, c->block);
    if (p.pair) make_pairs(p.pair + at / 32, sum, k);
}

void codes_make(struct codes *c, void *memory, const float *x, int64_t ldx, int64_t n, int64_t k, int32_t block)
{
    if (block == 1) {
        *c = (struct codes){ .n = n, .k = k, .block = block, .memory = memory };
        round_rows(c, memory, x, ldx);
        return;
    }
    codes_lay_out(c, memory, n, k, block);
    COE_SPREAD(n * k > 32768, for (int64_t i = 0; i < n; i++), codes_piece(c, i, 0, x + i * ldx, k));
}
