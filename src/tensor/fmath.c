/* fmath.c — sine, cosine and power in double, for tables made once: the same bits on every machine, which the C library
 * does not promise. Plain operations and explicit fma only. */
#include <math.h>

#include "tensor/kernels.h"

/* Taylor series; |r| <= pi/4 plus a little: the first term left out is below 2^-57. */
static double sin_small(double r)
{
    static const double c[] = { -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                                -1.0 / 1307674368000.0, 1.0 / 355687428096000.0 };
    double u = r * r, p = c[7];
    for (int i = 6; i >= 0; i--) p = fma(p, u, c[i]);
    return fma(r * u, p, r);
}
static double cos_small(double r)
{
    static const double c[] = { -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600.0,
                                -1.0 / 87178291200.0, 1.0 / 20922789888000.0, -1.0 / 6402373705728000.0 };
    double u = r * r, p = c[8];
    for (int i = 7; i >= 0; i--) p = fma(p, u, c[i]);
    return fma(u, p, 1.0);
}

void fm_sincos(double x, float *sin_x, float *cos_x)
{
    /* pi/2 in three parts of 53 bits. For |x| < 2^52 the first product is exact inside the fma and the difference is a
     * multiple of 2^-52 below 2, so it loses nothing; the second and third add what is left of pi/2. */
    const double k = rint(x * 0x1.45f306dc9c883p-1);
    double r = fma(-k, 0x1.921fb54442d18p0, x);
    r = fma(-k, 0x1.1a62633145c07p-54, r);
    r = fma(-k, -0x1.f1976b7ed8fbcp-110, r);
    const double s = sin_small(r), c = cos_small(r);
    switch ((int64_t)k & 3) {
    case 0: *sin_x = (float)s, *cos_x = (float)c; break;
    case 1: *sin_x = (float)c, *cos_x = (float)-s; break;
    case 2: *sin_x = (float)-s, *cos_x = (float)-c; break;
    default: *sin_x = (float)-c, *cos_x = (float)s; break;
    }
}

#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56

/* x = m 2^e, s = (m-1)/(m+1), log m = 2 (s + s^3/3 + s^5/5 + …); |s| < 0.172 */
static double log_double(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double s = (m - 1.0) / (m + 1.0), u = s * s, p = 0.0;
    for (int n = 21; n >= 3; n -= 2) p = fma(p, u, 1.0 / n);
    return fma((double)e, LN2_HIGH, fma((double)e, LN2_LOW, 2.0 * fma(s * u, p, s)));
}

static double exp_double(double x)
{
    if (x > 709.7) return INFINITY;
    if (x < -745.0) return 0.0;
    const double n = rint(x * 1.4426950408889634);
    const double r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, x));
    double p = 1.0;
    for (int i = 14; i >= 1; i--) p = fma(p, r / i, 1.0);
    return ldexp(p, (int)n);
}

double fm_pow(double x, double y) { return exp_double(y * log_double(x)); }
