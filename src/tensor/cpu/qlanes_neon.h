/* qlanes_neon.h — q16 as four 128-bit registers of AArch64, without the dot-product extension. Included by qlanes.h
 * only. */

typedef struct {
    int32x4_t a, b, c, d;
} q16;

#define Q16_NEON(name, instruction)                                                                                    \
    LANES q16 name(q16 x, q16 y)                                                                                       \
    {                                                                                                                  \
        return (q16)NEON_2(instruction, x, y);                                                                         \
    }
#define Q16_NEON_N(name, expression)                                                                                   \
    LANES int32x4_t name##_quarter(int32x4_t v, int n) { return (expression); }                                        \
    LANES q16 name(q16 x, int n)                                                                                       \
    {                                                                                                                  \
        return (q16){ name##_quarter(x.a, n), name##_quarter(x.b, n), name##_quarter(x.c, n),                          \
                      name##_quarter(x.d, n) };                                                                        \
    }
Q16_NEON(q16_and, vandq_s32)
Q16_NEON(q16_or, vorrq_s32)
Q16_NEON(q16_add, vaddq_s32)
Q16_NEON(q16_mul, vmulq_s32)
Q16_NEON_N(q16_shl, vshlq_s32(v, vdupq_n_s32(n)))
Q16_NEON_N(q16_sar, vshlq_s32(v, vdupq_n_s32(-n)))
Q16_NEON_N(q16_shr, vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-n))))

#define NEON_3_Q(fn, x, y, z) \
    { fn((x).a, (y).a, (z).a), fn((x).b, (y).b, (z).b), fn((x).c, (y).c, (z).c), fn((x).d, (y).d, (z).d) }

LANES q16 q16_set1(int32_t i) { return (q16){ vdupq_n_s32(i), vdupq_n_s32(i), vdupq_n_s32(i), vdupq_n_s32(i) }; }
LANES q16 q16_zero(void) { return q16_set1(0); }
LANES q16 q16_load(const void *p)
{
    const int8_t *b = p;
    return (q16){ vreinterpretq_s32_s8(vld1q_s8(b)), vreinterpretq_s32_s8(vld1q_s8(b + 16)),
                  vreinterpretq_s32_s8(vld1q_s8(b + 32)), vreinterpretq_s32_s8(vld1q_s8(b + 48)) };
}
LANES void q16_store(void *p, q16 v)
{
    int8_t *b = p;
    vst1q_s8(b, vreinterpretq_s8_s32(v.a));
    vst1q_s8(b + 16, vreinterpretq_s8_s32(v.b));
    vst1q_s8(b + 32, vreinterpretq_s8_s32(v.c));
    vst1q_s8(b + 48, vreinterpretq_s8_s32(v.d));
}
LANES q16 q16_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return q16_set1(four);
}
LANES int32x4_t table_quarter(const void *t, int32x4_t i)
{
    return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(t), vreinterpretq_u8_s32(i)));
}
LANES q16 q16_table(const void *t, q16 i)
{
    return (q16){ table_quarter(t, i.a), table_quarter(t, i.b), table_quarter(t, i.c), table_quarter(t, i.d) };
}
LANES void quarter_columns(int32x4_t out[4], const uint8_t *p, size_t stride)
{
    const int32x4_t a = vreinterpretq_s32_u8(vld1q_u8(p)), b = vreinterpretq_s32_u8(vld1q_u8(p + stride));
    const int32x4_t c = vreinterpretq_s32_u8(vld1q_u8(p + 2 * stride));
    const int32x4_t d = vreinterpretq_s32_u8(vld1q_u8(p + 3 * stride));
    const int32x4x2_t ab = vzipq_s32(a, b), cd = vzipq_s32(c, d);
    for (int i = 0; i < 2; i++) {
        out[2 * i] = vcombine_s32(vget_low_s32(ab.val[i]), vget_low_s32(cd.val[i]));
        out[2 * i + 1] = vcombine_s32(vget_high_s32(ab.val[i]), vget_high_s32(cd.val[i]));
    }
}
LANES void q16_columns(q16 out[4], const uint8_t *p, size_t stride)
{
    int32x4_t a[4], b[4], c[4], d[4];
    quarter_columns(a, p, stride);
    quarter_columns(b, p + 4 * stride, stride);
    quarter_columns(c, p + 8 * stride, stride);
    quarter_columns(d, p + 12 * stride, stride);
    for (int u = 0; u < 4; u++) out[u] = (q16){ a[u], b[u], c[u], d[u] };
}
LANES v16 q16_float(q16 a) { return NEON_1(vcvtq_f32_s32, a); }

#define WIDE_OFFSET 0
LANES q16 q16_wide(q16 v) { return v; }
/* Bytes with sign throughout: 127 * 127 * 2 and 128 * 127 * 2 fit the int16 of a pair. */
LANES int32x4_t dot4_quarter(int32x4_t s, int32x4_t w, int32x4_t x)
{
    const int8x16_t p = vreinterpretq_s8_s32(w), q = vreinterpretq_s8_s32(x);
    const int16x8_t low = vmull_s8(vget_low_s8(p), vget_low_s8(q)), high = vmull_high_s8(p, q);
    return vpadalq_s16(s, vpaddq_s16(low, high));
}
LANES q16 q16_dot4(q16 s, q16 w, q16 x) { return (q16)NEON_3_Q(dot4_quarter, s, w, x); }
LANES q16 q16_dot4_wide(q16 s, q16 w, q16 x) { return q16_dot4(s, w, x); }
LANES int32x4_t dot2_quarter(int32x4_t s, int32x4_t a, int32x4_t b)
{
    const int16x8_t p = vreinterpretq_s16_s32(a), q = vreinterpretq_s16_s32(b);
    const int32x4_t low = vmull_s16(vget_low_s16(p), vget_low_s16(q)), high = vmull_high_s16(p, q);
    return vaddq_s32(s, vpaddq_s32(low, high));
}
LANES q16 q16_dot2(q16 s, q16 a, q16 b) { return (q16)NEON_3_Q(dot2_quarter, s, a, b); }
