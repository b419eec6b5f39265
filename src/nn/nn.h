/* nn.h — operations of a network with forward and backward, and the tape that joins them.
 *
 * Enters here: an operation that any model may use. Knows weights and activations, not layers or families. One forward
 * code serves training and inference: an operation records its backward on the tape only when the context has one.
 * Reading order: nn.h, tape.c, linear.c, norm.c, attention.c, loss.c, optim.c.
 *
 *     struct nn c = { .arena = &a, .tape = &tape };             inference: .tape = NULL
 *     struct val *y = nn_linear(&c, nn_act(&c, ACT_SILU, nn_linear(&c, x, w1, NULL), NULL), w2, NULL);
 *     if (!y) return coe_last_status();                         operations answer NULL to NULL: check once, at the end
 *     nn_backward(&c);                                          from the losses recorded on the tape
 *
 * Activations live in the context's arena; rewinding it forgets them. Gradients of activations are made when first
 * needed; gradients of weights accumulate (+=) in weight.grad where that is not NULL. All sums run in an order that
 * threads do not change. */
#ifndef COE_NN_H
#define COE_NN_H

#include "tensor/gemm.h"

/* Loops of less work (multiply-adds or elements) run on the calling thread: waking the others would take longer. */
#define NN_ALONE_BELOW 32768

/* An activation [rows, cols], contiguous. */
struct val {
    float *data, *grad;
    int64_t rows, cols;
    const struct codes *codes[CODES_KINDS]; /* of data, once a product asked for them (nn_codes) */
};
/* Whoever changes data in place says so. */
static inline void val_changed(struct val *v)
{
    for (int i = 0; i < CODES_KINDS; i++) v->codes[i] = NULL;
}

struct nn;
struct tape_op {
    void (*back)(struct nn *c, void *saved);
    void *saved;
    struct tape_op *before;
};
struct tape {
    struct tape_op *last;
};

struct nn {
    struct arena *arena;
    struct tape *tape;
    /* dropout: the mask is a function of (seed, step, running index of the operation, element) */
    float dropout;
    uint64_t seed, step;
    uint32_t dropout_index;
    coe_math math; /* of products with BF16 weights; bf16 without a tape only */
};

/* Uninitialised activation; NULL (message set) when memory is out. */
struct val *nn_val(struct nn *c, int64_t rows, int64_t cols);
/* View of data that someone else owns (inputs); it can still receive a gradient. */
struct val *nn_wrap(struct nn *c, float *data, int64_t rows, int64_t cols);
/* Records a backward function; false when memory is out. No-op without a tape. `saved` must live in the arena. */
bool nn_record(struct nn *c, void (*back)(struct nn *, void *), void *saved);
/* The gradient to add into: made and zeroed at first use. NULL when memory is out (message set, see nn_backward). */
float *nn_grad(struct nn *c, struct val *v);
/* As nn_grad, but *fresh = true tells that nothing was written yet and the caller must overwrite all of it. */
float *nn_grad_raw(struct nn *c, struct val *v, bool *fresh);
/* Runs the tape from its end. COE_E_NOMEM when a gradient could not be made. */
coe_status nn_backward(struct nn *c);

/* y [n, d] = rows of w [vocab, d] */
struct val *nn_embed(struct nn *c, const int32_t *ids, int64_t n, const struct weight *w);
/* The blocks in which a product with weights of type t wants the other factor's codes (codes.h), 0: it wants none. */
int32_t nn_code_block(const struct nn *c, enum dtype t);
/* The codes of x in blocks of such length, made at first use; NULL when memory is out. They live where the arena is
 * now: ask for them before saving a mark. */
const struct codes *nn_codes(struct nn *c, struct val *x, int32_t block);
/* The codes of x for weights of all these types are there, or are not wanted. false when memory is out. */
bool nn_codes_for(struct nn *c, struct val *x, struct groups g, const struct weight *const *w);
/* y [off[n], ldy] = x·wᵀ of the grouped products (gemm.h), for weights of any type that a model computes with. false
 * when memory is out. */
bool nn_grouped(struct nn *c, float *y, int64_t ldy, struct val *x, const int32_t *xrow, struct groups g,
                const struct weight *const *w);
/* y [n, w.rows] = x · wᵀ + b; b may be NULL */
struct val *nn_linear(struct nn *c, struct val *x, const struct weight *w, const struct weight *b);
/* RMS norm of consecutive groups of w.cols columns (w.cols == x.cols: the whole row); multiplies by (w + w_add). */
struct val *nn_rmsnorm(struct nn *c, struct val *x, const struct weight *w, float w_add, float eps);
struct val *nn_layernorm(struct nn *c, struct val *x, const struct weight *w, const struct weight *b, float eps);
/* u = act(gate) * up (up NULL: ungated) */
struct val *nn_act(struct nn *c, enum activation a, struct val *gate, struct val *up);
struct val *nn_add(struct nn *c, struct val *a, struct val *b);
/* a + s*b with one fma per element; s a weight of one element when w is given (its gradient is dot(dy, b)), else s */
struct val *nn_add_scaled(struct nn *c, struct val *a, struct val *b, float s, const struct weight *w);
struct val *nn_scale(struct nn *c, struct val *x, float s);
struct val *nn_clamp(struct nn *c, struct val *x, float limit); /* to ±limit */
/* y[t,:] = x[t,:] * sigmoid(g[t]); g [rows, 1] */
struct val *nn_sigmoid_gate(struct nn *c, struct val *x, struct val *g);
/* y = x * sigmoid(g), element by element */
struct val *nn_sigmoid_mul(struct nn *c, struct val *x, struct val *g);
struct val *nn_mul(struct nn *c, struct val *a, struct val *b); /* element by element */
/* y[t,:] = x[t,:] + b */
struct val *nn_add_row(struct nn *c, struct val *x, const struct weight *b);
/* y[t,:] = x[t,:] * s[t]; s stays the caller's until the backward pass */
struct val *nn_scale_rows(struct nn *c, struct val *x, const float *s);
/* A row of x is groups of `group` columns. The result has, for each piece in turn, columns from … from+width-1 of every
 * group. */
struct columns {
    int64_t from, width;
};
struct val *nn_columns(struct nn *c, struct val *x, int64_t group, const struct columns *piece, int32_t n_pieces);
/* y[t,:] = [a[t,:] | b[t,:]] */
struct val *nn_join(struct nn *c, struct val *a, struct val *b);
/* Tokens side by side (segments.c). place [rows], which stays until the backward pass, is segment · width + a place in
 * it, of one row only but in spread:
 * fold     y [segments, width·d]: row t of x at place[t], zeros where none is; -1: nowhere
 * unfold   y [n, d] = what stands at place[t] of x [segments, width·d]
 * spread   y [n, e] = the row of x [segments, e] that t's segment has */
struct val *nn_fold(struct nn *c, struct val *x, const int32_t *place, int64_t segments, int64_t width);
struct val *nn_unfold(struct nn *c, struct val *x, const int32_t *place, int64_t n, int64_t width);
struct val *nn_spread(struct nn *c, struct val *x, const int32_t *place, int64_t n, int64_t width);
/* True and COE_E_USAGE set when this pass records: for an operation that has no backward pass. */
bool nn_forward_only(const struct nn *c, const char *what);
/* One step of a gated recurrent unit: h' = (1 - q) n + q h with r = sigmoid(a_r + b_r), q = sigmoid(a_q + b_q),
 * n = tanh(a_n + r b_n). a = W_i u + b_i and b = W_h h + b_h are [T, 3p] = [r | q | n]; h [T, p]. */
struct val *nn_gru(struct nn *c, struct val *a, struct val *b, struct val *h);
struct val *nn_softcap(struct nn *c, struct val *x, float cap); /* cap tanh(x / cap) */
/* Inverted dropout at the context's rate; x itself when the rate is 0 or there is no tape. */
struct val *nn_dropout(struct nn *c, struct val *x);

/* Rotates in place the first 2*half columns of each head of x [n, n_heads*head_dim]; cos, sin [n, half]. Safe after any
 * operation that does not keep its output for the backward pass (linear, rmsnorm). */
bool nn_rope(struct nn *c, struct val *x, int32_t head_dim, const float *cos, const float *sin, int64_t half,
             bool interleaved);

/* Keys and values of one layer of one sequence: capacity/KEY_BLOCK key blocks of each key head, then of the next;
 * capacity value rows of each. What a block and a row are, by type: tensor/kv.h. */
struct kv_layer {
    void *k, *v;
    float *state;     /* of a recurrent layer instead: what the tokens before position left behind (recurrent.c) */
    int64_t capacity; /* positions, a multiple of KEY_BLOCK */
    float *experts;   /* what kinds of experts with a state left behind (moe.h) */
    struct kv_layer *router; /* [passes of the layer's chain] of a router with context (moe.h), F32 */
};
struct attn_shape {
    int32_t n_heads, n_kv_heads, head_dim, head_dim_v;
    float scale, cap;
    int64_t window;            /* a token sees itself and the window-1 before it; 0: everything before it */
    int64_t chunk;             /* a token sees positions of its own chunk of this length only; 0: off */
    enum dtype kv;             /* type of the caches: F32 (0; the only one with a backward pass), F16, Q8_0 */
    const struct weight *sink; /* [n_heads] or NULL */
};
/* Rows of a batch belong to sequences: rows off[i] … off[i+1]-1 are positions pos0[i] … of sequence i. `start` [n], if
 * not NULL, is the first position each token may see (document boundaries in packed training rows). */
struct attn_batch {
    int32_t n_seq;
    const int32_t *off;
    const int64_t *pos0;
    const int64_t *start;
};
/* out [n, n_heads*head_dim_v]. Writes k, v [n, n_kv*…], rounded to shape.kv, into the caches, then attends over them.
 * kv NULL: the whole sequence is in this batch (training); temporary caches are made. The backward pass needs kv ==
 * NULL. Definition: kernels.h. */
struct val *nn_attention(struct nn *c, struct val *q, struct val *k, struct val *v, const struct attn_shape *shape,
                         const struct attn_batch *batch, struct kv_layer *kv);

/* Latent attention (MLA, card routing.md 2) in its absorbed form, so that the cache holds one latent for all heads
 * (latent.c): nn_attention runs over keys [rope | kv_rank] and values [kv_rank] as if they were one key head. kv_b
 * [H*(nope+v), rank]: a head's rows are [key part | value part]. query   q [n, H*(nope+rope)] → [n, H*(rope+rank)], per
 * head [q_rope | q_nope · key part] output  o [n, H*rank] → [n, H*v], per head o · (value part)ᵀ */
struct latent_shape {
    int32_t n_heads, nope, rope, v_dim, rank;
};
struct val *nn_latent_query(struct nn *c, struct val *q, const struct weight *kv_b, const struct latent_shape *s);
struct val *nn_latent_output(struct nn *c, struct val *o, const struct weight *kv_b, const struct latent_shape *s);
/* The expanded form, without a backward pass: every head has its own keys and values, latent · kv_bᵀ, and nn_attention
 * runs over H key heads. rope [n, rope] (all heads share it) or [n, H*rope], nope [n, H*nope] → [n, H*(rope+nope)], per
 * head [rope | nope]. */
struct val *nn_latent_heads(struct nn *c, struct val *rope, struct val *nope, const struct latent_shape *s);

/* Recurrent layers (recurrent.c). They evaluate token by token in order, so that any split of a sequence gives the same
 * bits; the state of each sequence goes through kv (NULL: whole sequences from nothing). Without a backward pass. */
/* Causal convolution of every column: y[t] = Σ_i w[col, i] x[t - K + 1 + i] (+ b); w [cols, K]; state [K-1, cols] */
struct val *nn_conv(struct nn *c, struct val *x, const struct weight *w, const struct weight *b,
                    const struct attn_batch *batch, struct kv_layer *kv);
static inline int64_t nn_conv_state(int64_t cols, int32_t kernel) { return cols * (kernel - 1); }
/* Gated delta rule (Qwen3-Next): x [n, 2*n_k*d_k + n_v*d_v] = [q | k | v] of all heads, ba [n, 2*n_v] = per value head
 * b, then a of all; per value head, S [d_k, d_v]: S *= exp(-exp(A)·softplus(a + dt)); S += k (σ(b)(v - Sᵀk))ᵀ; o = Sᵀq,
 * with q and k of length one and q scaled by d_k^-½. → [n, n_v*d_v]; the state is behind the convolution's. */
struct delta_shape {
    int32_t n_k, n_v, d_k, d_v;
    bool negative_a; /* `a` holds -exp(A) */
};
struct val *nn_delta(struct nn *c, struct val *x, struct val *ba, const struct weight *a, const struct weight *dt,
                     const struct delta_shape *s, const struct attn_batch *batch, struct kv_layer *kv,
                     int64_t state_offset);

/* Mean cross-entropy. target[i] < 0: row i does not count. Adds scale * sum of the losses of the counting rows to the
 * objective (the backward pass starts here) and returns the unscaled sum in *sum, their number in *count. z_coef:
 * weight of the output z-loss, mean over rows of logsumexp². logits.grad is overwritten. */
coe_status nn_xent(struct nn *c, struct val *logits, const int32_t *target, double scale, double z_coef, double *sum,
                   int64_t *count);
/* Consistency of two passes over the same tokens (THOR, routing.md 20): adds scale * Σ over rows with target >= 0 of
 * 1/2 Σ (p - q)(log p - log q), p and q the softmaxes of a and b [n, vocab], to the objective; the unscaled sum in
 * *sum. Call it before the two nn_xent, which overwrite the gradients that this adds to. (consistency.c) */
coe_status nn_consistency(struct nn *c, struct val *a, struct val *b, const int32_t *target, double scale, double *sum);
/* loss of each row without recording, for evaluation; lse may be NULL */
void nn_xent_rows(const float *logits, int64_t n, int64_t vocab, const int32_t *target, float *loss, float *lse);

/* Optimiser: AdamW over a list of weights (optim.c); those without a gradient stay as they are. decay: whether weight
 * decay applies to it. */
struct optim_param {
    struct weight *w;
    float *m, *v;
    bool decay;
};
/* sqrt of the sum of squares over all gradients */
double optim_grad_norm(const struct optim_param *p, size_t n);
/* One step, t counted from 1; gradients are multiplied by grad_scale. */
void optim_adamw(const struct optim_param *p, size_t n, const struct adamw_args *args);

#endif
