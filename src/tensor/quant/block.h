/* block.h — inside src/tensor/quant: one unpacker and one encoder a type, and what they share.
 * All decode one block; y [block], b the block's bytes. All encode one row of n values. */
#ifndef COE_TENSOR_QUANT_BLOCK_H
#define COE_TENSOR_QUANT_BLOCK_H

#include "quant.h"
#include "tensor/half.h"

/* One block taken apart, all of it whole numbers but d and dmin:
 *   value i = (d * scale[i / 16]) * code[i] - dmin * min[i / 16]
 * What the products of quantised weights compute with (product.c), and what decoding multiplies out. */
struct quant_block {
    float d, dmin;
    int16_t scale[16], min[16];
    int8_t code[256];
};
/* Fills the first block / 16 scales and mins and the first `block` codes from the block's bytes b. */
typedef void unpack_block_fn(struct quant_block *u, const uint8_t *b);
/* NVFP4, whose four scales are no whole numbers: y [64] */
void decode_nvfp4(float *y, const uint8_t *b);
/* NULL for a type without such blocks */
unpack_block_fn *quant_unpacker(enum dtype t);
/* Encodes one row of n values; w [n] importance or NULL */
typedef void encode_row_fn(uint8_t *dst, const float *x, int64_t n, const float *w);

unpack_block_fn unpack_q1_0, unpack_q2_0, unpack_q4_0, unpack_q4_1, unpack_q5_0, unpack_q5_1, unpack_q8_0, unpack_q8_1;
unpack_block_fn unpack_mxfp4, unpack_tq1_0, unpack_tq2_0, unpack_iq4_nl, unpack_iq4_xs;
unpack_block_fn unpack_q2_k, unpack_q3_k, unpack_q4_k, unpack_q5_k, unpack_q6_k, unpack_q8_k;
unpack_block_fn unpack_iq2_xxs, unpack_iq2_xs, unpack_iq2_s, unpack_iq3_xxs, unpack_iq3_s, unpack_iq1_s, unpack_iq1_m;

encode_row_fn encode_q4_0, encode_q4_1, encode_q5_0, encode_q5_1, encode_q8_0, encode_mxfp4, encode_nvfp4;
encode_row_fn encode_q1_0, encode_q2_0, encode_tq1_0, encode_tq2_0, encode_iq4_nl, encode_iq4_xs;
encode_row_fn encode_q2_k, encode_q3_k, encode_q4_k, encode_q5_k, encode_q6_k;

static inline uint32_t get_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t get_u32(const uint8_t *p) { return get_u16(p) | get_u16(p + 2) << 16; }
static inline float get_f16(const uint8_t *p) { return f16_to_f32((uint16_t)get_u16(p)); }
static inline void put_u16(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}
static inline void put_f16(uint8_t *p, float f) { put_u16(p, f32_to_f16(f)); }

/* The eight 6-bit scales and mins of Q4_K and Q5_K, packed into 12 bytes. */
static inline void kquant_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* Four-bit codes of MXFP4 and NVFP4, twice the value of E2M1. */
extern const int8_t fp4_values[16];
/* Four-bit codes of IQ4_NL and IQ4_XS. */
extern const int8_t iq4_values[16];
/* 2^(e-128): half of an E8M0 scale, since fp4_values are doubled. */
float e8m0_half(uint8_t e);
/* The unsigned E4M3 scale of NVFP4; codes 0 and 127 mean 0. */
float ue4m3(uint8_t b);

#endif
