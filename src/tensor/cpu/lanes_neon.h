/* lanes_neon.h — v16 as four 128-bit registers of AArch64. Included by lanes.h only.
 *
 * Minimum, maximum and selection are compare-and-select, because vminq and vmaxq answer NaN where x86 answers its
 * second operand; everything else NEON rounds as x86 does. */
#include <arm_neon.h>

typedef struct {
    float32x4_t a, b, c, d; /* lanes 0-3, 4-7, 8-11, 12-15 */
} v16;
typedef struct {
    uint32x4_t a, b, c, d; /* all bits of a lane set or clear */
} m16;

#define NEON_1(fn, x) ((v16){ fn((x).a), fn((x).b), fn((x).c), fn((x).d) })
#define NEON_2(fn, x, y) { fn((x).a, (y).a), fn((x).b, (y).b), fn((x).c, (y).c), fn((x).d, (y).d) }
#define NEON_3(fn, x, y, z) \
    ((v16){ fn((x).a, (y).a, (z).a), fn((x).b, (y).b, (z).b), fn((x).c, (y).c, (z).c), fn((x).d, (y).d, (z).d) })

LANES v16 v16_set1(float f) { return (v16){ vdupq_n_f32(f), vdupq_n_f32(f), vdupq_n_f32(f), vdupq_n_f32(f) }; }
LANES v16 v16_zero(void) { return v16_set1(0.0f); }
LANES v16 v16_load(const float *p)
{
    return (v16){ vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) };
}
LANES void v16_store(float *p, v16 v)
{
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
}
/* NEON has no masked loads and stores: the part passes through a whole register's worth of memory. */
LANES v16 v16_load_part(const float *p, int64_t n)
{
    float whole[16] = { 0 };
    memcpy(whole, p, (size_t)n * sizeof *p);
    return v16_load(whole);
}
LANES void v16_store_part(float *p, v16 v, int64_t n)
{
    float whole[16];
    v16_store(whole, v);
    memcpy(p, whole, (size_t)n * sizeof *p);
}
LANES uint32x4_t lanes_quarter(int32_t first, int32x4_t lo, int32x4_t hi)
{
    const int32x4_t lane = vaddq_s32((int32x4_t){ 0, 1, 2, 3 }, vdupq_n_s32(first));
    return vandq_u32(vcgeq_s32(lane, lo), vcltq_s32(lane, hi));
}
LANES m16 v16_lanes(int lo, int hi)
{
    const int32x4_t from = vdupq_n_s32(lo), end = vdupq_n_s32(hi);
    return (m16){ lanes_quarter(0, from, end), lanes_quarter(4, from, end), lanes_quarter(8, from, end),
                  lanes_quarter(12, from, end) };
}

LANES float32x4_t widen_bf16(uint16x4_t h) { return vreinterpretq_f32_u32(vshll_n_u16(h, 16)); }
LANES v16 v16_load_bf16(const uint16_t *p)
{
    return (v16){ widen_bf16(vld1_u16(p)), widen_bf16(vld1_u16(p + 4)), widen_bf16(vld1_u16(p + 8)),
                  widen_bf16(vld1_u16(p + 12)) };
}
LANES float32x4_t widen_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
LANES v16 v16_load_f16(const uint16_t *p)
{
    return (v16){ widen_f16(p), widen_f16(p + 4), widen_f16(p + 8), widen_f16(p + 12) };
}
LANES v16 v16_load_i8(const int8_t *p)
{
    const int8x16_t x = vld1q_s8(p);
    const int16x8_t lo = vmovl_s8(vget_low_s8(x)), hi = vmovl_s8(vget_high_s8(x));
    return (v16){ vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi))) };
}
LANES v16 v16_set1_f16(uint16_t h)
{
    const float32x4_t x = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h)));
    return (v16){ x, x, x, x };
}
LANES void narrow_f16_quarter(uint16_t *p, float32x4_t v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    narrow_f16_quarter(p, v.a);
    narrow_f16_quarter(p + 4, v.b);
    narrow_f16_quarter(p + 8, v.c);
    narrow_f16_quarter(p + 12, v.d);
}

LANES float32x4_t min_quarter(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
LANES float32x4_t max_quarter(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
LANES float32x4_t fma_quarter(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
LANES float32x4_t xor_sign_quarter(float32x4_t v, float32x4_t s)
{
    const uint32x4_t sign = vandq_u32(vreinterpretq_u32_f32(s), vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(v), sign));
}
LANES v16 v16_add(v16 x, v16 y) { return (v16)NEON_2(vaddq_f32, x, y); }
LANES v16 v16_sub(v16 x, v16 y) { return (v16)NEON_2(vsubq_f32, x, y); }
LANES v16 v16_mul(v16 x, v16 y) { return (v16)NEON_2(vmulq_f32, x, y); }
LANES v16 v16_div(v16 x, v16 y) { return (v16)NEON_2(vdivq_f32, x, y); }
LANES v16 v16_min(v16 x, v16 y) { return (v16)NEON_2(min_quarter, x, y); }
LANES v16 v16_max(v16 x, v16 y) { return (v16)NEON_2(max_quarter, x, y); }
LANES v16 v16_xor_sign(v16 x, v16 y) { return (v16)NEON_2(xor_sign_quarter, x, y); }
LANES v16 v16_fma(v16 x, v16 y, v16 z) { return NEON_3(fma_quarter, x, y, z); }
LANES v16 v16_sqrt(v16 x) { return NEON_1(vsqrtq_f32, x); }
LANES v16 v16_abs(v16 x) { return NEON_1(vabsq_f32, x); }

LANES m16 v16_lt(v16 x, v16 y) { return (m16)NEON_2(vcltq_f32, x, y); }
LANES m16 v16_eq(v16 x, v16 y) { return (m16)NEON_2(vceqq_f32, x, y); }
LANES bool m16_all(m16 m) { return vminvq_u32(vandq_u32(vandq_u32(m.a, m.b), vandq_u32(m.c, m.d))) == 0xFFFFFFFFu; }
LANES void v16_store_i8(int8_t *p, v16 v)
{
    const int16x8_t low = vcombine_s16(vmovn_s32(vcvtq_s32_f32(v.a)), vmovn_s32(vcvtq_s32_f32(v.b)));
    const int16x8_t high = vcombine_s16(vmovn_s32(vcvtq_s32_f32(v.c)), vmovn_s32(vcvtq_s32_f32(v.d)));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
LANES v16 v16_select(m16 m, v16 x, v16 y) { return NEON_3(vbslq_f32, m, x, y); }

LANES float32x4_t scale2_quarter(float32x4_t p, float32x4_t z)
{
    const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(z), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), n));
}
LANES v16 v16_scale2(v16 p, v16 z) { return (v16)NEON_2(scale2_quarter, p, z); }
LANES float32x4_t split_quarter(float32x4_t x, float32x4_t *e)
{
    const int32x4_t bits = vreinterpretq_s32_f32(x);
    const int32x4_t n = vshrq_n_s32(vsubq_s32(bits, vdupq_n_s32(0x3F3504F3)), 23);
    *e = vcvtq_f32_s32(n);
    return vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(n, 23)));
}
LANES v16 v16_split(v16 x, v16 *e)
{
    return (v16){ split_quarter(x.a, &e->a), split_quarter(x.b, &e->b), split_quarter(x.c, &e->c),
                  split_quarter(x.d, &e->d) };
}

/* The tree down to four: 8+8, then 4+4. */
LANES float32x4_t fold_quarters(v16 v) { return vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d)); }
LANES float v16_sum(v16 v)
{
    const float32x4_t four = fold_quarters(v);
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
/* 2+2 of two trees: lanes [x x y y]. */
LANES float32x4_t tree_pair(float32x4_t x, float32x4_t y)
{
    const float64x2_t p = vreinterpretq_f64_f32(x), q = vreinterpretq_f64_f32(y);
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(p, q)), vreinterpretq_f32_f64(vzip2q_f64(p, q)));
}
LANES void v16_tree4(float out[4], v16 a, v16 b, v16 c, v16 d)
{
    const float32x4_t ab = tree_pair(fold_quarters(a), fold_quarters(b));
    vst1q_f32(out, vpaddq_f32(ab, tree_pair(fold_quarters(c), fold_quarters(d))));
}
LANES float v16_first(v16 v) { return vgetq_lane_f32(v.a, 0); }
LANES float v16_top(v16 v)
{
    float32x4_t top = max_quarter(max_quarter(v.a, v.c), max_quarter(v.b, v.d));
    top = max_quarter(top, vextq_f32(top, top, 2));
    return vgetq_lane_f32(max_quarter(top, vextq_f32(top, top, 1)), 0);
}
