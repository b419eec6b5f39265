/* moe.h — the Mixture-of-Experts layer as data: what routes, what is routed to, how often, and what keeps it balanced.
 *
 * Enters here: routers, selections, expert kinds, losses (one file per part, in routers/, selection/, experts/,
 * losses/), the layer that joins them, and the executors' interface. Knows nn, not families or checkpoints.
 * Reading order: moe.h, route.h, router.c, selection/top_k.c, experts.c, experts/ffn.c, layer.c, losses.c,
 * losses/assign.c.
 *
 *   x ─► router ─► z ─► score ─► (+ bias, groups) ─► selection ─► route ─► weights ─► experts ─► combine ─► y
 *                                                                                  (+ shared expert)
 * A chain runs this C times over one pool of experts, each time with its own router (or one for all).
 *
 * Worked example: 16 experts of width 256, two passes of top-2:
 *     struct moe_spec m = moe_spec_default();
 *     m.n_experts = 16; m.expert_ffn = 256; m.router.top_k = 2; m.chain.n_iterations = 2; */
#ifndef COE_MOE_H
#define COE_MOE_H

#include "base/json.h"
#include "base/part.h"
#include "moe/route.h"
#include "nn/nn.h"

enum score_kind { SCORE_SOFTMAX, SCORE_SIGMOID };
enum group_score { GROUP_MAX, GROUP_SUM2 }; /* of a group of experts: its best score (DeepSeek-V2), its two best (V3) */
enum residual_mode { RESIDUAL_PRENORM, RESIDUAL_INNER, RESIDUAL_OUTER, RESIDUAL_BOTH, RESIDUAL_NEITHER };
extern const char *const score_name[2], *const group_score_name[2], *const residual_name[5];

/* Experts take so many tokens and no more (capacity.c); what does not fit visits one expert less. */
enum capacity_order { CAPACITY_POSITION, CAPACITY_BEST, CAPACITY_SCORE };
extern const char *const capacity_order_name[3];
struct capacity_spec {
    double factor;  /* ceil(factor * T * top_k / E) tokens; 0: no such limit */
    int32_t tokens; /* that many tokens; 0: no such limit. Both 0: no capacity */
    double tau; /* of `factor`: experts that compute take tau tokens for every one that the others take; 0: 1 */
    enum capacity_order order;
    bool weigh_first; /* weights are renormalised over the choice before drops, else over what is left */
    bool always;      /* else only in training */
};

struct router_spec {
    const char *kind;          /* part "router": "linear"; set it with moe_use_router */
    double kind_param[PART_PARAMS]; /* its settings, in the order of its table */
    enum score_kind score;
    bool bias;                 /* the router's own bias, added to z */
    bool selection_bias;       /* added to the score for choosing only, never to the weight */
    const char *selection;     /* part "selection": "top_k"; set it with moe_select */
    double param[PART_PARAMS]; /* settings of the selection, in the order of its table */
    struct capacity_spec capacity;
    int32_t top_k;
    int32_t n_group, topk_group; /* 1, 1: no group constraint */
    enum group_score group_score;
    bool bias_in_weights; /* the weight is made from the score plus the selection bias (SMoRA) */
    bool unit_weights; /* weights are 1, with the gradient of n p / Σ p over the n chosen (Union of Experts) */
    bool renormalize;  /* weights divided by their sum over the chosen */
    float renorm_eps;  /* added to that sum (DeepSeek: 1e-20) */
    float renorm_min;  /* that sum is at least this (ERNIE) */
    bool expert_scale; /* weights times a learned factor of each expert (Pangu) */
    float scale;       /* multiplies the weights last */
    float jitter;      /* sparsemixer: relative distance within which experts share the softmax */
};

/* How the selection bias follows the load: by the sign of the gap to the mean, or by the gap itself. */
enum bias_rule { BIAS_SIGN, BIAS_PROPORTIONAL };
extern const char *const bias_rule_name[2];
/* How its step shrinks with the number n of the optimiser step: not, u/n, u/sqrt n. */
enum bias_decay { BIAS_DECAY_NONE, BIAS_DECAY_INVERSE, BIAS_DECAY_INVERSE_SQRT };
extern const char *const bias_decay_name[3];

struct chain_spec {
    int32_t n_iterations; /* C; 1: an ordinary layer */
    bool shared_gate;     /* one router for all iterations */
    enum residual_mode residual;
    bool learned_weight; /* a_t = coe_weight (a parameter of the layer) for all but the last pass; else a_t = 1 */
};

/* Experts first … first + n - 1 of a layer, all of one kind. */
#define MAX_RANGES 8
struct expert_range {
    const char *kind;          /* part "expert": "ffn" */
    int32_t n;
    int32_t ffn;               /* width, of kinds that have one */
    double param[PART_PARAMS]; /* settings of the kind, in the order of its table */
    int32_t first, index;      /* filled in by moe_ranges: the first expert, which range this is, */
    const struct part *part;   /* and the kind */
};

/* `layers` consecutive layers share their experts (pool.c); 0, 1: every layer has its own. */
enum pool_mask { POOL_LOCAL_FIRST, POOL_UNIFORM };
extern const char *const pool_mask_name[2];
struct pool_spec {
    int32_t layers, at; /* this is layer `at` of them */
    int32_t from, to;   /* training steps over which the router comes to see all; both 0: it always does */
    enum pool_mask mask;
};

#define MAX_LOSSES 8
struct loss_spec {
    const char *kind; /* part "loss" */
    double coef;
};

struct moe_spec {
    int32_t n_experts;
    int32_t expert_ffn; /* width of the experts; with ranges, of the widest */
    int32_t n_identity; /* so many of the last are of kind copy */
    int32_t n_null;     /* the very last are of kind null */
    struct expert_range range[MAX_RANGES]; /* the kinds in order of expert id, their n adding up to n_experts … */
    struct pool_spec pool; /* n_experts counts those of all its layers */
    int32_t n_ranges;   /* … or 0: kind ffn, then n_identity and n_null */
    enum activation act;
    float act_limit;  /* of ACT_SWIGLU_CLAMP */
    bool expert_bias; /* biases of the three matrices of an expert */
    float input_scale; /* multiplies what the experts see, not what the router or the shared expert does */
    bool weigh_input; /* the weight multiplies the expert's input instead of its output */
    bool out_bias;    /* one vector is added to the weighted sum */
    struct router_spec router;
    struct chain_spec chain;
    int32_t shared_ffn; /* width of the shared expert; 0: none */
    bool shared_gate;   /* shared expert times sigmoid(x · g) */
    bool shared_bias;   /* biases of all its matrices */
    int32_t shared_segment; /* it works on so many tokens at once, laid side by side (Seg-MoE); 0 or 1: on each */
    double bias_update; /* step of the selection bias after each optimiser step; 0: off */
    enum bias_rule bias_rule;
    enum bias_decay bias_decay;
    struct loss_spec loss[MAX_LOSSES];
    double loss_param[MAX_LOSSES][PART_PARAMS]; /* settings of each loss, in the order of its table */
    int32_t n_losses;
};
/* Softmax, top-2, no renormalisation, scale 1, one pass, prenorm residual, SiLU. */
struct moe_spec moe_spec_default(void);
/* Chooses a selection by name and gives it its default settings; false when there is none of that name. */
bool moe_select(struct router_spec *r, const char *selection);
/* The same for a router. */
bool moe_use_router(struct router_spec *r, const char *router);
/* Experts 0 … this - 1 have gate, up and down matrices. */
int32_t moe_weighted(const struct moe_spec *m);
/* The ranges of a layer with `first`, `index` and `part`; returns how many. */
int32_t moe_ranges(const struct moe_spec *m, struct expert_range out[MAX_RANGES]);
/* The range of an expert. */
struct expert_range moe_range_of(const struct moe_spec *m, int32_t expert);
const struct expert_part *moe_kind(const struct expert_range *r);
/* out [n_experts] = 1 for experts of kinds that return nothing (null), or that compute next to nothing. */
void moe_mark_null(const struct moe_spec *m, uint8_t *out);
void moe_mark_idle(const struct moe_spec *m, uint8_t *out);
bool moe_has_null(const struct moe_spec *m);
/* Floats that the experts of one sequence keep between tokens: those in front of a range's in a pass; of all. */
int64_t moe_state_at(const struct moe_spec *m, int32_t iteration, int32_t range);
static inline int64_t moe_state(const struct moe_spec *m) { return moe_state_at(m, m->chain.n_iterations, 0); }
/* Slots that one token can have at most. */
int32_t moe_max_choices(const struct moe_spec *m);
/* Why the tokens of a sequence must be routed together; NULL when they need not. */
const char *moe_needs_whole_sequence(const struct moe_spec *m);
/* Tokens that the shared expert takes at once. */
static inline int64_t moe_shared_tokens(const struct moe_spec *m)
{
    return m->shared_segment > 1 ? m->shared_segment : 1;
}
/* COE_E_INPUT naming what cannot work (k > experts, groups that do not divide, unknown part names). */
coe_status moe_spec_check(const struct moe_spec *m, const char *where);

/* ---- weights of parts ---- */

/* A router or a kind of experts declares its weights in a table. From it follow the place in the spec, the tensor's
 * name, the first value and whether it is trained; the part finds them in struct moe_weights. */
enum part_scope { PART_OF_MODEL, PART_OF_LAYER, PART_OF_ITERATION, PART_OF_EXPERT };
enum part_init { INIT_NORMAL, INIT_ZERO, INIT_CONSTANT, INIT_ORTHOGONAL };
/* The layer that a weight belongs to. */
struct part_at {
    const struct moe_spec *spec;
    const double *param; /* settings of the part */
    const struct expert_range *range; /* NULL for a router */
    int64_t d_model;
    int32_t nth;         /* so many layers with experts stand before this one */
    int32_t iteration;   /* of weights that every pass has */
    bool first;          /* only the very first routing decision of a token uses it */
};
struct part_weight {
    const char *name; /* "proj.weight": of the tensor ….mlp.router.proj.weight, ….mlp.experts.3.proj.weight */
    enum part_scope scope; /* a router has none of an expert, a kind of experts none of an iteration */
    bool vector;      /* rows are 1: F32 in files, without weight decay */
    bool frozen;      /* never trained: has no gradient */
    bool by_expert;   /* rows (of a vector: elements) count experts and leave with them when a model is pruned */
    bool couples;     /* joins experts otherwise: such a model cannot be pruned */
    enum part_init init;
    double value;     /* of INIT_CONSTANT; of INIT_NORMAL the standard deviation, 0: the model's */
    int32_t from_param; /* 1 + the setting that is the value instead; 0: none is */
    /* false: this layer has no such weight. Of a weight of the model all layers say the same. */
    bool (*shape)(const struct part_at *at, int64_t *rows, int64_t *cols);
};
#define PART_WEIGHTS 12 /* at most, of one part */
/* Owner 0 is the layer's router, 1 + i its i-th range of experts. The table ends with a NULL name; NULL: no weights of
 * its own. `param`, if not NULL, receives the owner's settings. */
const struct part_weight *moe_part_table(const struct moe_spec *m, int32_t owner, const double **param);

/* Weights of one layer, as the model bound them. Vectors of experts are indexed by expert id. */
struct moe_weights {
    const struct weight *router[16], *router_bias[16]; /* per iteration; a shared gate repeats the pointer */
    const struct weight *selection_bias[16];
    const struct weight *expert_scale;                                         /* [E], with router.expert_scale */
    const struct weight *out_bias;                                             /* [d] */
    const struct weight *coe_weight;                                           /* [1], with chain.learned_weight */
    const struct weight *const *gate, *const *up, *const *down;                /* [E]: [F,d], [F,d], [d,F] */
    const struct weight *const *gate_bias, *const *up_bias, *const *down_bias; /* [E] or NULL */
    const struct weight *shared_gate, *shared_up, *shared_down;                /* [S,d], [S,d], [d,S] */
    const struct weight *shared_gate_bias, *shared_up_bias, *shared_down_bias; /* [S], [S], [d], with shared_bias */
    const struct weight *shared_expert_gate;                                   /* [1,d] */
    /* in the order of the tables of the parts; NULL where the layer has none */
    const struct weight *router_part[16][PART_WEIGHTS];        /* per iteration, whatever the scope */
    const struct weight *kind_part[MAX_RANGES][PART_WEIGHTS];  /* of a range: scopes model and layer */
    const struct weight *const *expert_part[MAX_RANGES][PART_WEIGHTS]; /* [E] by expert id: scope expert */
};
#define MAX_ITERATIONS 16

/* The route hook: what a plan edits at run time. keep [n_experts], 0 = the expert is masked (logit -inf before anything
 * else); NULL: all kept. k becomes min(k, kept); with groups, which must keep the same number each: min(k, kept in the
 * groups that a token may use). */
struct route_hook {
    const uint8_t *keep;
    int32_t n_kept;
};

/* Everything about one routing decision that losses, traces and hooks want to see; lives until the arena is rewound. */
struct route_record {
    int32_t layer, iteration;
    const struct moe_spec *spec;
    struct val *z; /* [T, E] router logits, with the router's own bias, before any mask */
    float *p;      /* [T, E] score after activation (masked experts: 0) */
    struct route route;
    struct route wanted; /* with a capacity or null experts: the choice before drops; else empty (tok_off NULL) */
    const struct attn_batch *batch; /* rows of sequences; NULL: all rows are one sequence from position 0 */
    struct val *added; /* [T, E] what the router adds to the weights of the chosen, before `scale`; NULL: nothing */
    float *dz; /* [T, E] gradient contributed by losses, already scaled; NULL until a loss adds one */
    const struct weight *selection_bias, *expert_scale;
    const struct moe_weights *w; /* of the layer; NULL for a decision made alone */
    bool of_attention;           /* experts are projections of an attention layer */
};

/* What a forward pass reports to whoever asks (trace, session callbacks, `logits --routes`). Any member may be NULL. */
struct moe_observer {
    void *user;
    void (*route)(void *user, const struct route_record *r);
    /* y [n_slots, d] expert outputs by row of the route, before weights; x [T, d] the experts' input of this
     * iteration */
    void (*outputs)(void *user, const struct route_record *r, const struct val *x, const float *y);
    /* u [n_slots, expert_ffn] by row of the route: what the down matrices multiply. Only experts with such matrices
     * fill their rows, those that are narrower as many columns as they are wide. Without `outputs` it is not called. */
    void (*hidden)(void *user, const struct route_record *r, const float *u);
};

/* Executors run the expert step of a route: y rows of every slot. `local` has the weights in memory. */
struct expert_call {
    const struct moe_spec *spec;
    const struct moe_weights *w;
    struct val *x; /* [T, d] */
    struct route *route;
    /* [T, d], zeroed by the executor: Σ_e weight·E_e(x), experts in ascending id, one fma each */
    struct val *y;
    float *rows; /* [n_slots, d] outputs before weights, or NULL when nobody wants them kept */
    int32_t layer;
    float *hidden; /* [n_slots, expert_ffn] inputs of the down matrices, likewise */
    int32_t iteration;
    const struct attn_batch *batch; /* rows of sequences; NULL: one */
    struct kv_layer *kv; /* [n_seq] caches of the layer, where kinds with a state keep it; NULL: whole sequences */
    bool filled;   /* y holds the ranges so far: later ones add to it */
};
struct executor {
    const char *name;
    void *state;
    coe_status (*run)(struct executor *self, struct nn *c, struct expert_call *call);
};
extern struct executor executor_local;

/* Queries [T, n_heads*head_dim] and keys [T, n_kv_heads*head_dim] as a layer's attention has used them. */
struct moe_attention_seen {
    struct val *q, *k;
    struct attn_shape shape;
};

/* Per forward pass. Records are chained in order of execution. */
struct moe_pass {
    struct nn *c;
    struct executor *executor;
    const struct moe_observer *observer; /* NULL: none */
    struct route_record **records;       /* [max_records] filled in order, or NULL */
    int32_t n_records, max_records;
    const struct attn_batch *batch;      /* what route_record.batch will say */
    struct kv_layer *kv;                 /* [n_seq] caches of the layer at hand; NULL: whole sequences */
    const int32_t *task;                 /* [T] the task that each token belongs to; NULL: all to task_of_all */
    int32_t task_of_all;
    /* What the last routing decision left to the next one, in order of execution through chains and layers (NULL: this
     * is the first); set with moe_carry. Without a tape it lies in carry_room [T, widest], if there is one, and
     * outlives the layer. */
    struct val *carried, carry_val;
    float *carry_room;
    struct moe_attention_seen attention; /* of the layer, when its router sees_attention */
};
/* Leaves v [T, columns as the router's `carries` says] to the next decision; false without memory (v NULL). */
bool moe_carry(struct moe_pass *p, struct val *v);

/* One MoE layer including its residual: h [T,d] the stream before it, x0 = norm(h). Returns the stream after it.
 * `post`, if not NULL, is applied to what is added to the stream (families with a norm behind the layer). NULL on
 * failure. */
struct val *moe_layer(struct moe_pass *pass, const struct moe_spec *spec, const struct moe_weights *w,
                      const struct route_hook *hook, int32_t layer, struct val *h, struct val *x0,
                      struct val *(*post)(struct nn *, void *, struct val *), void *post_user);

/* The routing step alone: fills *rec, whose layer, iteration and batch are set, from z (recorded on the tape: gradients
 * of route.weight and rec->dz flow into z). */
coe_status moe_route(struct nn *c, struct route_record *rec, const struct moe_spec *spec, struct val *z,
                     const struct weight *selection_bias, const struct route_hook *hook);

/* A routing decision of attention: one matrix [E, d] on x [T, d], in FP32 whatever the math of the pass. NULL on
 * failure. */
struct route_record *moe_route_attention(struct nn *c, const struct moe_spec *spec, const struct weight *router,
                                         int32_t layer, const struct attn_batch *batch, struct val *x);

/* What the experts add to the stream (the layer without its residual), for networks that add it elsewhere. Needs the
 * prenorm residual. */
struct val *moe_output(struct moe_pass *pass, const struct moe_spec *spec, const struct moe_weights *w,
                       const struct route_hook *hook, int32_t layer, struct val *x0);

/* ---- parts ---- */

/* kind "router": logits [T, n_experts] of x [T, d], NULL on failure */
struct router_call {
    struct moe_pass *pass;
    const struct moe_spec *spec;
    const struct moe_weights *w;
    int32_t layer, iteration;
    struct val *x;
    const struct route_hook *hook; /* for routers that mix probabilities: those of masked experts are 0; or NULL */
    struct val **added;            /* *added: route_record.added of the decision, NULL at first */
};
struct router_part {
    struct val *(*logits)(const struct router_call *call);
    const struct part_weight *weights; /* of its own, ends with a NULL name; or NULL */
    /* Whether it has router [E, d] and, if the spec says so, router_bias [E]; NULL: no. */
    bool (*matrix)(const struct moe_spec *m);
    bool frozen;                       /* these are drawn once and never trained, the bias too */
    /* Columns that a decision leaves to the next (moe_carry); NULL: nothing. Layers that follow one another must
     * agree. */
    int64_t (*carries)(const struct moe_spec *m, int64_t d_model);
    coe_status (*check)(const struct moe_spec *m, const char *where); /* NULL: nothing to refuse */
    /* A token's logits depend on those before it: a session keeps, for every pass of the chain, F32 keys and n_experts
     * values of them for router_cache. Keys: one head of d_model, or with sees_attention those of the layer. */
    bool context;
    bool whole;          /* routes whole sequences only */
    bool sees_attention; /* reads moe_pass.attention: every layer's mixer must be plain attention */
    int32_t (*tasks)(const struct moe_spec *m); /* how many tasks it tells apart; NULL: none */
    bool masks;          /* a logit may be -inf: that token cannot choose that expert */
};
/* The router of a layer that moe_spec_check accepted; whether it has the matrix. */
const struct router_part *moe_router(const struct moe_spec *m);
bool moe_router_matrix(const struct moe_spec *m);
/* For the tables: a router that always has the matrix. */
bool router_has_matrix(const struct moe_spec *m);
/* The pass's batch; `alone` filled as one sequence from position 0 when it has none. */
const struct attn_batch *router_batch(const struct router_call *call, struct attn_batch *alone);
/* The caches [n_seq] of this pass of the chain, NULL without a session (whole sequences); false without memory. */
bool router_cache(const struct router_call *call, struct kv_layer **kv);
/* z [T, E] = x · router of that pass (+ its bias) */
struct val *router_scores(const struct router_call *call, struct val *x);

/* kind "expert": adds what the experts of one range make of the tokens that came to them, weighed, to call->y, and
 * leaves the rows that call asks for (experts/rows.h has what kinds share). */
struct expert_part {
    /* NULL: they make nothing */
    coe_status (*run)(struct nn *c, struct expert_call *call, const struct expert_range *r);
    coe_status (*check)(const struct moe_spec *m, const struct expert_range *r, const char *where); /* or NULL */
    const struct part_weight *weights; /* of its own, ends with a NULL name; or NULL */
    int64_t (*state)(const struct expert_range *r); /* floats that a sequence leaves to its next tokens; NULL: none */
    bool wide;     /* its experts have a width, expert_ffn, and fill call->hidden */
    bool matrices; /* gate, up and down of that width, with biases if the spec says so */
    bool reads;    /* takes its weights apart or rounds them itself: they stay as stored, not in panels */
    bool null;     /* dropped from the route before anything is run */
    bool idle;     /* computes next to nothing: what balance losses and capacities tell from the rest */
};

/* kind "selection": chooses experts for every token, calling route_choose in token order, best expert first. */
struct selection_call {
    struct nn *c; /* arena for scratch, rewound by the caller; seed and step of training */
    const struct moe_spec *spec;
    int32_t k;          /* top_k, reduced to the experts that are allowed */
    const float *s;     /* [T, E] score plus selection bias; -inf: not allowed */
    const float *p, *z; /* [T, E] score, router logit */
    const struct route_record *rec;
    struct route *out;
};
struct selection_part {
    int64_t (*max_slots)(const struct router_spec *r, int32_t n_tokens, int32_t n_experts);
    coe_status (*choose)(const struct selection_call *call);
    coe_status (*check)(const struct moe_spec *m, const char *where); /* NULL: nothing to refuse */
    /* whether a token's experts depend on tokens behind it at inference; NULL: never */
    bool (*couples)(const struct router_spec *r);
};

/* kind "loss": sees all records of one forward pass (and, for the global batch, the counts of the step so far). Adds
 * its value to *value, unscaled by coef, and coef*scale*gradient to each record's dz (made with loss_dz), or to the
 * gradients of the weights it is about. */
struct loss_call {
    struct nn *c;
    struct route_record *const *records;
    int32_t n_records;
    const struct attn_batch *batch; /* sequence boundaries */
    const uint8_t *counted;         /* [T] 0: a padding token, left out; NULL: all count */
    const double *param;            /* settings of this loss */
    double coef, scale;             /* scale: 0 = value only */
    /* [n_records, step_stride] counts of the earlier micro-batches of this step, or NULL */
    const uint64_t *step_counts;
    int32_t step_stride;
    uint64_t step_tokens;
};
struct loss_part {
    coe_status (*apply)(const struct loss_call *call, double *value);
    coe_status (*check)(const struct moe_spec *m, const char *where); /* NULL: nothing to refuse */
};
float *loss_dz(struct nn *c, struct route_record *r);
/* Applies every loss of the specs to the records of a pass; *total receives Σ coef·value; value[i] (or NULL, MAX_LOSSES
 * entries) the value of loss i of the first record's spec, averaged over nothing. */
coe_status moe_losses(const struct loss_call *base, double *total, double value[MAX_LOSSES]);

/* counts [E] += how often each expert was chosen, before anything was dropped. */
void moe_add_counts(const struct route_record *r, uint64_t *counts);
/* Selection bias of auxiliary-loss-free balancing: b_e += step * sign(mean - n_e), sign(0) = 0; counts [E] of the whole
 * global batch. */
void moe_bias_update(float *bias, const uint64_t *counts, int32_t n_experts, double step);
/* The proportional rule: b_e += step * (mean - n_e) / mean; the mean of b stays what it is. No counts: no change. */
void moe_bias_update_proportional(float *bias, const uint64_t *counts, int32_t n_experts, double step);
/* The rule and decay of a spec; step counts from 1. (prices.c) */
void moe_price_update(float *bias, const uint64_t *counts, const struct moe_spec *m, int64_t step);
/* What a change of prices does to tokens with scores [n_tokens, E]: whose k best of score + price change, and the dual
 * value behind the change, Σ_t Σ_top (score + price) - k T/E Σ price, which good steps never raise (routing.md 12b). */
struct price_report {
    int64_t switches;
    double lagrangian;
};
coe_status moe_price_report(struct arena *a, const float *score, int64_t n_tokens, int32_t n_experts, int32_t k,
                            const float *before, const float *after, struct price_report *out);

/* Load statistics of counts [E]. */
struct load_stats {
    double cv;      /* standard deviation / mean */
    double max_vio; /* max / mean - 1 */
    double avg_vio; /* mean of |count / mean - 1| */
    double entropy; /* of the shares, over its maximum log E: 1 is balance */
    int32_t dead;   /* experts with no token */
    double imbalance; /* between groups of experts (load_imbalance); 0 without groups */
};
struct load_stats load_statistics(const uint64_t *counts, int32_t n_experts);
/* Imbalance score of MoGE (routing.md 8): visits of the busiest group of experts minus those of the idlest, over the
 * tokens. */
double load_imbalance(const uint64_t *counts, int32_t n_experts, int32_t n_groups, uint64_t n_tokens);

#endif
