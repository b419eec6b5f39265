/* tree_x86.h — the last three levels of the sum tree in 256-bit registers, shared by avx2 and avx512. Included by their
 * lanes files after v16_fold. */

LANES float v16_sum(v16 v)
{
    __m256 a = v16_fold(v);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* [a 4+4 | b 4+4]. The blend keeps each half where it is, so one shuffle is enough: a + b = b + a. */
LANES __m256 tree_pair(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xF0), _mm256_permute2f128_ps(a, b, 0x21));
}

LANES void v16_tree4(float out[4], v16 a, v16 b, v16 c, v16 d)
{
    __m256 ac = tree_pair(v16_fold(a), v16_fold(c)), bd = tree_pair(v16_fold(b), v16_fold(d));
    /* 2+2: lanes [a a b b | c c d d], then 1+1: [a . b . | c . d .] */
    __m256 twos = _mm256_add_ps(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xEE));
    __m256 ones = _mm256_add_ps(twos, _mm256_movehdup_ps(twos));
    __m128 low = _mm256_castps256_ps128(ones), high = _mm256_extractf128_ps(ones, 1);
    _mm_storeu_ps(out, _mm_shuffle_ps(low, high, 0x88));
}
