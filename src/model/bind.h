/* bind.h — steps of opening a model, shared by bind.c, open.c and train-time creation. */
#ifndef COE_BIND_H
#define COE_BIND_H

#include "model/model.h"

/* Allocates m->params for the spec's places. */
coe_status model_make_params(struct coe_model *m);
/* Fills the tables by slot from m->params. */
coe_status model_link(struct coe_model *m);
/* Params from m->ckpt, then model_link. */
coe_status model_bind(struct coe_model *m);
/* Replaces {l} {e} {t} in a tensor name pattern; false when it does not fit. */
bool expand_name(const char *pattern, struct place p, char *out, size_t cap);

#endif
