/* plain.c — unpacking of the types whose block is a scale (and perhaps a minimum) and a run of codes.
 *
 *     Q4_0   d | 16 bytes      the low nibble of byte j is value j, the high one value j+16
 *     Q5_0   d | 4 | 16 bytes  as Q4_0, the fifth bit of value i is bit i of the 32
 *     Q4_1, Q5_1               the same with a minimum behind d
 *     Q8_0   d | 32 bytes      Q8_1 has the scaled sum of the codes behind d
 *     MXFP4  e | 16 bytes      nibbles as Q4_0, codes of E2M1; NVFP4: 4 scales, 4 times 8 bytes
 *     TQ1_0, TQ2_0             three values a code: five trits a byte, or two bits
 *     Q1_0   d | 16 bytes      one bit a value: +d or -d; Q2_0: two bits, (q - 1) d */
#include <string.h>

#include "block.h"

const int8_t fp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

float e8m0_half(uint8_t e)
{
    if (e < 2) return float_of_bits(0x200000u << e); /* 2^-128 and 2^-127 are subnormal */
    return float_of_bits((uint32_t)(e - 1) << 23);
}

float ue4m3(uint8_t b) { return (b & 127) == 127 ? 0.0f : f8_e4m3_to_f32(b & 127); }

/* The first n / 16 sub-blocks share one scale and have no minimum. */
static void plain_scales(struct quant_block *u, float d, int n)
{
    u->d = d;
    u->dmin = 0;
    for (int s = 0; s < n / 16; s++) u->scale[s] = 1, u->min[s] = 0;
}

/* d and a minimum m of all 32 values: value = d * code - (-m) * 1 */
static void with_minimum(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    u->dmin = -get_f16(b + 2);
    u->min[0] = u->min[1] = 1;
}

/* Sixteen bytes of nibbles, less `zero`: the low ones are the first half. */
static void nibbles(int8_t *code, const uint8_t *q, int zero)
{
    for (int j = 0; j < 16; j++) {
        code[j] = (int8_t)((q[j] & 15) - zero);
        code[j + 16] = (int8_t)((q[j] >> 4) - zero);
    }
}

/* The same through a table of values */
static void nibble_values(int8_t *code, const uint8_t *q, const int8_t *values)
{
    for (int j = 0; j < 16; j++) {
        code[j] = values[q[j] & 15];
        code[j + 16] = values[q[j] >> 4];
    }
}

static void fifth_bits(int8_t *code, uint32_t high)
{
    for (int i = 0; i < 32; i++) code[i] = (int8_t)(code[i] + (int)(high >> i & 1) * 16);
}

void unpack_q4_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    nibbles(u->code, b + 2, 8);
}

void unpack_q4_1(struct quant_block *u, const uint8_t *b)
{
    with_minimum(u, b);
    nibbles(u->code, b + 4, 0);
}

void unpack_q5_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    nibbles(u->code, b + 6, 16);
    fifth_bits(u->code, get_u32(b + 2));
}

void unpack_q5_1(struct quant_block *u, const uint8_t *b)
{
    with_minimum(u, b);
    nibbles(u->code, b + 8, 0);
    fifth_bits(u->code, get_u32(b + 4));
}

void unpack_q8_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    memcpy(u->code, b + 2, 32);
}

void unpack_q8_1(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    memcpy(u->code, b + 4, 32);
}

void unpack_mxfp4(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, e8m0_half(b[0]), 32);
    nibble_values(u->code, b + 1, fp4_values);
}

static int nibble(const uint8_t *b, int i) { return b[i / 2] >> 4 * (i % 2) & 15; }

void mxfp4_from_pairs(void *dst, const void *blocks, const void *scales, int64_t n)
{
    const uint8_t *q = blocks, *e = scales;
    uint8_t *b = dst;
    for (int64_t i = 0; i < n; i += 32, q += 16, b += 17) {
        b[0] = *e++;
        for (int j = 0; j < 16; j++) b[1 + j] = (uint8_t)(nibble(q, j) | nibble(q, j + 16) << 4);
    }
}

void mxfp4_to_pairs(void *blocks, void *scales, const void *src, int64_t n)
{
    const uint8_t *b = src;
    uint8_t *q = blocks, *e = scales;
    for (int64_t i = 0; i < n; i += 32, q += 16, b += 17) {
        *e++ = b[0];
        for (int j = 0; j < 16; j++) {
            /* values 2j and 2j + 1: both in the low nibbles for j < 8, both in the high ones after */
            const uint8_t *pair = b + 1 + 2 * (j % 8);
            const int shift = 4 * (j / 8);
            q[j] = (uint8_t)((pair[0] >> shift & 15) | (pair[1] >> shift & 15) << 4);
        }
    }
}

void decode_nvfp4(float *y, const uint8_t *b)
{
    for (int s = 0; s < 4; s++) {
        const float d = 0.5f * ue4m3(b[s]);
        const uint8_t *q = b + 4 + 8 * s;
        for (int j = 0; j < 8; j++) {
            y[16 * s + j] = d * (float)fp4_values[q[j] & 15];
            y[16 * s + j + 8] = d * (float)fp4_values[q[j] >> 4];
        }
    }
}

void unpack_iq4_nl(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 32);
    nibble_values(u->code, b + 2, iq4_values);
}

/* Trit k of a byte that holds ceil(v * 256 / 243), v = sum of trit_k * 3^(4-k). */
static int trit(uint8_t byte, int k)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    return (uint8_t)(byte * power[k]) * 3 >> 8;
}

void unpack_tq1_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b + 52), 256);
    for (int i = 0; i < 160; i++) u->code[i] = (int8_t)(trit(b[i % 32], i / 32) - 1);
    for (int i = 0; i < 80; i++) u->code[160 + i] = (int8_t)(trit(b[32 + i % 16], i / 16) - 1);
    for (int i = 0; i < 16; i++) u->code[240 + i] = (int8_t)(trit(b[48 + i % 4], i / 4) - 1);
}

void unpack_tq2_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b + 64), 256);
    for (int i = 0; i < 256; i++) u->code[i] = (int8_t)((b[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
}

void unpack_q1_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 128);
    for (int i = 0; i < 128; i++) u->code[i] = b[2 + i / 8] >> i % 8 & 1 ? 1 : -1;
}

void unpack_q2_0(struct quant_block *u, const uint8_t *b)
{
    plain_scales(u, get_f16(b), 64);
    for (int i = 0; i < 64; i++) u->code[i] = (int8_t)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
}
