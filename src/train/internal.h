/* internal.h — the trainer's state, for the files of this room. */
#ifndef COE_TRAIN_INTERNAL_H
#define COE_TRAIN_INTERNAL_H

#include <stdio.h>

#include "base/log.h"
#include "train/train.h"

struct trainer {
    const struct recipe *r;
    struct tokenizer *tokenizer;
    struct coe_model *model;
    json_t *config; /* written with the model */
    struct corpus train, valid;
    struct optim_param *params; /* [n_params] what has masters: of the model, then of its adapter */
    size_t n_params;
    char *moments; /* m and v of all parameters */
    int64_t step;  /* optimiser steps done */
    int64_t tokens;
    double seconds;                 /* of training, over all sittings */
    double loss;                    /* of the last step; NAN before the first */
    bool stop;                      /* interrupted: save and end */
    struct validation valid_result; /* the last one; n_tokens 0 before */
    struct label_loss *labels;      /* [valid.n_parts] for it */
    struct arena arena;
    /* buffers of a micro-batch */
    int32_t *input, *target, *task, *off;
    int64_t *start, *pos0;
    struct route_record **records, **projection_records;
    int32_t n_records, n_projections;
    uint64_t *counts; /* [n_records, max_experts] of the step so far */
    int64_t slots, routed; /* visits of experts in the step, and tokens routed, over all layers and passes */
    int32_t max_experts;
    FILE *log;
    int lock;            /* on the output directory: two runs in it would mix their logs and states */
    struct progress bar; /* on a terminal, instead of lines */
    int64_t bar_from;    /* steps done when it began */
};

/* tune.c — the recipe's section of that name, and what it makes of t->model. */
coe_status tune_read(struct recipe *r, const char *where);
coe_status tune_model(struct trainer *t);

/* state.c — one file, OUTPUT/state.safetensors: parameters, moments, and in its metadata step, data hash, recipe hash.
 */
coe_status state_save(struct trainer *t);
bool state_exists(const struct trainer *t);
coe_status state_load(struct trainer *t);
/* OUTPUT/model as a Hugging Face directory, or OUTPUT/adapter as one of PEFT. */
coe_status state_write_model(const struct trainer *t);

/* Whether a step has a line in the log. */
static inline bool step_is_logged(const struct recipe *r, int64_t step)
{
    return step % r->log_every == 0 || step == r->steps || step == 1;
}

/* monitor.c — OUTPUT/log.jsonl and the progress line. */
coe_status monitor_open(struct trainer *t);
coe_status monitor_step(struct trainer *t, const struct step_report *s);
coe_status monitor_valid(struct trainer *t, const struct validation *v);
void monitor_close(struct trainer *t);

#endif
