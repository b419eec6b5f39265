/* half.h — sixteen- and eight-bit floats to and from float, one element at a time: the definition the vector
 * instructions agree with. */
#ifndef COE_TENSOR_HALF_H
#define COE_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

/* Nearest even; a NaN stays one (quiet, top bits of its payload). */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u = bits_of_float(f);
    uint32_t rounded = (u + 0x7FFFu + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40u;
    return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3FFu;
    if (e == 0) { /* m * 2^-24, exact in float */
        float f = (float)m * 0x1p-24f;
        return float_of_bits(bits_of_float(f) | sign);
    }
    if (e == 31) return float_of_bits(sign | 0x7F800000u | m << 13 | (m ? 0x400000u : 0));
    return float_of_bits(sign | (e + 112u) << 23 | m << 13);
}

/* Nearest even, overflow to infinity, subnormals kept. */
static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = bits_of_float(f), sign = u >> 16 & 0x8000u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (u >> 13 & 0x3FFu));
    if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and above round to infinity */
    if (u < 0x38800000u) {
        /* adding 0.5 leaves the subnormal's ten bits, rounded to nearest even, at the bottom of the sum */
        float sum = float_of_bits(u) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(sum) - 0x3F000000u));
    }
    u += 0xFFFu + (u >> 13 & 1); /* round; a carry runs into the exponent as it should */
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}

/* Four exponent bits, bias 7, three bits of mantissa, no infinities, 0x7F and 0xFF are NaN (E4M3FN). */
static inline float f8_e4m3_to_f32(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80u) << 24, e = b >> 3 & 15u, m = b & 7u;
    if (e == 15 && m == 7) return float_of_bits(sign | 0x7FC00000u);
    if (e == 0) return float_of_bits(bits_of_float((float)m * 0x1p-9f) | sign);
    return float_of_bits(sign | (e + 120u) << 23 | m << 20);
}

/* A power of two, 2^(b - 127); 255 is NaN. */
static inline float f8_e8m0_to_f32(uint8_t b)
{
    if (b == 255) return float_of_bits(0x7FC00000u);
    return float_of_bits(b ? (uint32_t)b << 23 : 0x400000u); /* 2^-127 is subnormal */
}

#endif
