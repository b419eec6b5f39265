/* qlanes_avx512.h — q16 as one 512-bit register, for avx512 and vnni. Included by qlanes.h only. */

typedef __m512i q16;

LANES q16 q16_zero(void) { return _mm512_setzero_si512(); }
LANES q16 q16_set1(int32_t i) { return _mm512_set1_epi32(i); }
LANES q16 q16_load(const void *p) { return _mm512_loadu_si512(p); }
LANES void q16_store(void *p, q16 v) { _mm512_storeu_si512(p, v); }
LANES q16 q16_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
LANES q16 q16_and(q16 a, q16 b) { return _mm512_and_si512(a, b); }
LANES q16 q16_or(q16 a, q16 b) { return _mm512_or_si512(a, b); }
LANES q16 q16_add(q16 a, q16 b) { return _mm512_add_epi32(a, b); }
LANES q16 q16_mul(q16 a, q16 b) { return _mm512_mullo_epi32(a, b); }
LANES q16 q16_shr(q16 a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
LANES q16 q16_shl(q16 a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
LANES q16 q16_sar(q16 a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
LANES q16 q16_table(const void *t, q16 i)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t)), i);
}
LANES q16 rows_of_four(const uint8_t *p, size_t stride)
{
    const __m128i *a = (const __m128i *)p, *b = (const __m128i *)(p + 4 * stride);
    const __m128i *c = (const __m128i *)(p + 8 * stride), *d = (const __m128i *)(p + 12 * stride);
    const __m512i two = _mm512_inserti32x4(_mm512_castsi128_si512(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, _mm_loadu_si128(c), 2), _mm_loadu_si128(d), 3);
}
LANES void q16_columns(q16 out[4], const uint8_t *p, size_t stride)
{
    const q16 a = rows_of_four(p, stride), b = rows_of_four(p + stride, stride);
    const q16 c = rows_of_four(p + 2 * stride, stride), d = rows_of_four(p + 3 * stride, stride);
    const q16 ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    const q16 ab_high = _mm512_unpackhi_epi32(a, b), cd_high = _mm512_unpackhi_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab, cd);
    out[1] = _mm512_unpackhi_epi64(ab, cd);
    out[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
}
LANES v16 q16_float(q16 a) { return _mm512_cvtepi32_ps(a); }

#if defined(ISA_vnni)
#define WIDE_OFFSET 128
LANES q16 q16_dot4(q16 s, q16 w, q16 x) { return _mm512_dpbusd_epi32(s, w, x); }
LANES q16 q16_wide(q16 v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
LANES q16 q16_dot4_wide(q16 s, q16 w, q16 x) { return _mm512_dpbusd_epi32(s, w, x); }
LANES q16 q16_dot2(q16 s, q16 a, q16 b) { return _mm512_dpwssd_epi32(s, a, b); }
#else
#define WIDE_OFFSET 0
LANES q16 q16_dot4(q16 s, q16 w, q16 x)
{
    return _mm512_add_epi32(s, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
}
#define PAIRS
LANES q16 q16_pairs(q16 w, q16 x) { return _mm512_maddubs_epi16(w, x); }
LANES q16 q16_add16(q16 a, q16 b) { return _mm512_add_epi16(a, b); }
LANES q16 q16_add_pairs(q16 s, q16 p)
{
    return _mm512_add_epi32(s, _mm512_madd_epi16(p, _mm512_set1_epi16(1)));
}
LANES void q16_pin(q16 *p) { __asm__("" : "+v"(*p)); }
LANES q16 q16_wide(q16 v) { return v; }
/* |w| and x with the sign of w: 128 * 127 * 2 still fits an int16. */
LANES q16 q16_dot4_wide(q16 s, q16 w, q16 x)
{
    return q16_dot4(s, _mm512_abs_epi8(w), _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), q16_zero(), x));
}
LANES q16 q16_dot2(q16 s, q16 a, q16 b) { return _mm512_add_epi32(s, _mm512_madd_epi16(a, b)); }
#endif
