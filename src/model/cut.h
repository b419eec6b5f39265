/* cut.h — a place's share of a stored tensor: a slice of experts, one of several parts, the other way round, or packed.
 *
 * cut_take makes a weight of it for computing; cut_part reads a few values of it, so that a model of any size can be
 * written in another form without being in memory. */
#ifndef COE_MODEL_CUT_H
#define COE_MODEL_CUT_H

#include "model/model.h"

struct cut_request {
    const char *path; /* for messages */
    const struct tensor *t;
    const struct tensor *scale; /* of FP8 and MXFP4 values, v_b of a head pair, or NULL */
    int64_t block[2];           /* rows and columns that share an FP8 scale */
    struct cut cut;
    int64_t n_experts; /* with CUT_EXPERT: the first dimension … */
    int64_t n_identity; /* … which may count these too */
    int64_t expert, rows, cols;
    bool vector;
    bool wide;  /* block types are widened */
    bool later; /* nothing is copied: what is not used where it lies gets its type and no data */
};
/* Shape the whole tensor must have; returns its number of dimensions. Needs cut, sizes and n_experts only. */
int32_t cut_shape(const struct cut_request *r, int64_t dim[MAX_DIMS]);
/* Fills type and data of *w. Values that lie together are used where they are, rows of block types that have products
 * too; others (turned round, taking turns, FP8, MXFP4, block types) are copied into the arena: BF16 from MXFP4, which
 * it holds exactly, F32 from other packed types. COE_E_INPUT names a shape or type that cannot be. */
coe_status cut_take(struct weight *w, struct arena *a, const struct cut_request *r);
/* out [n] = columns col … col + n of one row, widened, of a request that cut_take has accepted; a vector is row 0. */
void cut_part(const struct cut_request *r, int64_t row, int64_t col, int64_t n, float *out);
/* The block type whose rows the share is made of, DT_COUNT when it is not; and such a row as it is. */
enum dtype cut_packed_type(const struct cut_request *r);
void cut_packed_row(const struct cut_request *r, int64_t row, void *out);

#endif
