/* stored.h — parameters of a model opened with model_open_stored, read where they lie, a few values at a time. */
#ifndef COE_MODEL_STORED_H
#define COE_MODEL_STORED_H

#include "model/cut.h"

/* What a parameter with `stored` asks of its tensor. */
struct cut_request stored_request(const struct coe_model *m, const struct param *p);
/* out [n] = columns col … col + n of one row, whether it has data or not; of a vector row is 0. */
void param_part(const struct coe_model *m, const struct param *p, int64_t row, int64_t col, int64_t n, float *out);
/* The block type in whose rows its tensor lies (MXFP4 for pairs of nibbles and scales); DT_COUNT when it is plain. */
enum dtype param_packed_type(const struct coe_model *m, const struct param *p);
/* A row of that type without loss. */
void param_packed_row(const struct coe_model *m, const struct param *p, int64_t row, void *out);
/* Gives the pages of its tensor back; they come again when they are read again. */
void param_release(const struct param *p);

#endif
