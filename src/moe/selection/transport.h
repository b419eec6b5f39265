/* transport.h — optimal transport with few non-zeros in every column (card: routing.md 9b).
 *
 *     min_T <T, C> + gamma/2 |T|²,   T >= 0,  rows sum to a = 1/m,  columns to b = 1/n,  at most k non-zeros a column
 *
 * Rows are tokens, columns experts, C = -affinity. Both concave duals are here: the semi-dual in alpha [m], whose plan
 * always has the column sums, and the dual in (alpha [m], beta [n]), whose plan meets the sums only at its maximum. */
#ifndef COE_TRANSPORT_H
#define COE_TRANSPORT_H

#include "base/base.h"

struct transport {
    const double *cost; /* [n, m]: column by column */
    int32_t m, n, k;    /* k = m: quadratically regularised transport */
    double gamma;
};

/* out [n] = projection of v [n] on the simplex of its k largest entries (equal ones: the earlier), 0 elsewhere; order
 * [n] is scratch. *cut: a guess at a value between the k-th and the next largest, and then such a value; any number
 * gives the same projection, a good one sooner. */
void transport_project(double *out, const double *v, int32_t n, int32_t k, double *cut, int32_t *order);

/* Value of the semi-dual at alpha, its gradient and (or NULL) the plan [n, m] of alpha. scratch [2 m + n], of which the
 * last n are guesses from one call to the next (any numbers at first), and order [m]. */
double transport_semi_dual(const struct transport *p, const double *alpha, double *gradient, double *plan,
                           double *scratch, int32_t *order);
/* The same for the dual: x and gradient are alpha, then beta [m + n]; scratch [2 m]. */
double transport_dual(const struct transport *p, const double *x, double *gradient, double *plan, double *scratch,
                      int32_t *order);

typedef double transport_objective(const struct transport *p, const double *x, double *gradient, double *plan,
                                   double *scratch, int32_t *order);
/* Maximises from 0 by L-BFGS until no entry of the gradient exceeds `tolerance` or `rounds` are done (or no step
 * rises: a kink of the k largest entries); fills plan [n, m] and, unless NULL, value. `size`: entries of the
 * objective's x, m or m + n. `room`: transport_room() bytes of scratch, aligned as doubles. Returns the rounds. */
int32_t transport_solve(const struct transport *p, transport_objective *objective, int32_t size, double tolerance,
                        int32_t rounds, double *plan, double *value, void *room);
size_t transport_room(const struct transport *p, int32_t size);

#endif
