/* qlanes_avx2.h — q16 as two 256-bit registers. Included by qlanes.h only. */

typedef struct {
    __m256i lo, hi;
} q16;

#define EACH_Q(expression_lo, expression_hi) ((q16){ (expression_lo), (expression_hi) })
#define Q16_BOTH(name, instruction)                                                                                    \
    LANES q16 name(q16 a, q16 b) { return EACH_Q(instruction(a.lo, b.lo), instruction(a.hi, b.hi)); }
#define Q16_SHIFT(name, instruction)                                                                                   \
    LANES q16 name(q16 a, int n) { return EACH_Q(instruction(a.lo, n), instruction(a.hi, n)); }

LANES q16 q16_zero(void) { return EACH_Q(_mm256_setzero_si256(), _mm256_setzero_si256()); }
LANES q16 q16_set1(int32_t i) { return EACH_Q(_mm256_set1_epi32(i), _mm256_set1_epi32(i)); }
LANES q16 q16_load(const void *p)
{
    const __m256i *v = p;
    return EACH_Q(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1));
}
LANES void q16_store(void *p, q16 a)
{
    __m256i *v = p;
    _mm256_storeu_si256(v, a.lo);
    _mm256_storeu_si256(v + 1, a.hi);
}
LANES q16 q16_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return q16_set1(four);
}
Q16_BOTH(q16_and, _mm256_and_si256)
Q16_BOTH(q16_or, _mm256_or_si256)
Q16_BOTH(q16_add, _mm256_add_epi32)
Q16_BOTH(q16_mul, _mm256_mullo_epi32)
Q16_SHIFT(q16_shr, _mm256_srli_epi32)
Q16_SHIFT(q16_shl, _mm256_slli_epi32)
Q16_SHIFT(q16_sar, _mm256_srai_epi32)
LANES q16 q16_table(const void *t, q16 i)
{
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t));
    return EACH_Q(_mm256_shuffle_epi8(table, i.lo), _mm256_shuffle_epi8(table, i.hi));
}
LANES __m256i two_rows(const uint8_t *p, size_t stride)
{
    const __m128i *a = (const __m128i *)p, *b = (const __m128i *)(p + 4 * stride);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
}
LANES void half_columns(__m256i out[4], const uint8_t *p, size_t stride)
{
    const __m256i a = two_rows(p, stride), b = two_rows(p + stride, stride);
    const __m256i c = two_rows(p + 2 * stride, stride), d = two_rows(p + 3 * stride, stride);
    const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    const __m256i ab_high = _mm256_unpackhi_epi32(a, b), cd_high = _mm256_unpackhi_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab, cd);
    out[1] = _mm256_unpackhi_epi64(ab, cd);
    out[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
}
LANES void q16_columns(q16 out[4], const uint8_t *p, size_t stride)
{
    __m256i low[4], high[4];
    half_columns(low, p, stride);
    half_columns(high, p + 8 * stride, stride);
    UNROLL(4) for (int u = 0; u < 4; u++) out[u] = EACH_Q(low[u], high[u]);
}
LANES v16 q16_float(q16 a) { return EACH(_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)); }

#define WIDE_OFFSET 0
LANES __m256i dot4_half(__m256i s, __m256i w, __m256i x)
{
    return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
LANES q16 q16_dot4(q16 s, q16 w, q16 x)
{
    return EACH_Q(dot4_half(s.lo, w.lo, x.lo), dot4_half(s.hi, w.hi, x.hi));
}
#define PAIRS
Q16_BOTH(q16_pairs, _mm256_maddubs_epi16)
Q16_BOTH(q16_add16, _mm256_add_epi16)
LANES q16 q16_add_pairs(q16 s, q16 p)
{
    const __m256i one = _mm256_set1_epi16(1);
    return EACH_Q(_mm256_add_epi32(s.lo, _mm256_madd_epi16(p.lo, one)),
                  _mm256_add_epi32(s.hi, _mm256_madd_epi16(p.hi, one)));
}
LANES void q16_pin(q16 *p) { __asm__("" : "+x"(p->lo), "+x"(p->hi)); }
LANES q16 q16_wide(q16 v) { return v; }
/* |w| and x with the sign of w: 128 * 127 * 2 still fits an int16. */
LANES q16 q16_dot4_wide(q16 s, q16 w, q16 x)
{
    return EACH_Q(dot4_half(s.lo, _mm256_abs_epi8(w.lo), _mm256_sign_epi8(x.lo, w.lo)),
                  dot4_half(s.hi, _mm256_abs_epi8(w.hi), _mm256_sign_epi8(x.hi, w.hi)));
}
LANES q16 q16_dot2(q16 s, q16 a, q16 b)
{
    return EACH_Q(_mm256_add_epi32(s.lo, _mm256_madd_epi16(a.lo, b.lo)),
                  _mm256_add_epi32(s.hi, _mm256_madd_epi16(a.hi, b.hi)));
}
