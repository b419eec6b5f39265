/* resume.h — under which key the unfinished files of a conversion lie (struct ckpt_resume of ckpt.h). */
#ifndef COE_MODEL_RESUME_H
#define COE_MODEL_RESUME_H

#include "model/imatrix.h"
#include "model/model.h"

/* Everything that decides a result's bytes beside the program itself. */
struct resume_of {
    const struct coe_model *m;    /* its fingerprint */
    const struct ckpt_item *item; /* names, types and shapes */
    size_t n;
    const char *head; /* config or metadata of the result */
    size_t n_head;
    uint64_t shard_bytes;
    const struct imatrix *imatrix; /* or NULL */
};
/* Fills r->key; r->count is the caller's. Another build of the program makes another key: it may encode better. */
coe_status resume_key(struct ckpt_resume *r, const struct resume_of *of);

#endif
