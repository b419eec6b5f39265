/* sinkhorn.h — the entropic transport plan behind Sinkhorn routing. */
#ifndef COE_SINKHORN_H
#define COE_SINKHORN_H

#include "base/mem.h"

/* pi [m, n]: maximises <Π, C> - xi <Π, log Π> with row sums 1 and column sums m/n; affinity C [m, n], scratch [m + n].
 * Stops when no column sum is off by more than `tolerance`, or after max_iter rounds. Returns the rounds it took. */
int32_t sinkhorn_plan(double *pi, double *scratch, const float *affinity, int32_t m, int32_t n, double xi,
                      double tolerance, int32_t max_iter);

#endif
