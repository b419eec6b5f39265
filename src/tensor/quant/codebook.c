/* codebook.c — unpacking of the IQ types: groups of 8 (or 4) magnitudes are an index into a code book, signs are stored
 * apart, one small scale serves 16 or 32 values.
 *
 *     IQ2_XXS  d | 8 x (4 index bytes | u32: 4 x 7 sign bits, scale in the top 4)
 *     IQ2_XS   d | 32 x u16 (9 index bits, 7 sign bits) | scales[8]
 *     IQ2_S    d | index[32] | signs[32] | qh[8] | scales[8]
 *     IQ3_XXS  d | index[64] | 8 x u32 (4 x 7 sign bits, scale in the top 4)
 *     IQ3_S    d | index[64] | qh[8] | signs[32] | scales[4]
 *     IQ1_S    d | index[32] | 8 x u16 (4 x 3 index bits, scale 3, sign of the shift)
 *     IQ1_M    index[32] | qh[16] | 4 x u16 (4 x 3 scale bits; the top nibbles together are d)
 *
 * Seven sign bits stand for eight: the last makes the number of minus signs even. A stored scale s means s + 1/2 (IQ1
 * and IQ3_S: 2s + 1): the whole number 2s + 1 here, and what is left goes into d as a power of two. */
#include "codebook.h"

#include <string.h>

#include "block.h"

static const int8_t level2[4] = { 8, 25, 43, 0 };
static const int8_t level3_xxs[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };
static const int8_t level3_s[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };

static uint32_t eight_signs(uint32_t seven) { return seven | (uint32_t)(__builtin_popcount(seven) & 1) << 7; }

static void start(struct quant_block *u, float d)
{
    u->d = d;
    u->dmin = 0;
    memset(u->min, 0, sizeof u->min);
}

static void scale_of(struct quant_block *u, int sub_block, uint32_t stored)
{
    u->scale[sub_block] = (int16_t)(2 * stored + 1);
}

/* code [8] */
static void two_bit_group(int8_t *code, uint32_t entry, uint32_t signs)
{
    for (int j = 0; j < 8; j++) {
        const int8_t x = level2[entry >> 2 * j & 3];
        code[j] = (int8_t)(signs >> j & 1 ? -x : x);
    }
}

/* code [4]; signs: the lowest four bits */
static void three_bit_group(int8_t *code, const int8_t *level, uint32_t entry, uint32_t signs)
{
    for (int j = 0; j < 4; j++) {
        const int8_t x = level[entry >> 3 * j & 7];
        code[j] = (int8_t)(signs >> j & 1 ? -x : x);
    }
}

/* code [8]: eight times the levels -1, 0, 1 shifted by an eighth */
static void ternary_group(int8_t *code, uint32_t entry, int shift)
{
    for (int j = 0; j < 8; j++) code[j] = (int8_t)(8 * ((int)(entry >> 2 * j & 3) - 1) + shift);
}

void unpack_iq2_xxs(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b) * 0.125f);
    for (int s = 0; s < 8; s++) {
        const uint8_t *q = b + 2 + 8 * s;
        const uint32_t tail = get_u32(q + 4);
        scale_of(u, 2 * s, tail >> 28), scale_of(u, 2 * s + 1, tail >> 28);
        for (int l = 0; l < 4; l++)
            two_bit_group(u->code + 32 * s + 8 * l, book_iq2_xxs[q[l]], eight_signs(tail >> 7 * l & 127));
    }
}

void unpack_iq2_xs(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b) * 0.125f);
    for (int g = 0; g < 32; g++) {
        const uint32_t q = get_u16(b + 2 + 2 * g);
        scale_of(u, g / 2, b[66 + g / 4] >> 4 * (g / 2 % 2) & 15);
        two_bit_group(u->code + 8 * g, book_iq2_xs[q & 511], eight_signs(q >> 9));
    }
}

void unpack_iq2_s(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b) * 0.125f);
    for (int g = 0; g < 32; g++) {
        const uint32_t index = b[2 + g] | (uint32_t)(b[66 + g / 4] >> 2 * (g % 4) & 3) << 8;
        scale_of(u, g / 2, b[74 + g / 4] >> 4 * (g / 2 % 2) & 15);
        two_bit_group(u->code + 8 * g, book_iq2_s[index], b[34 + g]);
    }
}

void unpack_iq3_xxs(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b) * 0.25f);
    for (int s = 0; s < 8; s++) {
        const uint32_t tail = get_u32(b + 66 + 4 * s);
        scale_of(u, 2 * s, tail >> 28), scale_of(u, 2 * s + 1, tail >> 28);
        for (int m = 0; m < 8; m++) {
            const uint32_t signs = eight_signs(tail >> 7 * (m / 2) & 127) >> 4 * (m % 2);
            three_bit_group(u->code + 32 * s + 4 * m, level3_xxs, book_iq3_xxs[b[2 + 8 * s + m]], signs);
        }
    }
}

void unpack_iq3_s(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b));
    for (int m = 0; m < 64; m++) {
        const uint32_t index = b[2 + m] | (uint32_t)(b[66 + m / 8] >> m % 8 & 1) << 8;
        scale_of(u, m / 4, b[106 + m / 16] >> 4 * (m / 8 % 2) & 15);
        three_bit_group(u->code + 4 * m, level3_s, book_iq3_s[index], (uint32_t)b[74 + m / 2] >> 4 * (m % 2));
    }
}

void unpack_iq1_s(struct quant_block *u, const uint8_t *b)
{
    start(u, get_f16(b) * 0.125f);
    for (int g = 0; g < 32; g++) {
        const uint32_t h = get_u16(b + 34 + 2 * (g / 4));
        scale_of(u, g / 2, h >> 12 & 7);
        ternary_group(u->code + 8 * g, book_iq1[b[2 + g] | (h >> 3 * (g % 4) & 7) << 8], h >> 15 ? -1 : 1);
    }
}

void unpack_iq1_m(struct quant_block *u, const uint8_t *b)
{
    const uint8_t *scales = b + 48;
    const uint32_t half = scales[1] >> 4 | (uint32_t)(scales[3] & 0xF0) | (uint32_t)(scales[5] & 0xF0) << 4 |
                          (uint32_t)(scales[7] & 0xF0) << 8;
    start(u, f16_to_f32((uint16_t)half) * 0.125f);
    for (int g = 0; g < 32; g++) {
        const int pair = g / 2, h = b[32 + pair] >> 4 * (g % 2) & 15; /* a scale serves two groups */
        scale_of(u, pair, get_u16(scales + 2 * (pair / 4)) >> 3 * (pair % 4) & 7);
        ternary_group(u->code + 8 * g, book_iq1[b[g] | (uint32_t)(h & 7) << 8], h & 8 ? -1 : 1);
    }
}
