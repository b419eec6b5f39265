/* act.c — activations of feed-forward networks, u = a(gate) b(up), and their derivatives. */
#include "tensor/cpu/fmath.h"

#define GELU_K 0.797884561f  /* sqrt(2/pi) */
#define GELU_C 0.044715f
#define CLAMP_LIMIT 7.0f     /* gpt-oss */
#define CLAMP_ALPHA 1.702f

LANES v16 relu(v16 x) { return v16_select(v16_lt(x, v16_zero()), v16_zero(), x); /* keeps NaN */ }

/* tanh(k (x + c x^3)) */
LANES v16 gelu_tanh_inner(v16 x)
{
    v16 cube = v16_mul(v16_mul(x, x), v16_mul(x, v16_set1(GELU_C)));
    return v16_tanh(v16_mul(v16_set1(GELU_K), v16_add(x, cube)));
}

/* a(x) and, when `slope` is given, a'(x). `a` is a constant where this is inlined; `most` is the limit of the clamped
 * one. */
LANES v16 activate(enum activation a, float most, v16 x, v16 *slope)
{
    const v16 one = v16_set1(1.0f), half = v16_set1(0.5f);
    switch (a) {
    case ACT_SILU: {
        v16 s = v16_sigmoid(x), y = v16_mul(x, s);
        if (slope) *slope = v16_fma(y, v16_sub(one, s), s); /* s + x s (1-s) */
        return y;
    }
    case ACT_GELU: {
        v16 density, phi = normal_cdf(x, &density);
        if (slope) *slope = v16_fma(x, density, phi);
        return v16_mul(x, phi);
    }
    case ACT_GELU_TANH: {
        v16 t = gelu_tanh_inner(x), h = v16_mul(half, v16_add(one, t));
        if (slope) {
            v16 inner = v16_mul(v16_set1(GELU_K), v16_fma(v16_mul(x, x), v16_set1(3.0f * GELU_C), one));
            v16 sech2 = v16_sub(one, v16_mul(t, t));
            *slope = v16_fma(v16_mul(v16_mul(half, x), sech2), inner, h);
        }
        return v16_mul(x, h);
    }
    case ACT_RELU:
        if (slope) *slope = v16_select(v16_lt(v16_zero(), x), one, v16_zero());
        return relu(x);
    case ACT_RELU2: {
        v16 y = relu(x);
        if (slope) *slope = v16_add(y, y);
        return v16_mul(y, y);
    }
    default: {
        const v16 limit = v16_set1(most), alpha = v16_set1(CLAMP_ALPHA);
        v16 c = v16_select(v16_lt(limit, x), limit, x), s = v16_sigmoid(v16_mul(alpha, c)), y = v16_mul(c, s);
        if (slope) {
            v16 d = v16_fma(v16_mul(alpha, y), v16_sub(one, s), s);
            *slope = v16_select(v16_lt(limit, x), v16_zero(), d);
        }
        return y;
    }
    }
}

/* b(y) and b'(y) */
LANES v16 gate_side(enum activation a, float most, v16 y, v16 *slope)
{
    const v16 one = v16_set1(1.0f), limit = v16_set1(most), lowest = v16_set1(-most);
    if (slope) *slope = one;
    if (a != ACT_SWIGLU_CLAMP) return y;
    m16 above = v16_lt(limit, y), below = v16_lt(y, lowest);
    if (slope) *slope = v16_select(above, v16_zero(), v16_select(below, v16_zero(), one));
    return v16_add(v16_select(above, limit, v16_select(below, lowest, y)), one);
}

LANES void act_loop(enum activation a, float most, float *u, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        v16 y = activate(a, most, v16_load_upto(gate + i, n - i), NULL);
        if (up) y = v16_mul(y, gate_side(a, most, v16_load_upto(up + i, n - i), NULL));
        v16_store_upto(u + i, y, n - i);
    }
}

LANES void act_back_loop(enum activation a, float most, float *dgate, float *dup, float *u_again, const float *gate,
                         const float *up, const float *du, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        v16 slope, y = activate(a, most, v16_load_upto(gate + i, n - i), &slope), d = v16_load_upto(du + i, n - i);
        if (up) {
            v16 slope_up, b = gate_side(a, most, v16_load_upto(up + i, n - i), &slope_up);
            if (dup) v16_store_upto(dup + i, v16_mul(v16_mul(d, y), slope_up), n - i);
            d = v16_mul(d, b);
            y = v16_mul(y, b);
        }
        v16_store_upto(dgate + i, v16_mul(d, slope), n - i);
        if (u_again) v16_store_upto(u_again + i, y, n - i);
    }
}

/* One loop per activation, so that none carries the others' branches. */
#define FOR_EACH_ACTIVATION(call)                                                                                      \
    switch (a) {                                                                                                       \
    case ACT_SILU: call(ACT_SILU); break;                                                                              \
    case ACT_GELU: call(ACT_GELU); break;                                                                              \
    case ACT_GELU_TANH: call(ACT_GELU_TANH); break;                                                                    \
    case ACT_RELU: call(ACT_RELU); break;                                                                              \
    case ACT_RELU2: call(ACT_RELU2); break;                                                                            \
    default: call(ACT_SWIGLU_CLAMP); break;                                                                            \
    }

static void act(enum activation a, float *u, const float *gate, const float *up, int64_t n)
{
#define CALL(kind) act_loop(kind, CLAMP_LIMIT, u, gate, up, n)
    FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

static void act_back(enum activation a, float *dgate, float *dup, float *u_again, const float *gate, const float *up,
                     const float *du, int64_t n)
{
#define CALL(kind) act_back_loop(kind, CLAMP_LIMIT, dgate, dup, u_again, gate, up, du, n)
    FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

static void act_clamp(float limit, float *u, const float *gate, const float *up, int64_t n)
{
    act_loop(ACT_SWIGLU_CLAMP, limit, u, gate, up, n);
}

static void act_clamp_back(float limit, float *dgate, float *dup, float *u_again, const float *gate, const float *up,
                           const float *du, int64_t n)
{
    act_back_loop(ACT_SWIGLU_CLAMP, limit, dgate, dup, u_again, gate, up, du, n);
}

void LEVEL_FN(fill_act)(struct kernels *k)
{
    k->act = act;
    k->act_back = act_back;
    k->act_clamp = act_clamp;
    k->act_clamp_back = act_clamp_back;
}
