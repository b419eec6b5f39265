/* plan.h — a plan: a readable JSON file in which one method says what to change in a model, expert by expert.
 *
 * Enters here: the plan's format, planners (one file for each method, in prune/, merge/, quant/, …), applying a plan
 * live or as a smaller checkpoint, and measuring its harm. Knows models and traces. Reading order: plan.h, plan.c,
 * json.c, planner.c, prune/keep.h, prune/reap.c, live.c, apply.c, config.c, measure.h.
 *
 *     struct plan *p;
 *     COE_TRY(plan_make(&p, "reap", model, trace, &(struct plan_opts){ .keep = 0.75 }));
 *     COE_TRY(plan_write(p, "reap.json"));
 *     COE_TRY(plan_apply_live(p, model));                    masks the experts in memory
 *     COE_TRY(plan_apply(p, model, "smaller"));              writes the model without them; same bits as the live one
 */
#ifndef COE_PLAN_H
#define COE_PLAN_H

#include "trace/trace.h"

/* What happens to one MoE layer. */
struct plan_layer {
    int32_t layer;     /* index in the model */
    int32_t n_experts; /* before; 0 when the file does not say */
    int32_t n_keep;
    int32_t *keep; /* [n_keep] ids before, ascending; their new ids are 0 … n_keep-1 */
};

struct plan {
    struct arena arena;
    char *path;             /* for messages: the file it was read from, or "plan" */
    char *method, *variant; /* name of the planner; "published" or "corrected" */
    json_t *parameters;     /* what the planner was told, an object */
    char model[17];         /* fingerprint of the model it was made for */
    char *family;
    int32_t n_model_layers;
    char trace[17]; /* fingerprint of the trace, "" when the method needs none */
    int32_t n_layers;
    struct plan_layer *layer;     /* ascending; layers that are not named stay as they are */
    json_t *predicted, *measured; /* objects of numbers (and of such objects), or NULL */
};

/* An empty plan for a model; layer [n_layers] with nothing kept yet. */
coe_status plan_new(struct plan **out, const struct coe_model *m, const char *method, int32_t n_layers);
void plan_free(struct plan *p);
/* Sets a layer's keep list (copied): n ids, ascending. */
coe_status plan_keep(struct plan *p, int32_t i, int32_t layer, int32_t n_experts, const int32_t *keep, int32_t n);

/* COE_E_INPUT naming the file, the layer and the value at fault. Unknown keys are errors. */
coe_status plan_read(struct plan **out, const char *path);
coe_status plan_parse(struct plan **out, const char *text, size_t n, const char *where);
coe_status plan_write(const struct plan *p, const char *path);
/* A new reference. */
json_t *plan_json(const struct plan *p);
/* xxh3 of what the plan changes (model, layers): 16 hex digits */
coe_status plan_fingerprint(const struct plan *p, char hex[17]);

/* ---- planners ---- */

/* A parameter of a planner: one of several words, or a number in [lo, hi] when `choices` is NULL. */
struct plan_param {
    const char *name, *help;
    const char *const *choices; /* NULL-terminated, the default first */
    double lo, hi, otherwise;
};

/* What a planner reads. */
struct plan_in {
    const struct coe_model *model;
    const struct trace *trace; /* NULL for a planner without `needs_trace` */
    struct arena *arena;       /* scratch */
    double keep;               /* share of the experts of each layer that stays, in (0, 1] */
    uint64_t seed;
    const struct planner *planner;
    const json_t *parameters; /* checked, complete */
};
/* Value of a parameter: index of the word, or the number. */
int plan_choice(const struct plan_in *in, const char *name);
double plan_number(const struct plan_in *in, const char *name);

/* kind "planner", one file each */
struct planner {
    const char *variant;              /* NULL: "published" */
    bool needs_trace, needs_unpruned; /* needs_unpruned: refuses a trace that was made under a plan */
    bool needs_seed;
    const struct plan_param *params; /* ends with a NULL name; or NULL */
    coe_status (*plan)(const struct plan_in *in, struct plan *out);
};

struct plan_opts {
    double keep;
    uint64_t seed;
    const char *const *set; /* "name=value", n_set of them */
    size_t n_set;
};
/* Runs a planner. COE_E_USAGE for an unknown method or parameter, COE_E_INPUT when the trace is of another model. */
coe_status plan_make(struct plan **out, const char *method, const struct coe_model *m, const struct trace *t,
                     const struct plan_opts *o);

/* ---- applying ---- */

/* The plan was made for this model and every id exists in it. */
coe_status plan_check(const struct plan *p, const struct coe_model *m);
/* Masks what the plan removes, for every later forward pass of m. */
coe_status plan_apply_live(const struct plan *p, struct coe_model *m);
/* Reads a plan and applies it live. */
coe_status plan_open_live(struct coe_model *m, const char *path);
/* Writes the smaller model as a directory, tensor by tensor from m's mapping, in the types and names of m's files. */
coe_status plan_apply(const struct plan *p, const struct coe_model *m, const char *dir);
/* Bytes of tensor data that m would have with the plan applied; 0 when it can only be applied live. */
uint64_t plan_bytes(const struct plan *p, const struct coe_model *m);
/* config.json of the smaller model, a new reference. */
coe_status plan_config(json_t **out, const struct plan *p, const struct coe_model *m);
/* Experts per token in layer i of the plan once it is applied. */
int32_t plan_top_k(const struct plan_layer *l, const struct moe_spec *spec);

#endif
