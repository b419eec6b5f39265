/* rng.c — the one generator that needs libm. */
#include "rng.h"

#include <math.h>

double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r); /* u in (0, 1]: log is finite */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}
