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
/* A table of pointers for n experts, all NULL. */
coe_status expert_table(struct coe_model *m, const struct weight *const **out, int32_t n);
/* Puts w into such a table. */
void set_expert(const struct weight *const *row, int32_t e, const struct weight *w);
/* Replaces {l} {e} {t} in a tensor name pattern; false when it does not fit. */
bool expand_name(const char *pattern, struct place p, char *out, size_t cap);

#endif
