/* levels.h — what the tests of kernels share: numbers, and comparing the levels bit for bit. */
#ifndef COE_TESTS_TENSOR_LEVELS_H
#define COE_TESTS_TENSOR_LEVELS_H

#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/gemm.h"

/* Lengths around the registers' width, and some that end in every kind of rest. */
static const int64_t odd_sizes[] = { 0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 255 };
#define FOR_SIZES(n) \
    for (size_t size_ = 0, n; size_ < COE_COUNT(odd_sizes) && ((n = (size_t)odd_sizes[size_]), 1); size_++)

/* Every level but the first, portable, which is the definition. */
#define FOR_OTHER_LEVELS(k) for (const struct kernels *const *k = kernels_all() + 1; *k; k++)
#define PORTABLE (kernels_all()[0])

/* count numbers in [-range, range), a function of the seed. */
static inline void fill_random(float *x, size_t count, float range, uint64_t seed)
{
    for (size_t i = 0; i < count; i++)
        x[i] = range * (2.0f * rng_unitf(rng_at(seed, rng_stream(RNG_TEST, 1), i)) - 1.0f);
}

/* Fails at the first of count floats whose bits differ; two NaN are equal whatever their payload. */
static inline void assert_same_bits(const float *got, const float *expected, size_t count, const char *what,
                                    const char *level)
{
    for (size_t i = 0; i < count; i++) {
        if (!memcmp(&got[i], &expected[i], sizeof got[i]) || (got[i] != got[i] && expected[i] != expected[i])) continue;
        fail_msg("%s, level %s: element %zu is %a, portable has %a", what, level, i, (double)got[i],
                 (double)expected[i]);
    }
}

/* |got - expected| <= tolerance * scale, everywhere; scale is the larger of 1 and the largest |expected|. */
static inline void assert_close(const float *got, const double *expected, size_t count, double tolerance,
                                const char *what)
{
    double scale = 1.0;
    for (size_t i = 0; i < count; i++) scale = fmax(scale, fabs(expected[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - expected[i]) <= tolerance * scale))
            fail_msg("%s: element %zu is %.9g, expected %.9g within %g of %g", what, i, (double)got[i], expected[i],
                     tolerance, scale);
}

#endif
