/* lanes_avx512.h — v16 as one 512-bit register. Included by lanes.h only. */
#include <immintrin.h>

typedef __m512 v16;
typedef __mmask16 m16;

LANES v16 v16_zero(void) { return _mm512_setzero_ps(); }
LANES v16 v16_set1(float f) { return _mm512_set1_ps(f); }
LANES v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
LANES void v16_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
LANES m16 v16_lanes(int lo, int hi) { return (m16)(((1u << hi) - 1u) & ~((1u << lo) - 1u)); }
LANES v16 v16_load_part(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(v16_lanes(0, (int)n), p); }
LANES void v16_store_part(float *p, v16 v, int64_t n) { _mm512_mask_storeu_ps(p, v16_lanes(0, (int)n), v); }

LANES v16 v16_load_bf16(const uint16_t *p)
{
    /* every half goes to the upper half of its lane in one step */
    static const uint16_t upper[32] = { 0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                        0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15 };
    const __m512i half = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, _mm512_loadu_si512(upper), half));
}
LANES v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
LANES v16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
LANES v16 v16_set1_f16(uint16_t h) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)h)); }
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

LANES v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
LANES v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
LANES v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
LANES v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
LANES v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
LANES v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
LANES v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
LANES v16 v16_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
LANES v16 v16_abs(v16 a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
LANES v16 v16_xor_sign(v16 v, v16 s) { return _mm512_xor_ps(v, _mm512_and_ps(s, _mm512_set1_ps(-0.0f))); }

LANES m16 v16_lt(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LANES m16 v16_eq(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
LANES bool m16_all(m16 m) { return m == 0xFFFF; }
LANES void v16_store_i8(int8_t *p, v16 v)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
LANES v16 v16_select(m16 m, v16 a, v16 b) { return _mm512_mask_blend_ps(m, b, a); }

LANES v16 v16_scale2(v16 p, v16 z)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(z), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
}
LANES v16 v16_split(v16 x, v16 *e)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i n = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3F3504F3)), 23);
    *e = _mm512_cvtepi32_ps(n);
    return _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(n, 23)));
}

/* 8+8: from here on both vector levels share the 256-bit code. */
LANES __m256 v16_fold(v16 v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }
LANES float v16_first(v16 v) { return _mm512_cvtss_f32(v); }
LANES float v16_top(v16 v) { return _mm512_reduce_max_ps(v); }

#include "tensor/cpu/tree_x86.h"
