/* kernels.h — the table of compute kernels, one per device and instruction set.
 *
 * Every function is single-threaded and pure: its result depends on its arguments only, never on the level that
 * computed it (DESIGN §3). The definitions, which all levels match bit for bit:
 *   dot        sixteen partial sums, element i into sum i mod 16, one fma each from +0, then added as a tree 8+8 4+4
 *   2+2 1+1
 *   chain      acc = fma(a_k, b_k, acc) in ascending k, from the given start
 *   exp & co.  our own polynomials (cpu/fmath.h), same operations at every width
 * `kern` is chosen once: the best level this CPU has, or COE_ISA=portable|avx2|avx512|vnni|neon.
 * Pointers need not be aligned; outputs never alias inputs unless a comment says they may. n may be 0. */
#ifndef COE_KERNELS_H
#define COE_KERNELS_H

#include "tensor/codes.h"
#include "tensor/kv.h"

/* Gated: u = a(gate) * b(up). Ungated (up == NULL): u = a(gate). a, by kind; b is the identity except for
 * ACT_SWIGLU_CLAMP. */
enum activation {
    ACT_SILU,         /* x sigmoid(x) */
    ACT_GELU,         /* x Phi(x), exact (erf) */
    ACT_GELU_TANH,    /* the tanh approximation (gelu_new, gelu_pytorch_tanh) */
    ACT_RELU,
    ACT_RELU2,        /* relu(x)^2 */
    ACT_SWIGLU_CLAMP, /* gpt-oss: a = min(x,7) sigmoid(1.702 min(x,7)), b = clamp(y,-7,7) + 1 */
    ACT_COUNT
};
extern const char *const activation_name[ACT_COUNT]; /* "silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_clamp" */

/* C[m,n] (+)= A·B over k as chains. A(i,k) = a[ (mi ? mi[i] : i)*a_m + (ki ? ki[k] : k)*a_k ],
 * B(k,j) = b[ (bi ? bi[k] : k)*ldb + j ]; C(i,j) = c[i*ldc + j], the chain starts at C when accumulate, else at +0. */
struct outer_args {
    float *c;
    int64_t ldc;
    const float *a;
    int64_t a_m, a_k;
    const int32_t *mi, *ki;
    const float *b;
    int64_t ldb;
    const int32_t *bi;
    int64_t m, n, k;
    bool accumulate;
};

/* Attention of query rows over one head's cache (layouts and types: kv.h). One query row sees positions lo ≤ j < hi, in
 * blocks of ATTN_BLOCK at absolute positions, in ascending order:
 *   s_j = scale * chain_i(q_i k_ji); with cap > 0: s_j = cap tanh(s_j / cap)
 *   block: m' = max(m, max_j s_j), c = exp(m - m'), p_j = exp(s_j - m'), sum[j mod 16] = sum[j mod 16]*c + p_j … one
 *   multiply
 *          by c per block then one add per key, out_i = out_i*c then fma(p_j, v_ji, out_i) per visible key
 * Blocks gather in parts of ATTN_PART positions, again at absolute positions; each part begins with c = 0 and zeros, so
 * that the parts of one row can be computed side by side. A row's parts are joined in ascending order:
 *   join:  m' = max(m, m2), c = exp(m - m'), c2 = exp(m2 - m'), sum = fma(sum2, c2, sum*c), out = fma(out2, c2, out*c)
 *   end:   with a sink: m' = max(m, sink), everything scaled by exp(m - m'), total += exp(sink - m'); out_i /= total,
 *          total the tree of sum[16] (as in dot). */
#define ATTN_BLOCK 64
#define ATTN_PART 1024
/* Rows are tokens × heads: `heads` query heads of each token that share the key head. */
struct attn_args {
    const float *q; /* token t, head g at q + t*ld_q + g*head_dim */
    int64_t ld_q;
    const void *k;          /* key blocks */
    const void *v;          /* value rows */
    enum dtype type;        /* of both: F32, F16, Q8_0 */
    const int64_t *lo, *hi; /* [n_tokens] */
    int64_t n_tokens;
    int32_t heads, head_dim, head_dim_v;
    float scale, cap;      /* cap 0: none */
    const float *sink;     /* [heads] or NULL */
    float *max, *total;    /* m' and total at the end of token t, head g at t + g*ld_stat, for the backward pass; or
                            * NULL */
    int64_t ld_stat;
    float *scratch; /* [ATTN_BLOCK*(head_dim + head_dim_v)]: blocks of a rounded type that many rows see are
                     * widened once; NULL: every time. Changes no bit */
};
/* Rows' state between parts. */
struct attn_rows {
    float *out; /* token t, head g at out + t*ld_out + g*head_dim_v */
    int64_t ld_out;
    float *max; /* [n_tokens*heads] */
    float *sum; /* [n_tokens*heads][16] */
};

/* Gradients between n <= ATTN_BLOCK query rows of one head and one block of keys at position `start`. Of a row and the
 * keys it sees, with s as above, max and total at its end, go the gradient of its output, delta = Σ_i go_i out_i:
 *   p_j = exp(s_j - max) (1/total);  dp_j = chain_i(go_i v_ji);  ds_j = p_j (dp_j - delta) scale'
 *   with scale' = scale, or with a cap scale (1 - tanh²)
 *   dq_i += chain_j(ds_j k_ji);  dk_ji += chain over rows (ds_j q_i);  dv_ji += chain over rows (p_j go_i)
 * chains going on from what stands in the gradients. Rows and keys count in pieces of KEY_BLOCK: where some row of a
 * piece sees some key of another, the others add 0·x to the chains; where no row of the piece sees any, nothing is
 * added. `lo` does not fall from row to row. */
struct attn_back_args {
    const float *q, *go;               /* row r at q + r*ld_q, go + r*ld_go */
    const float *k;                    /* key j of the block at k + j*ld_k */
    const float *k_blocks, *v_blocks;  /* keys and values of the block as key blocks (kv.h) of F32 */
    float *dq, *dk, *dv;               /* as q, as k, and ld_v apart */
    int64_t ld_q, ld_go, ld_k, ld_v;
    const int64_t *lo, *hi;            /* [n] */
    const float *max, *total, *delta;  /* [n] */
    int64_t start, n, n_keys;
    int32_t head_dim, head_dim_v;
    float scale, cap;
    float *scratch; /* [2 * ATTN_BLOCK * ATTN_BLOCK] */
};

struct adamw_args {
    float lr, beta1, beta2, eps, weight_decay; /* decoupled: w -= lr*wd*w */
    float correction1, correction2;            /* 1 - beta^t */
    float grad_scale;                          /* multiplies g first: clipping and accumulation */
};

struct kernels {
    const char *name;

    /* y[i*ldy + j] = dot(x row (xrow ? xrow[i] : i), w row j), i < m, j < n; rows of x are ldx floats apart, rows of w
     * ldw elements of type t (F32, F16, BF16) apart; k elements each. */
    void (*dot_tile)(float *y, int64_t ldy, const float *x, int64_t ldx, const int32_t *xrow, int64_t m, const void *w,
                     enum dtype t, int64_t ldw, int64_t n, int64_t k);
    /* The same for x and w of BF16. Levels agree where bf16_unit is "fp32": the sums of dot_tile. "avx512_bf16": the
     * CPU's own instruction, whose sums are its own (cpu/bf16.c); they depend on one row of x and of w only, too. */
    void (*dot_bf16)(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, const int32_t *xrow, int64_t m,
                     const uint16_t *w, int64_t ldw, int64_t n, int64_t k);
    const char *bf16_unit;
    void (*outer_tile)(const struct outer_args *args);
    /* q [k], d [k/block], sum [k/16] of one row x [k] (codes.h) */
    void (*quantise)(int8_t *q, float *d, int16_t *sum, const float *x, int64_t k, int32_t block);
    /* y[i*ldy + j] = the product (codes.h) of row (xrow ? xrow[i] : first + i) of x and row `row` + j of w, a weight of
     * a block type; i < m, j < n; with panels, `row` is a multiple of PANEL_ROWS. `next`: what the caller will read
     * behind these rows, or NULL for what lies there; changes no bit. */
    void (*q_product)(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                      const struct weight *w, int64_t row, int64_t n, const void *next);
    /* n_blocks blocks of PANEL_ROWS rows as stored, row_bytes apart, into panel order (quant/panel.h). As many bytes
     * from `next` on, unless it is NULL, are fetched meanwhile, in the order in which they lie. */
    void (*q_pack)(uint8_t *panel, const uint8_t *rows, size_t row_bytes, enum dtype t, int64_t n_blocks,
                   const uint8_t *next);
    float (*dot)(const float *x, const float *y, int64_t n);

    /* F32, F16, BF16 only; the other types: tensor.h */
    void (*widen)(float *dst, const void *src, enum dtype t, int64_t n);
    void (*narrow)(void *dst, enum dtype t, const float *src, int64_t n);

    void (*add)(float *y, const float *x, int64_t n);                        /* y += x */
    void (*sum)(float *y, const float *a, const float *b, int64_t n);        /* y = a + b; y may be a or b */
    void (*scale)(float *y, const float *x, float s, int64_t n);             /* y = x*s; y may be x */
    void (*mul)(float *y, const float *a, const float *b, int64_t n);        /* y = a*b; y may be a or b */
    void (*fma_row)(float *y, float w, const float *x, int64_t n);           /* y = fma(w, x, y) */
    void (*exp)(float *y, const float *x, float minus, int64_t n);           /* y = exp(x - minus); y may be x */
    void (*sigmoid)(float *y, const float *x, int64_t n);                    /* y may be x */
    void (*tanh)(float *y, const float *x, int64_t n);                       /* y may be x */
    float (*exp1)(float x), (*log1)(float x), (*tanh1)(float x), (*sigmoid1)(float x); /* behind fm_exp & co. */
    void (*act)(enum activation a, float *u, const float *gate, const float *up, int64_t n); /* u may be gate */
    /* ACT_SWIGLU_CLAMP with another limit than 7 */
    void (*act_clamp)(float limit, float *u, const float *gate, const float *up, int64_t n);
    void (*act_clamp_back)(float limit, float *dgate, float *dup, float *u_again, const float *gate, const float *up,
                           const float *du, int64_t n);
    /* dgate, dup (dup NULL when up is) overwritten from du; dgate may be gate, dup may be up, u_again (or NULL)
     * receives the recomputed act(gate, up) */
    void (*act_back)(enum activation a, float *dgate, float *dup, float *u_again, const float *gate, const float *up,
                     const float *du, int64_t n);

    /* y = x * r * (w + w_add), r = 1/sqrt(dot(x,x)/n + eps); returns r. w NULL: all ones. */
    float (*rmsnorm)(float *y, const float *x, const float *w, float w_add, int64_t n, float eps);
    /* dx += …; dw (or NULL) += …, given r of the forward pass */
    void (*rmsnorm_back)(float *dx, float *dw, const float *dy, const float *x, const float *w, float w_add, float r,
                         int64_t n);
    /* y = (x - mean) * r * w + b; stats[0] = mean, stats[1] = r. w NULL: ones, b NULL: zeros */
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, int64_t n, float eps, float stats[2]);
    void (*layernorm_back)(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w,
                           const float stats[2], int64_t n);

    /* Rotates the first 2*half elements of x in place. Half-split pairs (j, j+half), or interleaved (2j, 2j+1).
     * back: the inverse rotation (sin negated). */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t half, bool interleaved, bool back);

    /* Cross-entropy of one row: returns log(sum exp(x)) - x[target]; *lse receives the logsumexp (max + log of the sum,
     * sixteen partial sums as in dot). */
    float (*xent)(const float *x, int64_t n, int64_t target, float *lse);
    /* dx = scale*(exp(x - lse) - [i == target]) + z_scale*exp(x - lse), overwritten; dx may be x */
    void (*xent_back)(float *dx, const float *x, int64_t n, int64_t target, float lse, float scale, float z_scale);

    /* rows = what they see of positions from … from + ATTN_PART - 1; zeros where that is nothing */
    void (*attn)(const struct attn_args *args, int64_t from, const struct attn_rows *rows);
    /* Adds `part`, which is of positions from …, to rows that hold all before it. */
    void (*attn_join)(const struct attn_args *args, const struct attn_rows *rows, const struct attn_rows *part,
                      int64_t from);
    /* rows.out becomes the result. A row that sees nothing is zero. */
    void (*attn_end)(const struct attn_args *args, const struct attn_rows *rows);
    void (*attn_back)(const struct attn_back_args *args);

    void (*adamw)(float *w, float *m, float *v, const float *g, int64_t n, const struct adamw_args *args);
    /* Sum of squares in double: blocks of 1024 (each sixteen sums and the tree) added in ascending order. */
    double (*sumsq)(const float *x, int64_t n);
};

extern const struct kernels *kern;
/* Chooses `kern`; called by the first thing that needs it (model open, trainer, tests). COE_E_USAGE when COE_ISA names
 * a level this CPU lacks or nobody knows. */
coe_status kernels_init(void);
/* For tests: all levels compiled in that this CPU can run, NULL-terminated, portable first. */
const struct kernels *const *kernels_all(void);

/* Scalar versions of the shared polynomials, same bits as the vector ones. */
float fm_exp(float x);
float fm_log(float x);
float fm_tanh(float x);
float fm_sigmoid(float x);
void fm_sincos(double x, float *sin, float *cos); /* rope tables: argument reduced in double, any |x| < 2^52 */
double fm_pow(double x, double y);                /* x > 0; rope frequencies; correctly rounded to float in practice */

#endif
