/* row_change.h — what one parameter needs when a model moves between two forms of itself: a directory and a GGUF file
 * of an architecture that keeps it otherwise. Rows change places, values by a constant or a function. */
#ifndef COE_MODEL_ROW_CHANGE_H
#define COE_MODEL_ROW_CHANGE_H

#include "model/model.h"

/* Of the delta rule's projections: rows grouped by key head, [q | k | v | z], against those of all heads. */
struct delta_rows {
    int64_t n_k, d_k, values; /* values: rows of v, or of z, that share a key head */
};
struct row_change {
    int64_t cols;     /* a vector's elements are rows of one value */
    int64_t head_dim; /* rows of q and k inside heads of |head_dim| (> 0: from halves to neighbours) */
    float add;        /* a norm's one */
    int8_t decay;     /* 1: from A_log to -exp(A_log); -1: back */
    int8_t regroup;   /* 1: from groups to all heads; -1: back, from the rows of both tensors one behind the other */
    int64_t first;    /* regroup 1: rows of all heads before the tensor's own */
    struct delta_rows delta;
};
struct row_change row_change_between(const struct spec *from, const struct spec *to, const struct param *p);
static inline bool row_change_of_values(const struct row_change *c) { return c->add != 0 || c->decay; }
static inline bool row_change_any(const struct row_change *c)
{
    return c->head_dim || c->regroup || row_change_of_values(c);
}
/* The row in the old form that becomes `row` of the new one. */
int64_t row_change_source(const struct row_change *c, int64_t row);
/* A value of the new form. A decay keeps its bits in both directions: of the numbers that give it, back is the one with
 * the fewest digits (BF16, then F16, then F32), so that what was stored in those types comes back. */
float row_change_value(const struct row_change *c, float x);

#endif
