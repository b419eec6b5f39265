/* bench_cost.c — what one token needs of the machine: the formulas behind every share that `coe bench` prints
 * (bench/README.md explains them).
 *
 *     operations   2 for each weight that a token is multiplied with: attention's projections, router, dense layers,
 *                  shared experts, top-k of the routed ones for each pass of a chain. The head once for each token that
 *                  logits are asked of. Against the int8 peak for weights in blocks, the BF16 peak for BF16 weights
 *                  under --math bf16 where the CPU has such products, the FP32 peak for others.
 *     bytes        of the same matrices, as they are stored
 *     attention    2 (head_dim + head_dim_v) operations for each head and visible key, against the FP32 peak; bytes of
 *                  the visible keys and values, once for each block of tokens */
#include <string.h>

#include "cli/bench.h"

static enum limit arithmetic(const struct param *p, coe_math math)
{
    if (dtype_info[p->w.type].block > 1) return LIMIT_INT8;
    const bool asked = math == COE_MATH_BF16 && p->w.type == DT_BF16 && slot_info[p->at.slot].class != CLASS_ROUTER;
    return asked && strcmp(kern->bf16_unit, "fp32") ? LIMIT_BF16 : LIMIT_FP32;
}

/* How often a token is multiplied with a parameter, on average over the experts of its layer */
static double uses(const struct coe_model *m, const struct param *p)
{
    const struct layer_spec *layer = &m->spec.layer[p->at.layer];
    const enum slot_scope scope = slot_info[p->at.slot].scope;
    if (slot_info[p->at.slot].is_vector || p->at.slot == SLOT_POSITIONS) return 0;
    if (p->at.slot == SLOT_EMBED) return m->spec.tied ? 1 : 0; /* a row of it is copied */
    if (p->at.slot == SLOT_ROUTER_OF_MODEL) return model_n_records(m); /* in each routing decision */
    if (scope == SCOPE_PROJECTION && p->at.slot != SLOT_MIX_ROUTER) {
        const struct moe_spec *beside = &layer->projections.moe;
        return (double)COE_MIN(beside->router.top_k, beside->n_experts) / beside->n_experts;
    }
    if (scope == SCOPE_EXPERT || scope == SCOPE_ATTN_EXPERT) {
        const struct moe_spec *moe = scope == SCOPE_EXPERT ? &layer->moe : &layer->attn.moe;
        const double n = spec_experts(&m->spec, p->at), k = COE_MIN(moe->router.top_k, n);
        return n > 0 ? k / n * COE_MAX(moe->chain.n_iterations, 1) : 0;
    }
    return 1;
}

struct cost cost_token(const struct coe_model *m, coe_math math)
{
    struct cost c = { 0 };
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const double n = uses(m, p), ops = 2 * (double)weight_count(&p->w) * n;
        const bool head = p->at.slot == SLOT_HEAD || p->at.slot == SLOT_EMBED;
        uint64_t bytes = 0;
        (void)dtype_bytes(p->w.type, (uint64_t)weight_count(&p->w), &bytes); /* fits: it is mapped */
        c.bytes += n * (double)bytes;
        if (head) c.head[arithmetic(p, math)] += ops;
        else c.ops[arithmetic(p, math)] += ops;
    }
    return c;
}

/* Elements of a key and of a value, the heads that the cache keeps for one position and the query heads that go over
 * them. */
struct seen {
    int64_t k, v, stored_heads, query_heads;
};

static struct seen seen_by(const struct attn_spec *a, coe_mla mla)
{
    const int32_t rot = a->rope.n_rot, rank = a->latent.kv_rank;
    switch (a->kind) {
    case MIX_CONV:
    case MIX_DELTA: return (struct seen){ 0, 0, 0, 0 };
    case MIX_LATENT:
        if (mla == COE_MLA_EXPANDED)
            return (struct seen){ rot + a->latent.nope, a->latent.v_dim, a->n_heads, a->n_heads };
        return (struct seen){ rot + rank, rank, 1, a->n_heads };
    default: return (struct seen){ a->head_dim, a->head_dim, a->n_kv_heads, a->n_heads };
    }
}

struct attention_cost cost_attention(const struct coe_model *m, const coe_session_opts *form, int64_t first, int64_t n,
                                     int64_t passes)
{
    const enum dtype kv = model_kv_dtype(form->kv);
    struct attention_cost c = { 0, 0 };
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct attn_spec *a = &m->spec.layer[l].attn;
        const struct seen s = seen_by(a, form->mla);
        const int64_t window = a->chunk ? a->chunk : a->window;
        double pairs = 0, positions = 0;
        for (int64_t t = first; t < first + n; t++) pairs += (double)(window ? COE_MIN(t + 1, window) : t + 1);
        for (int64_t b = 1; b <= passes; b++) { /* what the last token of a block sees, and the window of its first */
            const int64_t end = first + n * b / passes, in_block = n * b / passes - n * (b - 1) / passes;
            positions += (double)(window ? COE_MIN(end, window + in_block) : end);
        }
        c.ops += 2 * (double)((s.k + s.v) * s.query_heads) * pairs;
        c.bytes += ((double)kv_key_bytes(kv, s.k) / KEY_BLOCK + (double)kv_value_bytes(kv, s.v)) *
                   (double)s.stored_heads * positions;
    }
    return c;
}
