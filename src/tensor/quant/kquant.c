/* kquant.c — unpacking of blocks of 256 values whose sub-blocks have small scales of their own.
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

void unpack_q2_k(struct quant_block *u, const uint8_t *b)
{
    u->d = get_f16(b + 80);
    u->dmin = get_f16(b + 82);
    for (int s = 0; s < 16; s++) u->scale[s] = b[s] & 15, u->min[s] = b[s] >> 4;
    for (int i = 0; i < 256; i++) u->code[i] = (int8_t)plane2(b + 16, i);
}

/* Sub-blocks with a scale and no minimum */
static void no_mins(struct quant_block *u, float d)
{
    u->d = d;
    u->dmin = 0;
    memset(u->min, 0, sizeof u->min);
}

void unpack_q3_k(struct quant_block *u, const uint8_t *b)
{
    const uint8_t *packed = b + 96;
    no_mins(u, get_f16(b + 108));
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4, high = packed[8 + s % 4] >> 2 * (s / 4) & 3;
        u->scale[s] = (int16_t)((low | high << 4) - 32);
    }
    /* a set bit of the mask means: do not subtract */
    for (int i = 0; i < 256; i++) u->code[i] = (int8_t)(plane2(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4));
}

static void scales_and_mins(struct quant_block *u, const uint8_t *b)
{
    u->d = get_f16(b);
    u->dmin = get_f16(b + 2);
    for (int s = 0; s < 16; s++) {
        int scale, min;
        kquant_scale_min(b + 4, s / 2, &scale, &min);
        u->scale[s] = (int16_t)scale, u->min[s] = (int16_t)min;
    }
}

void unpack_q4_k(struct quant_block *u, const uint8_t *b)
{
    scales_and_mins(u, b);
    for (int i = 0; i < 256; i++) u->code[i] = b[16 + i / 64 * 32 + i % 32] >> 4 * (i / 32 % 2) & 15;
}

void unpack_q5_k(struct quant_block *u, const uint8_t *b)
{
    scales_and_mins(u, b);
    for (int i = 0; i < 256; i++) {
        const int low = b[48 + i / 64 * 32 + i % 32] >> 4 * (i / 32 % 2) & 15, high = b[16 + i % 32] >> i / 32 & 1;
        u->code[i] = (int8_t)(low | high << 4);
    }
}

void unpack_q6_k(struct quant_block *u, const uint8_t *b)
{
    no_mins(u, get_f16(b + 208));
    for (int s = 0; s < 16; s++) u->scale[s] = (int8_t)b[192 + s];
    for (int i = 0; i < 256; i++) {
        int half = i / 128, c = i / 32 % 4, l = i % 32;
        int low = b[64 * half + 32 * (c % 2) + l] >> 4 * (c / 2) & 15, high = b[128 + 32 * half + l] >> 2 * c & 3;
        u->code[i] = (int8_t)((low | high << 4) - 32);
    }
}

void unpack_q8_k(struct quant_block *u, const uint8_t *b)
{
    no_mins(u, float_of_bits(get_u32(b)));
    for (int s = 0; s < 16; s++) u->scale[s] = 1;
    memcpy(u->code, b + 4, 256);
}

void unpack_iq4_xs(struct quant_block *u, const uint8_t *b)
{
    const uint32_t high = get_u16(b + 2);
    no_mins(u, get_f16(b));
    for (int s = 0; s < 8; s++) {
        const int scale = (b[4 + s / 2] >> 4 * (s % 2) & 15) | (int)(high >> 2 * s & 3) << 4;
        u->scale[2 * s] = u->scale[2 * s + 1] = (int16_t)(scale - 32);
        const uint8_t *q = b + 8 + 16 * s;
        for (int j = 0; j < 16; j++) {
            u->code[32 * s + j] = iq4_values[q[j] & 15];
            u->code[32 * s + j + 16] = iq4_values[q[j] >> 4];
        }
    }
}
