/* kquant.c — decoding of blocks of 256 values whose sub-blocks have small scales of their own.
 *
 *     Q2_K   scales[16] | qs[64] | d | dmin        16 sub-blocks of 16; a byte of scales: scale low, min high
 *     Q3_K   hmask[32] | qs[64] | scales[12] | d   16 sub-blocks of 16, scales of 6 bits less 32
 *     Q4_K   d | dmin | scales[12] | qs[128]       8 sub-blocks of 32, scales and mins of 6 bits
 *     Q5_K   d | dmin | scales[12] | qh[32] | qs[128]
 *     Q6_K   ql[128] | qh[64] | scales[16] | d     16 sub-blocks of 16, scales int8
 *     Q8_K   d (float) | qs[256] | sums[16]        activations
 *     IQ4_XS d | scales_h | scales_l[4] | qs[128]  8 sub-blocks of 32, codes of IQ4_NL
 *
 * Two-bit planes: value i of a half of 128 has bits 2(i / 32) of byte i mod 32. */
#include <string.h>

#include "block.h"

/* Two bits of value i (0 … 255). */
static int plane2(const uint8_t *q, int i) { return q[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3; }

void decode_q2_k(float *y, const uint8_t *b)
{
    const float d = get_f16(b + 80), dmin = get_f16(b + 82);
    for (int s = 0; s < 16; s++) {
        const float scale = d * (float)(b[s] & 15), min = dmin * (float)(b[s] >> 4);
        for (int i = 16 * s; i < 16 * s + 16; i++) y[i] = scale * (float)plane2(b + 16, i) - min;
    }
}

void decode_q3_k(float *y, const uint8_t *b)
{
    const float d = get_f16(b + 108);
    const uint8_t *packed = b + 96;
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4, high = packed[8 + s % 4] >> 2 * (s / 4) & 3;
        const float scale = d * (float)((low | high << 4) - 32);
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            int missing = b[i % 32] >> i / 32 & 1 ? 0 : 4; /* a set bit means: do not subtract */
            y[i] = scale * (float)(plane2(b + 32, i) - missing);
        }
    }
}

void decode_q4_k(float *y, const uint8_t *b)
{
    const float d = get_f16(b), dmin = get_f16(b + 2);
    for (int s = 0; s < 8; s++) {
        int sc, m;
        kquant_scale_min(b + 4, s, &sc, &m);
        const float scale = d * (float)sc, min = dmin * (float)m;
        const uint8_t *q = b + 16 + 32 * (s / 2);
        for (int i = 0; i < 32; i++) y[32 * s + i] = scale * (float)(q[i] >> 4 * (s % 2) & 15) - min;
    }
}

void decode_q5_k(float *y, const uint8_t *b)
{
    const float d = get_f16(b), dmin = get_f16(b + 2);
    for (int s = 0; s < 8; s++) {
        int sc, m;
        kquant_scale_min(b + 4, s, &sc, &m);
        const float scale = d * (float)sc, min = dmin * (float)m;
        const uint8_t *q = b + 48 + 32 * (s / 2), *high = b + 16;
        for (int i = 0; i < 32; i++)
            y[32 * s + i] = scale * (float)((q[i] >> 4 * (s % 2) & 15) | (high[i] >> s & 1) << 4) - min;
    }
}

void decode_q6_k(float *y, const uint8_t *b)
{
    const float d = get_f16(b + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, c = i / 32 % 4, l = i % 32;
        int low = b[64 * half + 32 * (c % 2) + l] >> 4 * (c / 2) & 15, high = b[128 + 32 * half + l] >> 2 * c & 3;
        y[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

void decode_q8_k(float *y, const uint8_t *b)
{
    const float d = float_of_bits(get_u32(b));
    for (int i = 0; i < 256; i++) y[i] = d * (float)(int8_t)b[4 + i];
}

void decode_iq4_xs(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    const uint32_t high = get_u16(b + 2);
    for (int s = 0; s < 8; s++) {
        int sc = (b[4 + s / 2] >> 4 * (s % 2) & 15) | (int)(high >> 2 * s & 3) << 4;
        const float scale = d * (float)(sc - 32);
        const uint8_t *q = b + 8 + 16 * s;
        for (int j = 0; j < 16; j++) {
            y[32 * s + j] = scale * (float)iq4_values[q[j] & 15];
            y[32 * s + j + 16] = scale * (float)iq4_values[q[j] >> 4];
        }
    }
}
