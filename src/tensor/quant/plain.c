/* plain.c — decoding of the types whose block is a scale (and perhaps a minimum) and a run of codes.
 *
 *     Q4_0   d | 16 bytes      the low nibble of byte j is value j, the high one value j+16
 *     Q5_0   d | 4 | 16 bytes  as Q4_0, the fifth bit of value i is bit i of the 32
 *     Q4_1, Q5_1               the same with a minimum behind d
 *     Q8_0   d | 32 bytes      Q8_1 has the scaled sum of the codes behind d
 *     MXFP4  e | 16 bytes      nibbles as Q4_0, codes of E2M1; NVFP4: 4 scales, 4 times 8 bytes
 *     TQ1_0, TQ2_0             three values a code: five trits a byte, or two bits
 *     Q1_0   d | 16 bytes      one bit a value: +d or -d; Q2_0: two bits, (q - 1) d */
#include <math.h>

#include "block.h"

const int8_t fp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

float e8m0_half(uint8_t e)
{
    if (e < 2) return float_of_bits(0x200000u << e); /* 2^-128 and 2^-127 are subnormal */
    return float_of_bits((uint32_t)(e - 1) << 23);
}

float ue4m3(uint8_t b) { return (b & 127) == 127 ? 0.0f : f8_e4m3_to_f32(b & 127); }

void decode_q4_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

void decode_q4_1(float *y, const uint8_t *b)
{
    const float d = get_f16(b), m = get_f16(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

void decode_q5_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    const uint32_t high = get_u32(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((int)((b[6 + j] & 15) | (high >> j & 1) << 4) - 16);
        y[j + 16] = d * (float)((int)(b[6 + j] >> 4 | (high >> (j + 16) & 1) << 4) - 16);
    }
}

void decode_q5_1(float *y, const uint8_t *b)
{
    const float d = get_f16(b), m = get_f16(b + 2);
    const uint32_t high = get_u32(b + 4);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[8 + j] & 15) | (high >> j & 1) << 4) + m;
        y[j + 16] = d * (float)(b[8 + j] >> 4 | (high >> (j + 16) & 1) << 4) + m;
    }
}

static void decode_bytes(float *y, float d, const uint8_t *q, int n)
{
    for (int i = 0; i < n; i++) y[i] = d * (float)(int8_t)q[i];
}

void decode_q8_0(float *y, const uint8_t *b) { decode_bytes(y, get_f16(b), b + 2, 32); }
void decode_q8_1(float *y, const uint8_t *b) { decode_bytes(y, get_f16(b), b + 4, 32); }

void decode_mxfp4(float *y, const uint8_t *b)
{
    const float d = e8m0_half(b[0]);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)fp4_values[b[1 + j] & 15];
        y[j + 16] = d * (float)fp4_values[b[1 + j] >> 4];
    }
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

void decode_iq4_nl(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)iq4_values[b[2 + j] & 15];
        y[j + 16] = d * (float)iq4_values[b[2 + j] >> 4];
    }
}

/* Trit k of a byte that holds ceil(v * 256 / 243), v = sum of trit_k * 3^(4-k). */
static int trit(uint8_t byte, int k)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    return (uint8_t)(byte * power[k]) * 3 >> 8;
}

void decode_tq1_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b + 52);
    for (int i = 0; i < 160; i++) y[i] = d * (float)(trit(b[i % 32], i / 32) - 1);
    for (int i = 0; i < 80; i++) y[160 + i] = d * (float)(trit(b[32 + i % 16], i / 16) - 1);
    for (int i = 0; i < 16; i++) y[240 + i] = d * (float)(trit(b[48 + i % 4], i / 4) - 1);
}

void decode_tq2_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b + 64);
    for (int i = 0; i < 256; i++) y[i] = d * (float)((b[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
}

void decode_q1_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    for (int i = 0; i < 128; i++) y[i] = b[2 + i / 8] >> i % 8 & 1 ? d : -d;
}

void decode_q2_0(float *y, const uint8_t *b)
{
    const float d = get_f16(b);
    for (int i = 0; i < 64; i++) y[i] = d * (float)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
}
