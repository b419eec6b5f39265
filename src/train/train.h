/* train.h — training: from a recipe to a Hugging Face directory.
 *
 * Enters here: recipes, data, schedules, the training loop, its saved state. Knows models and text; not traces or
 * plans. Reading order: train.h, recipe.c, tune.c, data.c, schedule.c, trainer.c, step.c, validate.c, state.c,
 * monitor.c.
 *
 * Everything random is a function of (seed, step, index): a resumed run has the bits of an uninterrupted one, and so
 * has a run with another number of threads.
 *
 *     struct recipe r; struct trainer *t;
 *     COE_TRY(recipe_read(&r, "recipes/tales.yaml"));
 *     COE_TRY(trainer_open(&t, &r, RESUME_YES));
 *     s = trainer_run(t);            until r.steps, or until coe_interrupted(): then saved, resumable
 *     trainer_close(t); recipe_free(&r); */
#ifndef COE_TRAIN_H
#define COE_TRAIN_H

#include "model/model.h"

/* ---- recipe.c: a YAML (or JSON) file ---- */

struct data_source {
    const char *path, *label; /* label: the domain, default the file's name */
    const char *field;        /* JSONL field or template, see text/textin.h */
    int32_t task;             /* that its documents belong to (router `tasks`) */
};
enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_CONSTANT, SCHEDULE_LINEAR };

/* What learns of a given model (tune.c); all zero: everything. */
struct tune {
    const json_t *only, *experts; /* list of classes; lists of ids, one for each layer of experts; or NULL */
    int32_t rank;                 /* of low-rank adapters, which then learn alone; 0: none */
    double alpha;
    const char **target;          /* [n_targets] owned, the strings are the document's */
    size_t n_targets;
};

struct recipe {
    json_t *doc; /* owns every string below */
    const char *path;
    const json_t *config; /* model.config, or NULL with init */
    const char *init;     /* model.init: a directory to train on from, or NULL */
    double init_std;
    const char *tokenizer, *output;
    struct data_source *train, *valid;
    size_t n_train, n_valid;
    int32_t hold_out_last; /* documents at the end of the training files that become the validation text */
    int32_t sequence;      /* tokens per row */
    bool boundaries;       /* attention stops at document boundaries */
    int64_t steps;
    int32_t batch, micro_batch; /* rows per step, rows per forward pass */
    double lr, min_lr, beta1, beta2, eps, weight_decay, clip, dropout, z_loss;
    double consistency; /* weight of two passes' distance (THOR); 0: one pass */
    int64_t warmup;
    enum schedule_kind schedule;
    uint64_t seed;
    int64_t eval_every, eval_tokens, save_every, log_every; /* eval_tokens 0: the whole validation text */
    struct tune tune;
    enum dtype dtype;                                       /* of the model that is written */
};
/* COE_E_INPUT with file and key for anything unknown or out of range. `path` is borrowed. */
coe_status recipe_read(struct recipe *r, const char *path);
/* The same from memory; `path` is for messages. */
coe_status recipe_read_text(struct recipe *r, const char *text, size_t n, const char *path);
void recipe_free(struct recipe *r);

/* ---- data.c: tokens of the corpus, packed into rows ---- */

/* What one file gave; the parts follow one another in the stream. */
struct corpus_part {
    const char *label;   /* borrowed from the data_source */
    int32_t first_alike; /* index of the first part with this label */
    size_t end;          /* index behind its tokens */
    uint64_t bytes;      /* of text */
    int32_t task;
};
struct corpus {
    int32_t *ids; /* the stream: an end token, then a document, and so on, and a last end token */
    size_t n;
    uint64_t bytes; /* of text */
    size_t n_documents;
    struct corpus_part *parts;
    size_t n_parts;
    int32_t end_id;
    uint64_t hash; /* of the stream, so that a run is not resumed on other data */
};
/* Tokenizes all files; the last `hold_out` documents go to `valid` (which may then be NULL only if hold_out is 0).
 * Shows progress. COE_E_INPUT for files without a document or with none left to train on; then too both want
 * corpus_free. */
coe_status corpus_read(struct corpus *train, struct corpus *valid, const struct tokenizer *t,
                       const struct data_source *files, size_t n_files, int32_t hold_out);
/* n ids without meaning, for benchmarks; none of them ends a document. */
coe_status corpus_random(struct corpus *c, uint64_t seed, int32_t vocab, size_t n);
void corpus_free(struct corpus *c);
/* Rows of one pass over the corpus. */
int64_t corpus_rows(const struct corpus *c, int32_t sequence);
/* Row number `index` of the run (any index ≥ 0; passes follow one another, each in its own order and with its own
 * offset): inputs [sequence], targets [sequence]; start [sequence] = first position each token may attend to, when
 * wanted. */
coe_status corpus_row(struct corpus *c, uint64_t seed, int64_t index, int32_t sequence, int32_t *input, int32_t *target,
                      int64_t *start);
/* Where in the stream that row begins, and the task of each of n tokens from there on. */
size_t corpus_row_at(const struct corpus *c, uint64_t seed, int64_t index, int32_t sequence);
void corpus_tasks(const struct corpus *c, size_t at, int32_t n, int32_t *task);
/* Window number i in order, without shuffling; returns how many tokens it holds (0 behind the end). */
int32_t corpus_window(const struct corpus *c, int64_t i, int32_t sequence, int32_t *input, int32_t *target,
                      int64_t *start);

/* ---- schedule.c ---- */
/* Learning rate of step (from 0): linear warm-up, then the schedule down to min_lr at the last step. */
double schedule_lr(const struct recipe *r, int64_t step);

/* ---- trainer.c ---- */

struct trainer;
enum resume_mode { RESUME_REFUSE, RESUME_YES, RESUME_RESTART }; /* what to do when the output holds a saved run */
/* The recipe is borrowed. COE_E_USAGE when the output holds a run that `mode` does not allow for, or one of another
 * recipe; COE_E_INPUT for damaged files, each by name. */
coe_status trainer_open(struct trainer **out, const struct recipe *r, enum resume_mode mode);
/* On random ids, without text and output: for trainer_step alone. The tokenizer is opened only when model.config leaves
 * vocab_size to it. */
coe_status trainer_open_random(struct trainer **out, const struct recipe *r);
/* Until r.steps or an interruption; then everything is saved. COE_E_FAILED, message with the command that continues,
 * when interrupted before the end. */
coe_status trainer_run(struct trainer *t);
void trainer_close(struct trainer *t);
struct coe_model *trainer_model(struct trainer *t);
/* What the run has come to, for --json; a new reference, NULL when memory is out. */
json_t *trainer_report(const struct trainer *t);

/* One optimiser step on the next batch; what it measured. */
struct step_report {
    int64_t step; /* 1 after the first */
    double loss, aux, grad_norm, lr, seconds;
    int64_t tokens;
    struct load_stats load; /* of the step's worst layer: largest CV, MaxVio, AvgVio, least entropy; dead in all */
    double active;          /* experts that a token visits, mean over layers and passes; null experts are none */
    /* with bias_update, of the steps that are logged, over all layers: tokens looked at, how many of them the new
     * prices send elsewhere, and the dual value behind the step (moe_price_report) */
    int64_t priced, switches;
    double lagrangian;
};
coe_status trainer_step(struct trainer *t, struct step_report *out);

/* ---- validate.c ---- */

/* Cross-entropy of one label's targets. Bits per byte count the label's tokens against its bytes of text. */
struct label_loss {
    const char *label;
    double nats, bits_per_byte; /* per token; NAN when none was looked at */
    int64_t n_tokens;
};
struct validation {
    double nats, bits_per_byte;
    int64_t n_tokens;
    bool whole;
    struct label_loss *label; /* [n_labels], in the trainer */
    size_t n_labels;
};
/* On about n_tokens of the validation text, in rows spread evenly over it; 0: on all of it. */
coe_status trainer_validate(struct trainer *t, int64_t n_tokens, struct validation *out);

#endif
