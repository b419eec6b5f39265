/* latent_form.h — an ordinary layer of experts in the form of latent ones: `coe convert --latent`. */
#ifndef COE_MODEL_LATENT_FORM_H
#define COE_MODEL_LATENT_FORM_H

#include "model/model.h"

struct latent_report {
    double error;                    /* length of all gate and up matrices lost, as a share of theirs */
    int64_t experts_before, experts; /* parameters of experts and of what groups share */
};
/* Writes m as the directory `dir` with experts of kind latent: `group` consecutive experts share factors [latent, d] of
 * their gate and up matrices, the best ones in the sense of least squares. type: F32, BF16 or F16 of the matrices. m is
 * held in F32 meanwhile and stays so. COE_E_USAGE for layers of other kinds, or that differ. */
coe_status model_to_latent(struct coe_model *m, int32_t latent, int32_t group, enum dtype type, const char *dir,
                           struct latent_report *out);

#endif
