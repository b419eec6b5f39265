/* fmath.h — exp, log, tanh, the logistic function and the normal distribution over sixteen lanes.
 *
 * Our own polynomials (minimax in relative error, fitted with the leading terms fixed, coefficients rounded to float),
 * so that every level and every machine gives the same bits. Largest errors found against FP64
 * (tests/tensor/test_fmath.c): exp and log 1 ulp, tanh 2, sigmoid 2.5, normal_cdf 6 (its far tail). NaN stays NaN. */
#ifndef COE_CPU_FMATH_H
#define COE_CPU_FMATH_H

#include "tensor/cpu/lanes.h"

/* Horner in v, c[0] + c[1] v + …; n is a constant where this is inlined. */
LANES v16 polynomial(v16 v, const float *c, int n)
{
    v16 p = v16_set1(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) p = v16_fma(p, v, v16_set1(c[i]));
    return p;
}
#define POLYNOMIAL(v, ...) \
    polynomial((v), (const float[]){ __VA_ARGS__ }, (int)COE_COUNT(((const float[]){ __VA_ARGS__ })))

/* 2^n e^r, r = c - n ln 2 */
LANES v16 exp_of_parts(v16 c, v16 z, v16 n)
{
    v16 r = v16_fma(n, v16_set1(-0.693147182f), c);
    r = v16_fma(n, v16_set1(1.90465421e-09f), r);
    v16 q = POLYNOMIAL(r, 0.49999994f, 0.166665196f, 0.0416683927f, 0.00836878084f, 0.00138144649f);
    v16 p = v16_add(v16_fma(v16_mul(r, r), q, r), v16_set1(1.0f));
    return v16_scale2(p, z);
}

/* x = n ln 2 + r; e^x = 2^n (1 + r + r^2 q(r)). Infinity above 88.7228; results below the smallest normal number are
 * 0. */
LANES v16 v16_exp(v16 x)
{
    const v16 lowest = v16_set1(-87.336f), highest = v16_set1(88.72283f), shift = v16_set1(0x1.8p23f);
    v16 c = v16_min(v16_max(x, lowest), highest);
    v16 z = v16_fma(c, v16_set1(1.44269504f), shift); /* the sum's low bits are n: rounding to nearest even for free */
    v16 n = v16_sub(z, shift);
    v16 y = exp_of_parts(c, z, n);
    y = v16_select(v16_lt(x, lowest), v16_zero(), y);
    y = v16_select(v16_lt(highest, x), v16_set1(INFINITY), y);
    return v16_select(v16_eq(x, x), y, x);
}

/* The same bits for x <= 0, -infinity and NaN. The comparison is with the number below `lowest`; NaN is "not above" and
 * comes through the maxima, whose second operand it is. */
LANES v16 v16_exp_upto_0(v16 x)
{
    const v16 shift = v16_set1(0x1.8p23f);
    v16 c = v16_max(v16_set1(-87.336f), x), z = v16_fma(c, v16_set1(1.44269504f), shift), n = v16_sub(z, shift);
    return v16_select(v16_lt(v16_set1(-0x1.5d5812p+6f), x), exp_of_parts(c, z, n), v16_max(v16_zero(), x));
}

/* x = m 2^e; log m = f - f^2/2 + f^3 p(f), f = m - 1. log 0 = -inf, of a negative number NaN; subnormals are exact
 * inputs. */
LANES v16 v16_log(v16 x)
{
    const m16 tiny = v16_lt(x, v16_set1(0x1p-126f));
    v16 e, m = v16_split(v16_select(tiny, v16_mul(x, v16_set1(0x1p24f)), x), &e);
    e = v16_sub(e, v16_select(tiny, v16_set1(24.0f), v16_zero()));
    v16 f = v16_sub(m, v16_set1(1.0f)), f2 = v16_mul(f, f);
    v16 p = POLYNOMIAL(f, 0.333333313f, -0.250008225f, 0.200012267f, -0.166233569f, 0.142017618f, -0.131601945f,
                       0.127615497f, -0.0763442963f);
    v16 rest = v16_mul(v16_mul(f, f2), p);
    rest = v16_fma(e, v16_set1(-1.90465421e-09f), rest);
    rest = v16_fma(f2, v16_set1(-0.5f), rest);
    v16 y = v16_fma(e, v16_set1(0.693147182f), v16_add(f, rest));
    y = v16_select(v16_eq(x, v16_zero()), v16_set1(-INFINITY), y);
    y = v16_select(v16_lt(x, v16_zero()), v16_set1(NAN), y);
    y = v16_select(v16_eq(x, v16_set1(INFINITY)), x, y);
    return v16_select(v16_eq(x, x), y, x);
}

/* 1/(1 + e^-x); 0 below -88.7228. */
LANES v16 v16_sigmoid(v16 x)
{
    const v16 one = v16_set1(1.0f);
    return v16_div(one, v16_add(one, v16_exp(v16_sub(v16_zero(), x))));
}

/* |x| < 0.625: x + x^3 p(x^2); else 1 - 2/(e^2|x| + 1) with the sign of x. */
LANES v16 v16_tanh(v16 x)
{
    const v16 one = v16_set1(1.0f), a = v16_abs(x), u = v16_mul(x, x);
    v16 p = POLYNOMIAL(u, -0.333332807f, 0.133314416f, -0.0537397116f, 0.0206390787f, -0.00570497848f);
    v16 small = v16_fma(v16_mul(x, u), p, x);
    v16 e = v16_exp(v16_add(a, a));
    v16 large = v16_sub(one, v16_div(v16_set1(2.0f), v16_add(e, one)));
    return v16_select(v16_lt(a, v16_set1(0.625f)), small, v16_xor_sign(large, x));
}

/* Phi(x), the normal distribution function, and its density in *density. |x| < 1: 1/2 + x p(x^2); further out the tail
 * e^(-x^2/2) M(|x|), M Mills' ratio over sqrt(2 pi) as a polynomial in (|x|-3)/(|x|+4): small values keep their
 * digits. */
LANES v16 normal_cdf(v16 x, v16 *density)
{
    const v16 one = v16_set1(1.0f), a = v16_min(v16_abs(x), v16_set1(13.5f)), s = v16_mul(a, a);
    v16 small = v16_fma(x, POLYNOMIAL(s, 0.398942292f, -0.066490382f, 0.0099735409f, -0.0011872577f, 0.000115269911f,
                                      -9.23425432e-06f, 5.25037308e-07f), v16_set1(0.5f));
    /* s rounds a^2, and the exponential multiplies the error by s: give it back to first order */
    v16 lost = v16_fma(a, a, v16_sub(v16_zero(), s));
    v16 e = v16_exp(v16_mul(s, v16_set1(-0.5f)));
    e = v16_fma(v16_mul(lost, v16_set1(-0.5f)), e, e);
    v16 t = v16_div(v16_sub(a, v16_set1(3.0f)), v16_add(a, v16_set1(4.0f)));
    v16 tail = v16_mul(e, POLYNOMIAL(t, 0.121513948f, -0.240803063f, 0.207856864f, -0.135981083f, 0.0631414726f,
                                     -0.0168216731f, -0.000442429649f, 0.00202657375f, -0.00048241773f));
    *density = v16_mul(e, v16_set1(0.398942280f));
    v16 far = v16_select(v16_lt(x, v16_zero()), tail, v16_sub(one, tail));
    return v16_select(v16_lt(a, one), small, far);
}

#endif
