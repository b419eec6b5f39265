/* lanes_portable.h — v16 as an array: the definition of every operation. Included by lanes.h only. */

typedef struct {
    float f[16];
} v16;
typedef struct {
    uint32_t b[16]; /* all bits or none */
} m16;

#define LANE for (int l = 0; l < 16; l++)
#define LANE_MAP(name, expression)                                                                                     \
    LANES v16 name(v16 a, v16 b)                                                                                       \
    {                                                                                                                  \
        LANE a.f[l] = (expression);                                                                                    \
        return a;                                                                                                      \
    }
#define LANE_TEST(name, expression)                                                                                    \
    LANES m16 name(v16 a, v16 b)                                                                                       \
    {                                                                                                                  \
        m16 m;                                                                                                         \
        LANE m.b[l] = (expression) ? 0xFFFFFFFFu : 0;                                                                  \
        return m;                                                                                                      \
    }

LANE_MAP(v16_add, a.f[l] + b.f[l])
LANE_MAP(v16_sub, a.f[l] - b.f[l])
LANE_MAP(v16_mul, a.f[l] * b.f[l])
LANE_MAP(v16_div, a.f[l] / b.f[l])
LANE_MAP(v16_min, a.f[l] < b.f[l] ? a.f[l] : b.f[l])
LANE_MAP(v16_max, a.f[l] > b.f[l] ? a.f[l] : b.f[l])
LANE_MAP(v16_xor_sign, float_of_bits(bits_of_float(a.f[l]) ^ (bits_of_float(b.f[l]) & 0x80000000u)))
LANE_TEST(v16_lt, a.f[l] < b.f[l])
LANE_TEST(v16_eq, a.f[l] == b.f[l])

LANES v16 v16_set1(float f)
{
    v16 v;
    LANE v.f[l] = f;
    return v;
}
LANES v16 v16_zero(void) { return v16_set1(0.0f); }
LANES v16 v16_load(const float *p)
{
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES void v16_store(float *p, v16 v) { memcpy(p, &v, sizeof v); }
LANES v16 v16_load_part(const float *p, int64_t n)
{
    v16 v = v16_zero();
    for (int l = 0; l < n; l++) v.f[l] = p[l];
    return v;
}
LANES void v16_store_part(float *p, v16 v, int64_t n)
{
    for (int l = 0; l < n; l++) p[l] = v.f[l];
}
LANES m16 v16_lanes(int lo, int hi)
{
    m16 m;
    LANE m.b[l] = l >= lo && l < hi ? 0xFFFFFFFFu : 0;
    return m;
}
LANES v16 v16_load_bf16(const uint16_t *p)
{
    uint16_t h[16];
    v16 v;
    memcpy(h, p, sizeof h);
    LANE v.f[l] = bf16_to_f32(h[l]);
    return v;
}
LANES v16 v16_load_f16(const uint16_t *p)
{
    uint16_t h[16];
    v16 v;
    memcpy(h, p, sizeof h);
    LANE v.f[l] = f16_to_f32(h[l]);
    return v;
}
LANES v16 v16_load_i8(const int8_t *p)
{
    v16 v;
    LANE v.f[l] = (float)p[l];
    return v;
}
LANES v16 v16_set1_f16(uint16_t h) { return v16_set1(f16_to_f32(h)); }
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    uint16_t h[16];
    LANE h[l] = f32_to_f16(v.f[l]);
    memcpy(p, h, sizeof h);
}
LANES v16 v16_fma(v16 a, v16 b, v16 c)
{
    LANE c.f[l] = fmaf(a.f[l], b.f[l], c.f[l]);
    return c;
}
LANES v16 v16_sqrt(v16 a)
{
    LANE a.f[l] = sqrtf(a.f[l]);
    return a;
}
LANES v16 v16_abs(v16 a)
{
    LANE a.f[l] = float_of_bits(bits_of_float(a.f[l]) & 0x7FFFFFFFu);
    return a;
}
LANES bool m16_all(m16 m)
{
    uint32_t all = 0xFFFFFFFFu;
    LANE all &= m.b[l];
    return all == 0xFFFFFFFFu;
}
LANES void v16_store_i8(int8_t *p, v16 v) { LANE p[l] = (int8_t)v.f[l]; }
LANES v16 v16_select(m16 m, v16 a, v16 b)
{
    LANE a.f[l] = float_of_bits((bits_of_float(a.f[l]) & m.b[l]) | (bits_of_float(b.f[l]) & ~m.b[l]));
    return a;
}
LANES v16 v16_scale2(v16 p, v16 z)
{
    LANE p.f[l] = float_of_bits(bits_of_float(p.f[l]) + (bits_of_float(z.f[l]) << 23));
    return p;
}
LANES v16 v16_split(v16 x, v16 *e)
{
    LANE
    {
        uint32_t bits = bits_of_float(x.f[l]);
        int32_t n = (int32_t)(bits - 0x3F3504F3u) >> 23;
        e->f[l] = (float)n;
        x.f[l] = float_of_bits(bits - ((uint32_t)n << 23));
    }
    return x;
}
LANES float v16_sum(v16 v)
{
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) v.f[l] += v.f[l + half];
    return v.f[0];
}
LANES void v16_tree4(float out[4], v16 a, v16 b, v16 c, v16 d)
{
    out[0] = v16_sum(a);
    out[1] = v16_sum(b);
    out[2] = v16_sum(c);
    out[3] = v16_sum(d);
}
LANES float v16_first(v16 v) { return v.f[0]; }
LANES float v16_top(v16 v)
{
    float top = v.f[0];
    for (int l = 1; l < 16; l++) top = v.f[l] > top ? v.f[l] : top;
    return top;
}
