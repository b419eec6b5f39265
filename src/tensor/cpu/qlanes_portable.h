/* qlanes_portable.h — q16 as an array: the definition of every operation. Included by qlanes.h only. */

typedef struct {
    int32_t i[16];
} q16;

#define Q16_MAP(name, expression)                                                                                      \
    LANES q16 name(q16 a, q16 b)                                                                                       \
    {                                                                                                                  \
        LANE a.i[l] = (int32_t)(expression);                                                                           \
        return a;                                                                                                      \
    }
#define Q16_MAP_N(name, expression)                                                                                    \
    LANES q16 name(q16 a, int n)                                                                                       \
    {                                                                                                                  \
        LANE a.i[l] = (int32_t)(expression);                                                                           \
        return a;                                                                                                      \
    }
Q16_MAP(q16_and, a.i[l] & b.i[l])
Q16_MAP(q16_or, a.i[l] | b.i[l])
Q16_MAP(q16_add, (uint32_t)a.i[l] + (uint32_t)b.i[l])
Q16_MAP(q16_mul, (uint32_t)a.i[l] * (uint32_t)b.i[l])
Q16_MAP_N(q16_shr, (uint32_t)a.i[l] >> n)
Q16_MAP_N(q16_shl, (uint32_t)a.i[l] << n)
Q16_MAP_N(q16_sar, a.i[l] >> n)

LANES q16 q16_set1(int32_t i)
{
    q16 v;
    LANE v.i[l] = i;
    return v;
}
LANES q16 q16_zero(void) { return q16_set1(0); }
LANES q16 q16_load(const void *p)
{
    q16 v;
    memcpy(v.i, p, sizeof v.i);
    return v;
}
LANES void q16_store(void *p, q16 v) { memcpy(p, v.i, sizeof v.i); }
LANES q16 q16_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return q16_set1(four);
}
LANES q16 q16_table(const void *t, q16 i)
{
    const uint8_t *table = t;
    uint8_t b[64];
    q16_store(b, i);
    for (int j = 0; j < 64; j++) b[j] = table[b[j]];
    return q16_load(b);
}
LANES void q16_columns(q16 out[4], const uint8_t *p, size_t stride)
{
    for (int u = 0; u < 4; u++)
        LANE memcpy(&out[u].i[l], p + (size_t)l * stride + 4 * u, 4);
}
LANES v16 q16_float(q16 a)
{
    v16 v;
    LANE v.f[l] = (float)a.i[l];
    return v;
}

#define WIDE_OFFSET 0
LANES q16 q16_wide(q16 v) { return v; }
LANES q16 q16_dot4_wide(q16 s, q16 w, q16 x)
{
    int8_t a[64], b[64];
    q16_store(a, w);
    q16_store(b, x);
    LANE for (int e = 4 * l; e < 4 * l + 4; e++) s.i[l] += a[e] * b[e];
    return s;
}
LANES q16 q16_dot4(q16 s, q16 w, q16 x) { return q16_dot4_wide(s, w, x); }
LANES q16 q16_dot2(q16 s, q16 a, q16 b)
{
    int16_t p[32], q[32];
    q16_store(p, a);
    q16_store(q, b);
    LANE s.i[l] += p[2 * l] * q[2 * l] + p[2 * l + 1] * q[2 * l + 1];
    return s;
}
