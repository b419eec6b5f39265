/* attention.c — a token's expert probabilities are those of the tokens it attends to.
 *
 * Paper: Improving Routing in Sparse Mixture of Experts with Graph of Tokens, 2025 (card: routing.md 15; the mean over
 * heads is the card's default, not verified). With A the attention of the layer itself, mean over its heads:
 *     r'_i = Σ_j A_ij softmax(W x_j)
 * computed by running the layer's queries and keys once more over probabilities as values; gradients flow into them.
 * The logits are log r'. Of sinks only what they take from the sum of a row is left, and the softmax gives it back. */
#include "moe/routers/probability.h"

struct mean_saved {
    struct val *heads, *y;
};

static void mean_back(struct nn *c, void *p)
{
    const struct mean_saved *s = p;
    const int64_t n = s->y->cols, heads = s->heads->cols / n;
    float *d = s->y->grad ? nn_grad(c, s->heads) : NULL;
    if (!d) return;
#pragma omp parallel for schedule(static) if (s->y->rows * s->heads->cols > NN_ALONE_BELOW)
    for (int64_t t = 0; t < s->y->rows; t++)
        for (int64_t h = 0; h < heads; h++)
            kern->fma_row(d + (t * heads + h) * n, 1.0f / (float)heads, s->y->grad + t * n, n);
}

/* y [T, n] = mean over heads [T, heads*n], heads in ascending order */
static struct val *mean_of_heads(struct nn *c, struct val *heads, int64_t n)
{
    struct val *y = heads ? nn_val(c, heads->rows, n) : NULL;
    struct mean_saved *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    const int64_t count = heads->cols / n;
#pragma omp parallel for schedule(static) if (y->rows * heads->cols > NN_ALONE_BELOW)
    for (int64_t t = 0; t < y->rows; t++) {
        float *out = y->data + t * n;
        kern->scale(out, heads->data + t * heads->cols, 1.0f / (float)count, n);
        for (int64_t h = 1; h < count; h++)
            kern->fma_row(out, 1.0f / (float)count, heads->data + t * heads->cols + h * n, n);
    }
    *s = (struct mean_saved){ heads, y };
    return nn_record(c, mean_back, s) ? y : NULL;
}

/* [T, E] → [T, n·E], the same for each key head */
static struct val *repeated(struct nn *c, struct val *r, int32_t n)
{
    struct columns *piece = arena_push(c->arena, (size_t)n * sizeof *piece);
    for (int32_t i = 0; piece && i < n; i++) piece[i] = (struct columns){ 0, r->cols };
    return piece ? nn_columns(c, r, r->cols, piece, n) : NULL;
}

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    const struct moe_attention_seen *seen = &call->pass->attention;
    struct val *r = router_softmax(c, router_scores(call, call->x), call->hook);
    if (!r) return NULL;
    assert(seen->q && seen->k);
    struct attn_shape shape = seen->shape;
    shape.head_dim_v = (int32_t)r->cols;
    shape.kv = DT_F32; /* probabilities are not rounded, whatever the layer's own cache holds */
    struct attn_batch alone;
    struct kv_layer *kv;
    const struct attn_batch *batch = router_batch(call, &alone);
    if (!batch || !router_cache(call, &kv)) return NULL;
    struct val *heads = nn_attention(c, seen->q, seen->k, repeated(c, r, shape.n_kv_heads), &shape, batch, kv);
    return router_log(c, mean_of_heads(c, heads, r->cols));
}

static const struct router_part attention = { .logits = logits,
                                              .matrix = router_has_matrix,
                                              .context = true,
                                              .sees_attention = true,
                                              .check = router_needs_softmax };
COE_PART(router, attention, .summary = "mixes the probabilities of the tokens that a token attends to",
         .paper = "Graph of Tokens, 2025", .card = "routing.md 15", .unit = "sequence", .impl = &attention)
