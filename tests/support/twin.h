/* twin.h — the naive FP64 twin of src/nn and src/moe: the same operations, forward and backward, written for
 * obviousness.
 *
 * Every function below evaluates an operation on values in double precision and notes how to go back; twin_backward()
 * runs the notes in reverse. Memory is the test arena's. Shapes and meanings are those of nn.h and moe.h. */
#ifndef COE_TESTS_TWIN_H
#define COE_TESTS_TWIN_H

#include "support/arrays.h"

#include "moe/moe.h"

struct tv {
    double *x, *g; /* [rows, cols] values and gradients */
    int64_t rows, cols;
};

/* Forgets what was noted. */
void twin_begin(void);
/* A value that nothing computes: x is used in place. */
struct tv *twin_leaf(double *x, int64_t rows, int64_t cols);
/* Sets y's gradient to 1 and runs the notes in reverse. y: a scalar. */
void twin_backward(struct tv *y);
/* A new value, zero */
struct tv *twin_zero(int64_t rows, int64_t cols);
/* For operations made elsewhere: `back` is called with `saved` when the notes are run. */
void twin_note(void (*back)(void *saved), void *saved);

struct tv *twin_embed(const int32_t *ids, int64_t n, struct tv *w);
struct tv *twin_linear(struct tv *x, struct tv *w, struct tv *bias);
struct tv *twin_rmsnorm(struct tv *x, struct tv *w, double w_add, double eps);
struct tv *twin_layernorm(struct tv *x, struct tv *w, struct tv *b, double eps);
/* The limit of ACT_SWIGLU_CLAMP, 7 at first */
extern double twin_clamp_limit;
struct tv *twin_act(enum activation a, struct tv *gate, struct tv *up);
struct tv *twin_add(struct tv *a, struct tv *b);
/* a + s·b, s a number or, when w is given, its one element */
struct tv *twin_add_scaled(struct tv *a, struct tv *b, double s, struct tv *w);
struct tv *twin_scale(struct tv *x, double s);
struct tv *twin_clamp(struct tv *x, double limit);
struct tv *twin_softcap(struct tv *x, double cap);
struct tv *twin_sigmoid_gate(struct tv *x, struct tv *g);
struct tv *twin_sigmoid_mul(struct tv *x, struct tv *g);
struct tv *twin_mul(struct tv *a, struct tv *b);
struct tv *twin_add_row(struct tv *x, struct tv *b);
struct tv *twin_scale_rows(struct tv *x, const float *s);
struct tv *twin_columns(struct tv *x, int64_t group, const struct columns *piece, int32_t n_pieces);
struct tv *twin_join(struct tv *a, struct tv *b);
struct tv *twin_latent_query(struct tv *q, struct tv *kv_b, const struct latent_shape *s);
struct tv *twin_latent_output(struct tv *o, struct tv *kv_b, const struct latent_shape *s);
/* cos, sin [rows, half] */
struct tv *twin_rope(struct tv *x, int32_t head_dim, const float *cos, const float *sin, int64_t half,
                     bool interleaved);
struct tv *twin_attention(struct tv *q, struct tv *k, struct tv *v, struct tv *sink, const struct attn_shape *shape,
                          const struct attn_batch *batch);
/* Scalar: scale · Σ of the losses of counting rows + z_coef · mean of their logsumexp². */
struct tv *twin_xent(struct tv *logits, const int32_t *target, double scale, double z_coef);
/* Scalar Σ x ⊙ r */
struct tv *twin_dot(struct tv *x, const double *r);

/* ---- moe (twin_moe.c) ---- */

/* One routing decision: gates [T, E], the weight of each chosen expert and 0 elsewhere. The choice is constant: with
 * `frozen` it is taken from there instead of made anew (so that differences do not flip it). */
struct twin_route {
    const struct moe_spec *spec;
    struct tv *z, *gates;
    double *p;       /* [T, E] */
    uint8_t *chosen; /* [T, E] */
    int32_t *first;  /* [T] expert of highest weight, ties to the lower id */
};
struct twin_route *twin_route(const struct moe_spec *spec, struct tv *z, const double *selection_bias,
                              const struct twin_route *frozen);
/* Scalar coef · value of a loss part by name, over the records of a pass. step_counts as in struct loss_call. */
struct tv *twin_loss(const struct loss_spec *loss, struct twin_route *const *records, int32_t n_records,
                     const struct attn_batch *batch, const uint8_t *counted, const uint64_t *step_counts,
                     uint64_t step_tokens);

/* Weights of a layer, all as values; members that the spec does not name are NULL. */
struct twin_moe {
    struct tv *router[MAX_ITERATIONS], *router_bias[MAX_ITERATIONS], *selection_bias[MAX_ITERATIONS];
    struct tv *coe_weight, *out_bias;
    struct tv **gate, **up, **down, **gate_bias, **up_bias, **down_bias; /* [E] */
    struct tv *shared_gate, *shared_up, *shared_down, *shared_expert_gate;
    struct tv *router_part[MAX_ITERATIONS][PART_WEIGHTS];
    const int32_t *task;              /* of each token; NULL: 0 */
    struct tv *added;                 /* what the router left to be added to the weights of the pass, or NULL */
    struct tv **carried;              /* *carried: what the decision before left; NULL: no decision before */
    const struct attn_batch *batch;   /* rows of sequences; of routers with context */
    struct tv *q, *k;                 /* of the layer's attention */
    const struct attn_shape *attention;
    struct tv *kind_part[MAX_RANGES][PART_WEIGHTS];   /* what kinds of experts declare */
    struct tv **expert_part[MAX_RANGES][PART_WEIGHTS]; /* [E] */
};
/* Logits of pass t of any router but uncertainty's in training (twin_router.c). */
struct tv *twin_router(const struct moe_spec *spec, struct twin_moe *w, int32_t t, struct tv *x);
/* What an expert of a kind other than ffn makes of x (twin_expert.c). */
struct tv *twin_expert(const struct moe_spec *s, const struct twin_moe *w, int32_t e, struct tv *x,
                       const struct twin_route *r);
/* h' of a gated recurrent unit with weights w = W_i, W_h, b_i, b_h (twin_router.c). */
struct tv *twin_gru_cell(struct tv *u, struct tv *h, struct tv *const *w);
/* Routes in the order they were made */
struct twin_list {
    struct twin_route *records[64];
    int32_t n;
};
/* h + layer(x0) by the residual mode; appends its routes to `made`, taking choices from `frozen` (NULL: new ones). */
struct tv *twin_moe_layer(const struct moe_spec *spec, const struct twin_moe *w, struct tv *h, struct tv *x0,
                          struct twin_list *made, const struct twin_list *frozen);

/* ---- checking ---- */

/* Central differences of `value` along a random direction in the n elements at x, and along `probes` single ones, agree
 * with gradient g: |difference| <= 1e-6 · (1 + |expected|). */
void assert_derivative(const char *what, double *x, const double *g, int64_t n, int probes, uint64_t seed,
                       double (*value)(void *user), void *user);
/* The same along one direction in all the arrays x[0 … n_arrays) together, and in `alone` of them drawn at random.
 * skip[i]: a constant. */
struct gradient_set {
    int32_t n_arrays;
    double **x;
    struct tv **leaf;
    const bool *skip;
    const char *const *name;
};
void assert_derivatives(const char *what, const struct gradient_set *set, int alone, uint64_t seed,
                        double (*value)(void *user), void *user);

#endif
