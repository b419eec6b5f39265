/* block.h — inside src/tensor/quant: one decoder and one encoder a type, and what they share.
 *
 * All decode one block; y [block], b the block's bytes. All encode one row of n values. */
#ifndef COE_TENSOR_QUANT_BLOCK_H
#define COE_TENSOR_QUANT_BLOCK_H

#include "quant.h"
#include "tensor/half.h"

typedef void decode_block_fn(float *y, const uint8_t *b);
/* w [n] importance or NULL */
typedef void encode_row_fn(uint8_t *dst, const float *x, int64_t n, const float *w);

decode_block_fn decode_q1_0, decode_q2_0, decode_q4_0, decode_q4_1, decode_q5_0, decode_q5_1, decode_q8_0, decode_q8_1;
decode_block_fn decode_mxfp4, decode_nvfp4, decode_tq1_0, decode_tq2_0, decode_iq4_nl, decode_iq4_xs;
decode_block_fn decode_q2_k, decode_q3_k, decode_q4_k, decode_q5_k, decode_q6_k, decode_q8_k;
decode_block_fn decode_iq2_xxs, decode_iq2_xs, decode_iq2_s, decode_iq3_xxs, decode_iq3_s, decode_iq1_s, decode_iq1_m;

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
