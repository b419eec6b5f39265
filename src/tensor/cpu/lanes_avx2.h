/* lanes_avx2.h — v16 as two 256-bit registers. Included by lanes.h only. */
#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} v16;
typedef v16 m16; /* all bits of a lane set or clear */

#define EACH(expression_lo, expression_hi) ((v16){ (expression_lo), (expression_hi) })

LANES v16 v16_zero(void) { return EACH(_mm256_setzero_ps(), _mm256_setzero_ps()); }
LANES v16 v16_set1(float f) { return EACH(_mm256_set1_ps(f), _mm256_set1_ps(f)); }
LANES v16 v16_load(const float *p) { return EACH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
LANES void v16_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}
LANES m16 v16_lanes(int lo, int hi)
{
    __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), second = _mm256_add_epi32(first, _mm256_set1_epi32(8));
    __m256i below = _mm256_set1_epi32(lo - 1), end = _mm256_set1_epi32(hi);
    return EACH(
        _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(first, below), _mm256_cmpgt_epi32(end, first))),
        _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(second, below), _mm256_cmpgt_epi32(end, second))));
}
LANES v16 v16_load_part(const float *p, int64_t n)
{
    m16 m = v16_lanes(0, (int)n);
    /* the second half may lie behind the end of memory: its address is formed only when something is read there */
    __m256 hi = n > 8 ? _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi)) : _mm256_setzero_ps();
    return EACH(_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)), hi);
}
LANES void v16_store_part(float *p, v16 v, int64_t n)
{
    m16 m = v16_lanes(0, (int)n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), v.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), v.hi);
}

LANES __m256 widen_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
LANES v16 v16_load_bf16(const uint16_t *p) { return EACH(widen_bf16(p), widen_bf16(p + 8)); }
LANES v16 v16_load_f16(const uint16_t *p)
{
    return EACH(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8))));
}
LANES __m256 widen_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
LANES v16 v16_load_i8(const int8_t *p) { return EACH(widen_i8(p), widen_i8(p + 8)); }
LANES v16 v16_set1_f16(uint16_t h)
{
    const __m256 x = _mm256_cvtph_ps(_mm_set1_epi16((short)h));
    return EACH(x, x);
}
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

LANES v16 v16_add(v16 a, v16 b) { return EACH(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
LANES v16 v16_sub(v16 a, v16 b) { return EACH(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
LANES v16 v16_mul(v16 a, v16 b) { return EACH(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
LANES v16 v16_div(v16 a, v16 b) { return EACH(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
LANES v16 v16_min(v16 a, v16 b) { return EACH(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
LANES v16 v16_max(v16 a, v16 b) { return EACH(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
LANES v16 v16_fma(v16 a, v16 b, v16 c)
{
    return EACH(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
LANES v16 v16_sqrt(v16 a) { return EACH(_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)); }
LANES v16 v16_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return EACH(_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi));
}
LANES v16 v16_xor_sign(v16 v, v16 s)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return EACH(_mm256_xor_ps(v.lo, _mm256_and_ps(s.lo, sign)), _mm256_xor_ps(v.hi, _mm256_and_ps(s.hi, sign)));
}

LANES m16 v16_lt(v16 a, v16 b)
{
    return EACH(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ));
}
LANES m16 v16_eq(v16 a, v16 b)
{
    return EACH(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
}
LANES bool m16_all(m16 m) { return (_mm256_movemask_ps(m.lo) & _mm256_movemask_ps(m.hi)) == 0xFF; }
LANES void v16_store_i8(int8_t *p, v16 v)
{
    const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
    const __m256i half = _mm256_permute4x64_epi64(pairs, 0xD8); /* the pack goes by halves of registers */
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
LANES v16 v16_select(m16 m, v16 a, v16 b)
{
    return EACH(_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi));
}

LANES __m256 scale2_half(__m256 p, __m256 z)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(z), 23)));
}
LANES v16 v16_scale2(v16 p, v16 z) { return EACH(scale2_half(p.lo, z.lo), scale2_half(p.hi, z.hi)); }
LANES __m256 split_half(__m256 x, __m256 *e)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i n = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3F3504F3)), 23);
    *e = _mm256_cvtepi32_ps(n);
    return _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(n, 23)));
}
LANES v16 v16_split(v16 x, v16 *e)
{
    v16 m;
    m.lo = split_half(x.lo, &e->lo);
    m.hi = split_half(x.hi, &e->hi);
    return m;
}

/* 8+8: from here on both vector levels share the 256-bit code. */
LANES __m256 v16_fold(v16 v) { return _mm256_add_ps(v.lo, v.hi); }
LANES float v16_first(v16 v) { return _mm256_cvtss_f32(v.lo); }
LANES float v16_top(v16 v)
{
    __m256 a = _mm256_max_ps(v.lo, v.hi);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#include "tensor/cpu/tree_x86.h"
