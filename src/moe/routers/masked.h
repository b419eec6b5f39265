/* masked.h — a product with inverted dropout of its input, z = W drop(x) + b, without the masked rows as a whole.
 *
 * A router that runs several passes over one input would write and read as many copies of it, which takes longer than
 * the products. Here a strip of rows is masked into the second-level cache, multiplied, and forgotten; what stays for
 * the backward pass is one byte an element. */
#ifndef COE_ROUTERS_MASKED_H
#define COE_ROUTERS_MASKED_H

#include "moe/moe.h"

/* x [T, d], w [E, d] of any type with values, and what an adapter adds to it; b [E] or NULL → z [T, E]. A share `rate`
 * of the elements of x is dropped, in steps of 2^-16; four elements share one random number (seed, step and the running
 * index of dropouts of the context). NULL when memory is out. */
struct val *masked_linear(struct nn *c, struct val *x, const struct weight *w, const struct weight *b, double rate);

#endif
