/* search.h — inside src/tensor/quant: the searches for scales that encoders of K types are made of. They follow the
 * reference encoder of GGUF step by step, float by float, so that equal input gives equal bytes.
 *
 * In all of them x [n] are the values, w [n] what an error costs, q [n] receives the codes, n <= 32. */
#ifndef COE_TENSOR_QUANT_SEARCH_H
#define COE_TENSOR_QUANT_SEARCH_H

#include <math.h>

#include "block.h"

/* Nearest whole number, half to even; what is too large or NaN for a code becomes a large number that clamping catches.
 */
static inline int nint(float x)
{
    if (x > 4e6f) return 4000000;
    return x >= -4e6f ? (int)rintf(x) : -4000000;
}
static inline int clamp_int(int x, int lo, int hi) { return x < lo ? lo : x > hi ? hi : x; }

/* The element of largest magnitude, with its sign; the first among equals. 0 when nothing is finite and non-zero. */
float largest(const float *x, int n);

/* x ~ scale * q - min with q in 0 … top and min >= 0. Tries inverse scales (r0 + step * k + top) / range for k = 0 …
 * steps, each followed by weighted least squares. `absolute` measures |error| instead of its square. */
struct affine_try {
    float r0, step;
    int steps;
    bool absolute;
};
float search_affine(float *min, uint8_t *q, const float *x, const float *w, int n, int top, struct affine_try how);

/* x ~ scale * (q - half), q in 0 … 2 half - 1; w NULL: x squared. */
float search_signed(uint8_t *q, const float *x, const float *w, int n, int half);
/* The same with w = x squared, improved code by code instead of by trying other scales. */
float search_descent(uint8_t *q, const float *x, int n, int half);
/* x ~ scale * q, x >= 0, q in 0 … top. */
float search_positive(uint8_t *q, const float *x, const float *w, int n, int top);

#endif
