/* convert.h — an opened model as another directory: other storage types, fused or separate experts, a chain around its
 * layers.
 *
 * Weights stream from the mapping through one buffer of the writer; nothing of the model is held in memory. What is not
 * asked to change keeps its bits.
 *
 *     struct convert_opts o = { .type = DT_BF16 };
 *     struct convert_report r;
 *     COE_TRY(model_convert(m, "out", &o, &r)); */
#ifndef COE_MODEL_CONVERT_H
#define COE_MODEL_CONVERT_H

#include "model/model.h"

enum expert_layout { LAYOUT_AS_IS, LAYOUT_FUSED, LAYOUT_SEPARATE };

struct convert_opts {
    enum dtype type;           /* F32, BF16 or F16; DT_COUNT: as stored. Selection biases and chain weights stay F32 */
    int32_t chain;             /* iterations of the new chain; 0: no change */
    const char *router;        /* a rule of `coe help route` for the same matrices; NULL: no change */
    bool shared_gate;          /* one router for all of them, else each its own copy of the original's */
    enum expert_layout layout; /* fused: the [E,2F,d] and [E,d,F] tensors of the family */
    uint64_t shard_bytes;      /* 0: the writer's default */
};

struct convert_report {
    size_t n_tensors;
    uint64_t bytes_before, bytes; /* tensor data */
    uint64_t overflowed;          /* finite values that F16 cannot hold and that became infinite */
};

/* Writes `dir` as a whole (NULL: only fills the report); after a failure, a kill or Ctrl-C the same call goes on at the
 * shards that were finished (ckpt_write_dir). The chain follows the conversion of the Chain-of-Experts
 * authors (card routing.md 1): experts are kept, every iteration's router is the original's, coe_weight = 0, so that
 * the new model computes the same bits until it is trained. COE_E_USAGE for what cannot be: a model that has a chain or
 * no experts, a family without fused tensors, routers that are not one matrix. */
coe_status model_convert(const struct coe_model *m, const char *dir, const struct convert_opts *o,
                         struct convert_report *r);

/* A note when the config of a released family says in its "coe" object what only this program reads (chains, layers
 * with different numbers of experts): others will refuse such a model or compute something else. */
void config_note_own(const json_t *config, const char *dir);

#endif
