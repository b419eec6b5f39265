/* encode_plain.c — encoding of the types of plain.c. Without importance these are rounding rules, defined to the bit;
 * with importance Q4 and Q5 search for the scale of least weighted error. */
#include <math.h>
#include <string.h>

#include "search.h"

#define N 32 /* values of a block of Q4, Q5, Q8, MXFP4 */

/* Truncated code; also what is NaN or out of range becomes one. */
static uint8_t code(float x, int top) { return (uint8_t)(x >= 0.0f ? x < (float)top ? (int)x : top : 0); }

static void find_range(float *lo, float *hi, const float *x, int n)
{
    *lo = *hi = x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < *lo) *lo = x[i];
        if (x[i] > *hi) *hi = x[i];
    }
}

static float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/* Nibbles of 32 codes: code j low, code j + 16 high; returns the fifth bits. */
static uint32_t pack_nibbles(uint8_t *qs, const uint8_t *q)
{
    uint32_t high = 0;
    for (int j = 0; j < N / 2; j++) qs[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
    for (int i = 0; i < N; i++) high |= (uint32_t)(q[i] >> 4 & 1) << i;
    return high;
}

static void put_u32(uint8_t *p, uint32_t x)
{
    put_u16(p, x);
    put_u16(p + 2, x >> 16);
}

/* weight[32] = importance * sqrt(mean square of the row + x squared) */
static void block_weights(float *weight, const float *x, const float *w, float mean_square)
{
    for (int i = 0; i < N; i++) weight[i] = w[i] * sqrtf(mean_square + x[i] * x[i]);
}

static float mean_square(const float *x, int64_t n)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum / (float)n;
}

/* Scale and codes of x ~ d (q - half). */
static float signed_block(uint8_t *q, const float *x, const float *w, float square, int half)
{
    float weight[N];
    if (w) {
        block_weights(weight, x, w, square);
        return search_signed(q, x, weight, N, half);
    }
    const float d = largest(x, N) / -(float)half, id = inverse(d);
    for (int i = 0; i < N; i++) q[i] = code(x[i] * id + ((float)half + 0.5f), 2 * half - 1);
    return d;
}

/* Scale, minimum and codes of x ~ d q + m. */
static float affine_block(float *m, uint8_t *q, const float *x, const float *w, float square, int top)
{
    float weight[N], lo, hi;
    if (w) {
        block_weights(weight, x, w, square);
        const float d = search_affine(&lo, q, x, weight, N, top, (struct affine_try){ -0.9f, 0.05f, 36, false });
        *m = -lo;
        return d;
    }
    find_range(&lo, &hi, x, N);
    const float d = (hi - lo) / (float)top, id = inverse(d);
    for (int i = 0; i < N; i++) q[i] = code((x[i] - lo) * id + 0.5f, top);
    *m = lo;
    return d;
}

void encode_q4_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    uint8_t q[N];
    const float square = w ? mean_square(x, n) : 0.0f;
    for (int64_t i = 0; i < n; i += N, dst += 18) {
        put_f16(dst, signed_block(q, x + i, w ? w + i : NULL, square, 8));
        pack_nibbles(dst + 2, q);
    }
}

void encode_q5_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    uint8_t q[N];
    const float square = w ? mean_square(x, n) : 0.0f;
    for (int64_t i = 0; i < n; i += N, dst += 22) {
        put_f16(dst, signed_block(q, x + i, w ? w + i : NULL, square, 16));
        put_u32(dst + 2, pack_nibbles(dst + 6, q));
    }
}

void encode_q4_1(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    uint8_t q[N];
    float m;
    const float square = w ? mean_square(x, n) : 0.0f;
    for (int64_t i = 0; i < n; i += N, dst += 20) {
        put_f16(dst, affine_block(&m, q, x + i, w ? w + i : NULL, square, 15));
        put_f16(dst + 2, m);
        pack_nibbles(dst + 4, q);
    }
}

void encode_q5_1(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    uint8_t q[N];
    float m;
    const float square = w ? mean_square(x, n) : 0.0f;
    for (int64_t i = 0; i < n; i += N, dst += 24) {
        put_f16(dst, affine_block(&m, q, x + i, w ? w + i : NULL, square, 31));
        put_f16(dst + 2, m);
        put_u32(dst + 4, pack_nibbles(dst + 8, q));
    }
}

/* Half away from zero, as roundf; NaN becomes 0. */
static int round_away(float x, int top)
{
    const float r = roundf(x);
    return r >= (float)top ? top : r > -(float)top ? (int)r : r <= -(float)top ? -top : 0;
}

void encode_q8_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += N, dst += 34) {
        const float d = fabsf(largest(x + i, N)) / 127.0f, id = inverse(d);
        put_f16(dst, d);
        for (int j = 0; j < N; j++) dst[2 + j] = (uint8_t)round_away(x[i + j] * id, 127);
    }
}

/* The code of fp4_values whose value times d is nearest to x; the first among equals. */
static uint8_t nearest_fp4(float x, float d)
{
    uint8_t best = 0;
    float error = fabsf((float)fp4_values[0] * d - x);
    for (uint8_t q = 1; q < 16; q++) {
        const float e = fabsf((float)fp4_values[q] * d - x);
        if (e < error) {
            error = e;
            best = q;
        }
    }
    return best;
}

void encode_mxfp4(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    uint8_t q[N];
    for (int64_t i = 0; i < n; i += N, dst += 17) {
        const float top = fabsf(largest(x + i, N));
        const float e = top > 0.0f ? floorf(log2f(top)) - 2.0f + 127.0f : 0.0f;
        dst[0] = (uint8_t)(e > 0.0f ? e < 254.0f ? (int)e : 254 : 0);
        for (int j = 0; j < N; j++) q[j] = nearest_fp4(x[i + j], e8m0_half(dst[0]));
        pack_nibbles(dst + 1, q);
    }
}

/* The unsigned E4M3 code nearest to x >= 0, half to even, at most 448. */
static uint8_t to_ue4m3(float x)
{
    uint8_t best = 0;
    if (!(x > 0.0f)) return 0;
    if (x >= 448.0f) return 126;
    for (uint8_t lo = 0, hi = 126; lo < hi;) { /* values grow with the code */
        const uint8_t mid = (uint8_t)((lo + hi + 1) / 2);
        if (ue4m3(mid) <= x) best = lo = mid;
        else hi = (uint8_t)(mid - 1);
    }
    const float below = x - ue4m3(best), above = ue4m3((uint8_t)(best + 1)) - x;
    return (uint8_t)(best < 126 && (above < below || (above == below && best % 2)) ? best + 1 : best);
}

void encode_nvfp4(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += 16) {
        const int s = (int)(i / 16 % 4);
        uint8_t *qs = dst + 4 + 8 * s;
        dst[s] = to_ue4m3(fabsf(largest(x + i, 16)) / 6.0f);
        const float d = 0.5f * ue4m3(dst[s]);
        for (int j = 0; j < 8; j++) qs[j] = (uint8_t)(nearest_fp4(x[i + j], d) | nearest_fp4(x[i + j + 8], d) << 4);
        if (s == 3) dst += 36;
    }
}

/* 0, 1, 2 for -1, 0, 1 */
static uint32_t ternary(float x) { return (uint32_t)(round_away(x, 1) + 1); }

/* Five trits, `stride` values apart, as a fraction of 243 scaled to 256 and rounded up; absent ones are 0. */
static uint8_t five_trits(const float *x, int stride, int n, float id)
{
    uint32_t v = 0;
    for (int k = 0; k < 5; k++) v = v * 3 + (k < n ? ternary(x[k * stride] * id) : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

void encode_tq1_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += 256, dst += 54) {
        const float d = fabsf(largest(x + i, 256)), id = inverse(d);
        for (int l = 0; l < 32; l++) dst[l] = five_trits(x + i + l, 32, 5, id);
        for (int l = 0; l < 16; l++) dst[32 + l] = five_trits(x + i + 160 + l, 16, 5, id);
        for (int l = 0; l < 4; l++) dst[48 + l] = five_trits(x + i + 240 + l, 4, 4, id);
        put_f16(dst + 52, d);
    }
}

void encode_tq2_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += 256, dst += 66) {
        const float d = fabsf(largest(x + i, 256)), id = inverse(d);
        memset(dst, 0, 64);
        for (int k = 0; k < 256; k++)
            dst[k / 128 * 32 + k % 32] |= (uint8_t)(ternary(x[i + k] * id) << 2 * (k / 32 % 4));
        put_f16(dst + 64, d);
    }
}

void encode_q1_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += 128, dst += 18) {
        float sum = 0.0f;
        memset(dst, 0, 18);
        for (int k = 0; k < 128; k++) {
            sum += fabsf(x[i + k]);
            dst[2 + k / 8] |= (uint8_t)((x[i + k] >= 0.0f) << k % 8);
        }
        put_f16(dst, sum / 128.0f);
    }
}

void encode_q2_0(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    (void)w;
    for (int64_t i = 0; i < n; i += 64, dst += 18) {
        const float d = fabsf(largest(x + i, 64)), id = inverse(d);
        memset(dst, 0, 18);
        for (int k = 0; k < 64; k++) dst[2 + k / 4] |= (uint8_t)(ternary(x[i + k] * id) << 2 * (k % 4));
        put_f16(dst, d);
    }
}
