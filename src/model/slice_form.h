/* slice_form.h — a dense network cut into experts: `coe convert --slices`. */
#ifndef COE_MODEL_SLICE_FORM_H
#define COE_MODEL_SLICE_FORM_H

#include "model/model.h"

struct slices {
    int32_t n, top_k; /* of every feed-forward network, n 0: it stays whole; and of a token */
    int32_t heads;    /* key heads that a token takes part in; 0: attention stays as it is */
};
/* Writes the dense model m as the directory `dir` of a model of family coe: each feed-forward network becomes n experts
 * of equally many neurons in their order, added as they are (unit_weights), of which a token takes top_k by a new
 * router, and likewise each attention its key heads with their query heads (heads.c). With all of them it computes what
 * m computes. type: F32, BF16 or F16. m is held in F32 meanwhile and stays so.
 * COE_E_USAGE for a model that has experts, a width that n does not divide, or parts that the family does not know. */
coe_status model_to_slices(struct coe_model *m, const struct slices *how, enum dtype type, const char *dir);

#endif
