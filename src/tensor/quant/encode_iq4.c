/* encode_iq4.c — encoding of IQ4_NL and IQ4_XS: four-bit codes into a table of uneven steps. */
#include <math.h>
#include <string.h>

#include "search.h"

#define N 32

/* Index of the table's value nearest to x, the higher one when it lies in the middle. */
static uint8_t nearest(float x)
{
    int i = 0;
    while (i < 15 && !(x - (float)iq4_values[i] < (float)iq4_values[i + 1] - x)) i++;
    return (uint8_t)i;
}

/* Sums of w x v and w v v over the table values v nearest to x * inverse. */
static void try_scale(float *xq, float *qq, const float *x, const float *w, float inverse)
{
    *xq = *qq = 0.0f;
    for (int i = 0; i < N; i++) {
        const float v = (float)iq4_values[nearest(inverse * x[i])];
        *xq += w[i] * v * x[i];
        *qq += w[i] * v * v;
    }
}

/* The scale of least error in 32 values. square: twice the mean square of the block, used with importance w. */
static float find_scale(const float *x, const float *w, float square)
{
    const float max = largest(x, N), first = (float)iq4_values[0];
    if (fabsf(max) < 1e-15f) return 0.0f;
    float weight[N], xq, qq;
    for (int i = 0; i < N; i++) weight[i] = w ? w[i] * sqrtf(square + x[i] * x[i]) : x[i] * x[i];
    try_scale(&xq, &qq, x, weight, 1.0f / (-max / first));
    float scale = qq > 0.0f ? xq / qq : 0.0f, best = scale * xq;
    for (int k = -7; k <= 7; k++) {
        try_scale(&xq, &qq, x, weight, ((float)k + first) / max);
        if (qq > 0.0f && xq * xq > best * qq) {
            scale = xq / qq;
            best = scale * xq;
        }
    }
    return scale;
}

static float twice_mean_square(const float *x, int n)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return sum * (2.0f / (float)n);
}

/* 16 bytes of codes of x / scale. */
static void pack(uint8_t *qs, const float *x, float scale)
{
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (int j = 0; j < N / 2; j++) qs[j] = (uint8_t)(nearest(inverse * x[j]) | nearest(inverse * x[j + N / 2]) << 4);
}

void encode_iq4_nl(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    for (int64_t i = 0; i < n; i += N, dst += 18) {
        const float scale = find_scale(x + i, w ? w + i : NULL, twice_mean_square(x + i, N));
        put_f16(dst, scale);
        pack(dst + 2, x + i, scale);
    }
}

void encode_iq4_xs(uint8_t *dst, const float *x, int64_t n, const float *w)
{
    for (int64_t i = 0; i < n; i += 256, dst += 136) {
        float scale[8];
        const float square = twice_mean_square(x + i, 256);
        for (int s = 0; s < 8; s++) scale[s] = find_scale(x + i + N * s, w ? w + i + N * s : NULL, square);
        const float d = -largest(scale, 8) / 32.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
        uint32_t high = 0;
        memset(dst, 0, 8);
        put_f16(dst, d);
        for (int s = 0; s < 8; s++) {
            const int l = clamp_int(nint(inverse * scale[s]), -32, 31);
            pack(dst + 8 + 16 * s, x + i + N * s, d * (float)l);
            dst[4 + s / 2] |= (uint8_t)(((l + 32) & 15) << 4 * (s % 2));
            high |= (uint32_t)(l + 32) >> 4 << 2 * s;
        }
        put_u16(dst + 2, high);
    }
}
