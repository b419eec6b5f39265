/* recurrent.h — what the recurrent routers (gru.c, rnn.c) share: projection, state, output. */
#ifndef COE_ROUTERS_RECURRENT_H
#define COE_ROUTERS_RECURRENT_H

#include "moe/moe.h"

/* Rows of both tables begin with these two; the cell's follow. Setting 0 is the width p. */
enum { RECURRENT_PROJ, RECURRENT_OUT, RECURRENT_CELL };
bool recurrent_proj_shape(const struct part_at *at, int64_t *rows, int64_t *cols); /* [p, d] */
bool recurrent_out_shape(const struct part_at *at, int64_t *rows, int64_t *cols);  /* [E, p] */
int64_t recurrent_carries(const struct moe_spec *m, int64_t d_model);              /* p */
/* z = out · h with h = cell(proj · x, h of the decision before, or 0); h is carried on. `cell` gets u [T, p], h [T, p]
 * and the weights from RECURRENT_CELL on. */
struct val *recurrent_logits(const struct router_call *call,
                             struct val *(*cell)(struct nn *c, struct val *u, struct val *h,
                                                 const struct weight *const *w));

/* The one setting of both: the width of the state. */
extern const struct part_param recurrent_params[];

/* What a cell finds in its weights: the last four of this table. */
enum { INPUT, STATE, INPUT_BIAS, STATE_BIAS };
#define RECURRENT_WEIGHTS(matrix_shape, bias_shape)                                                            \
    {                                                                                                          \
        { .name = "proj.weight", .scope = PART_OF_ITERATION, .shape = recurrent_proj_shape },                  \
        { .name = "out.weight", .scope = PART_OF_ITERATION, .by_expert = true, .shape = recurrent_out_shape }, \
        { .name = "weight_ih", .init = INIT_ORTHOGONAL, .shape = matrix_shape },                               \
        { .name = "weight_hh", .init = INIT_ORTHOGONAL, .shape = matrix_shape },                               \
        { .name = "bias_ih", .vector = true, .init = INIT_ZERO, .shape = bias_shape },                         \
        { .name = "bias_hh", .vector = true, .init = INIT_ZERO, .shape = bias_shape }, { 0 },                  \
    }

#endif
