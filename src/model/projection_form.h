/* projection_form.h — low-rank experts beside the projections of a model that exists: `coe convert
 * --projection-experts`, and their first values. */
#ifndef COE_MODEL_PROJECTION_FORM_H
#define COE_MODEL_PROJECTION_FORM_H

#include "base/rng.h"
#include "model/model.h"

/* Writes m as the directory `dir` with "projection_experts": experts in its config and fresh ones beside the matrices
 * they name: the same logits until they are trained. type: F32, BF16 or F16. m is held in F32 meanwhile and stays so.
 * COE_E_USAGE for a GGUF file, COE_E_INPUT for targets that the model does not have. */
coe_status model_to_projections(struct coe_model *m, const json_t *experts, uint64_t seed, enum dtype type,
                                const char *dir);
/* First values of SLOT_MIX_ROUTER, _A and _B. */
void projection_init(float *x, const struct projection_spec *s, enum slot slot, int64_t rows, int64_t cols,
                     struct rng *r);

#endif
