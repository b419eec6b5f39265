/* encode_k.c — encoding of the types of kquant.c.
 *
 * A search gives each sub-block a scale (and a minimum) and codes; the scales themselves are rounded to 4 or 6 bits
 * under one half-precision scale; then every value is encoded again with the scale that a reader will see. A sub-block
 * whose rounded scale is 0 keeps the codes of the search. */
#include <math.h>
#include <string.h>

#include "search.h"

#define N 256

static const struct affine_try with_importance = { -0.9f, 0.05f, 36, false };

/* weight = importance * sqrt(square + x squared); returns the sum. */
static float weigh(float *weight, const float *x, const float *w, int n, float square)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        weight[i] = w[i] * sqrtf(square + x[i] * x[i]);
        sum += weight[i];
    }
    return sum;
}

static float sum_square(const float *x, int n)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

/* Codes 0 … top of non-negative scales under the largest; returns the scale's scale. */
static float plain_scales(uint8_t *q, const float *scale, int n, int top)
{
    float max = 0.0f;
    for (int i = 0; i < n; i++)
        if (scale[i] > max) max = scale[i];
    const float inverse = max > 0.0f ? (float)top / max : 0.0f;
    for (int i = 0; i < n; i++) q[i] = (uint8_t)clamp_int(nint(inverse * scale[i]), 0, top);
    return max / (float)top;
}

/* Values of a sub-block encoded with the scale and minimum a reader sees. */
static void requantize(uint8_t *q, const float *x, int n, float scale, float min, int top)
{
    if (scale == 0.0f) return;
    for (int i = 0; i < n; i++) q[i] = (uint8_t)clamp_int(nint((x[i] + min) / scale), 0, top);
}

static void requantize_signed(uint8_t *q, const float *x, int n, float scale, int half)
{
    if (scale == 0.0f) return;
    for (int i = 0; i < n; i++) q[i] = (uint8_t)(clamp_int(nint(x[i] / scale), -half, half - 1) + half);
}

/* Two-bit planes, see kquant.c. */
static void pack2(uint8_t *dst, const uint8_t *q)
{
    memset(dst, 0, N / 4);
    for (int i = 0; i < N; i++) dst[i / 128 * 32 + i % 32] |= (uint8_t)((q[i] & 3) << 2 * (i / 32 % 4));
}

static void q2_k_block(uint8_t *b, const float *x, const float *w)
{
    uint8_t q[N], sc[16], mc[16];
    float scale[16], min[16], sum[16], weight[16];
    const float square = w ? sum_square(x, N) / (float)N : 0.0f;
    for (int s = 0; s < 16; s++) {
        const float *y = x + 16 * s;
        if (w) sum[s] = weigh(weight, y, w + 16 * s, 16, square);
        else
            for (int i = 0; i < 16; i++) weight[i] = fabsf(y[i]);
        const struct affine_try plain = { -0.5f, 0.1f, 15, true };
        scale[s] = search_affine(&min[s], q + 16 * s, y, weight, 16, 3, w ? with_importance : plain);
    }
    put_f16(b + 80, w ? search_positive(sc, scale, sum, 16, 15) : plain_scales(sc, scale, 16, 15));
    put_f16(b + 82, w ? search_positive(mc, min, sum, 16, 15) : plain_scales(mc, min, 16, 15));
    const float d = get_f16(b + 80), dmin = get_f16(b + 82);
    for (int s = 0; s < 16; s++) {
        b[s] = (uint8_t)(sc[s] | mc[s] << 4);
        requantize(q + 16 * s, x + 16 * s, 16, d * (float)sc[s], dmin * (float)mc[s], 3);
    }
    pack2(b + 16, q);
}

static void q3_k_block(uint8_t *b, const float *x, const float *w)
{
    uint8_t q[N], sc[16];
    float scale[16], sum[16], weight[16], d;
    const float square = w ? 2.0f * sum_square(x, N) / (float)N : 0.0f;
    for (int s = 0; s < 16; s++) {
        if (w) sum[s] = weigh(weight, x + 16 * s, w + 16 * s, 16, square);
        scale[s] =
            w ? search_signed(q + 16 * s, x + 16 * s, weight, 16, 4) : search_descent(q + 16 * s, x + 16 * s, 16, 4);
    }
    if (w) d = search_signed(sc, scale, sum, 16, 32);
    else {
        const float max = largest(scale, 16), inverse = max != 0.0f ? -32.0f / max : 0.0f;
        for (int s = 0; s < 16; s++) sc[s] = (uint8_t)(clamp_int(nint(inverse * scale[s]), -32, 31) + 32);
        if (max == 0.0f) memset(sc, 0, sizeof sc);
        d = max != 0.0f ? 1.0f / inverse : 0.0f;
    }
    memset(b, 0, 110);
    put_f16(b + 108, d);
    for (int s = 0; s < 16; s++) {
        b[96 + s % 8] |= (uint8_t)(s < 8 ? sc[s] & 15 : (sc[s] & 15) << 4);
        b[104 + s % 4] |= (uint8_t)(sc[s] >> 4 << 2 * (s / 4));
        requantize_signed(q + 16 * s, x + 16 * s, 16, get_f16(b + 108) * (float)(sc[s] - 32), 4);
    }
    for (int i = 0; i < N; i++) b[i % 32] |= (uint8_t)(q[i] >> 2 << i / 32);
    pack2(b + 32, q);
}

/* d, dmin and the packed scales of Q4_K and Q5_K into b[0..16), codes 0 … top into q. */
static void scale_min_block(uint8_t *b, uint8_t *q, const float *x, const float *w, int top, struct affine_try plain)
{
    uint8_t sc[8], mc[8];
    float scale[8], min[8], sum[8], weight[32];
    const float square = w ? 2.0f * sum_square(x, N) / (float)N : 0.0f;
    for (int s = 0; s < 8; s++) {
        const float *y = x + 32 * s;
        if (w) sum[s] = weigh(weight, y, w + 32 * s, 32, square);
        else {
            const float rms = sqrtf(sum_square(y, 32) / 32.0f);
            for (int i = 0; i < 32; i++) weight[i] = rms + fabsf(y[i]);
        }
        scale[s] = search_affine(&min[s], q + 32 * s, y, weight, 32, top, w ? with_importance : plain);
    }
    put_f16(b, w ? search_positive(sc, scale, sum, 8, 63) : plain_scales(sc, scale, 8, 63));
    put_f16(b + 2, w ? search_positive(mc, min, sum, 8, 63) : plain_scales(mc, min, 8, 63));
    memset(b + 4, 0, 12);
    for (int s = 0; s < 4; s++) {
        b[4 + s] = (uint8_t)(sc[s] | sc[s + 4] >> 4 << 6);
        b[8 + s] = (uint8_t)(mc[s] | mc[s + 4] >> 4 << 6);
        b[12 + s] = (uint8_t)((sc[s + 4] & 15) | (mc[s + 4] & 15) << 4);
    }
    const float d = get_f16(b), dmin = get_f16(b + 2);
    for (int s = 0; s < 8; s++) requantize(q + 32 * s, x + 32 * s, 32, d * (float)sc[s], dmin * (float)mc[s], top);
}

/* Nibbles of 256 codes: of each 64 the first 32 low, the others high. */
static void pack4(uint8_t *dst, const uint8_t *q)
{
    for (int i = 0; i < N / 2; i++) {
        const uint8_t *pair = q + i / 32 * 64 + i % 32;
        dst[i] = (uint8_t)((pair[0] & 15) | (pair[32] & 15) << 4);
    }
}

static void q4_k_block(uint8_t *b, const float *x, const float *w)
{
    uint8_t q[N];
    scale_min_block(b, q, x, w, 15, (struct affine_try){ -1.0f, 0.1f, 20, false });
    pack4(b + 16, q);
}

static void q5_k_block(uint8_t *b, const float *x, const float *w)
{
    uint8_t q[N];
    scale_min_block(b, q, x, w, 31, (struct affine_try){ -0.5f, 0.1f, 15, false });
    memset(b + 16, 0, 32);
    for (int i = 0; i < N; i++) b[16 + i % 32] |= (uint8_t)(q[i] >> 4 << i / 32);
    pack4(b + 48, q);
}

static void q6_k_block(uint8_t *b, const float *x, const float *w)
{
    uint8_t q[N];
    float scale[16];
    for (int s = 0; s < 16; s++) scale[s] = search_signed(q + 16 * s, x + 16 * s, w ? w + 16 * s : NULL, 16, 32);
    const float max = largest(scale, 16), inverse = -128.0f / max;
    memset(b, 0, 210);
    if (fabsf(max) < 1e-15f) return;
    put_f16(b + 208, 1.0f / inverse);
    for (int s = 0; s < 16; s++) {
        const int sc = clamp_int(nint(inverse * scale[s]), -128, 127);
        b[192 + s] = (uint8_t)sc;
        requantize_signed(q + 16 * s, x + 16 * s, 16, get_f16(b + 208) * (float)sc, 32);
    }
    for (int i = 0; i < N; i++) {
        const int half = i / 128, c = i / 32 % 4, l = i % 32;
        b[64 * half + 32 * (c % 2) + l] |= (uint8_t)((q[i] & 15) << 4 * (c / 2));
        b[128 + 32 * half + l] |= (uint8_t)(q[i] >> 4 << 2 * c);
    }
}

typedef void block_fn(uint8_t *b, const float *x, const float *w);

static void row(block_fn *block, int bytes, uint8_t *dst, const float *x, int64_t n, const float *w)
{
    for (int64_t i = 0; i < n; i += N, dst += bytes) block(dst, x + i, w ? w + i : NULL);
}

void encode_q2_k(uint8_t *dst, const float *x, int64_t n, const float *w) { row(q2_k_block, 84, dst, x, n, w); }
void encode_q3_k(uint8_t *dst, const float *x, int64_t n, const float *w) { row(q3_k_block, 110, dst, x, n, w); }
void encode_q4_k(uint8_t *dst, const float *x, int64_t n, const float *w) { row(q4_k_block, 144, dst, x, n, w); }
void encode_q5_k(uint8_t *dst, const float *x, int64_t n, const float *w) { row(q5_k_block, 176, dst, x, n, w); }
void encode_q6_k(uint8_t *dst, const float *x, int64_t n, const float *w) { row(q6_k_block, 210, dst, x, n, w); }
