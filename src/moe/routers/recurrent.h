/* recurrent.h — what the recurrent routers (gru.c, rnn.c) share: projection, state, output. */
#ifndef COE_ROUTERS_RECURRENT_H
#define COE_ROUTERS_RECURRENT_H

#include "moe/moe.h"

/* The first two of the table are [p, d] and [E, p]; the cell's follow. Setting 0 is the width p. */
enum { RECURRENT_PROJ, RECURRENT_OUT, RECURRENT_CELL };
int64_t recurrent_carries(const struct moe_spec *m, int64_t d_model); /* p */
/* z = out · h with h = cell(proj · x, h of the decision before, or 0); h is carried on. `cell` gets u [T, p], h [T, p]
 * and the weights from RECURRENT_CELL on. */
struct val *recurrent_logits(const struct router_call *call,
                             struct val *(*cell)(struct nn *c, struct val *u, struct val *h,
                                                 const struct weight *const *w));

/* The one setting of both: the width of the state. */
extern const struct part_param recurrent_params[];

/* The table of both, and what a cell finds in its weights: the last four of it. The matrices [G p, p] and biases [G p]
 * of a cell's gates lie one behind the other; the GRU has G = 3, the plain cell 1. */
enum { INPUT, STATE, INPUT_BIAS, STATE_BIAS };
extern const struct part_weight recurrent_weights[];

#endif
