/* heads.c — attention whose heads are experts: each token takes part in some of them and is not there for the others.
 *
 * Paper: Union of Experts, 2025 (card: routing.md 14), its selective multi-head attention. A slice e is a key head with
 * the query heads that share it: rows of W_q, W_k, W_v and their biases, columns of W_o. Slice e of token t, if the
 * token chose it, attends to the tokens up to t that chose it, too; positions count those tokens only, for the rope
 * and in the cache, which holds no others. Then
 *
 *     y_t = Σ_{e chosen} g_te · W_o[:, e] o_te      g 1 with unit_weights, else the router's weight
 *
 * With all slices chosen and unit_weights this is the dense attention, bit for bit. How it is done: rows are sorted by
 * slice, sequence and token (the route's own order), and what one sequence has of one slice is a sequence of its own to
 * nn_attention. W_o is applied once, to rows with zeros for heads that were not chosen. */
#include <string.h>

#include "model/pass.h"
#include "moe/experts/rows.h"

static struct route_record *route_heads(struct pass *p, int32_t l, struct val *x)
{
    struct moe_pass *moe = &p->moe;
    struct route_record *rec = moe_route_attention(p->c, &p->m->spec.layer[l].attn.moe,
                                                   p->m->layer[l].attn_moe.router[0], l, p->f->batch, x);
    if (!rec) return NULL;
    if (moe->observer && moe->observer->route) moe->observer->route(moe->observer->user, rec);
    return rec;
}

/* ---- what one sequence has of one slice ---- */

struct subsets {
    struct attn_batch batch; /* those that are not empty */
    struct kv_layer *kv;     /* of them, or NULL */
    int64_t *position;       /* [n_slots] */
};

/* The cache of a slice: its key head of the sequence's */
static struct kv_layer slice_cache(const struct pass *p, const struct attn_spec *a, const struct kv_layer *of,
                                   int32_t slice)
{
    const enum dtype t = model_kv_dtype(p->f->kv_type);
    const int64_t keys = of->capacity / KEY_BLOCK * kv_key_bytes(t, a->head_dim);
    return (struct kv_layer){ .k = (char *)of->k + slice * keys,
                              .v = (char *)of->v + slice * of->capacity * kv_value_bytes(t, a->head_dim),
                              .capacity = of->capacity };
}

/* Rows from … end-1 of a slice that belong to sequence i: their positions, and what they may see of a packed row */
static void place_rows(const struct attn_batch *b, const struct route *r, int32_t from, int32_t end, int64_t first,
                       int32_t i, int64_t *position, int64_t *start)
{
    for (int32_t row = from, seen = from; row < end; row++) {
        position[row] = first + row - from;
        if (!start) continue;
        const int64_t begins = b->start[r->row_token[row]] - b->pos0[i] + b->off[i]; /* as a row of the batch */
        while (r->row_token[seen] < begins) seen++;
        start[row] = position[seen];
    }
}

static bool make_subsets(struct pass *p, int32_t l, const struct route *r, struct kv_layer *kv, struct subsets *s)
{
    struct arena *a = p->c->arena;
    const struct attn_batch *b = p->f->batch;
    const size_t most = (size_t)b->n_seq * (size_t)r->n_experts;
    int32_t *off = arena_push_zero(a, (most + 1) * sizeof *off);
    int64_t *pos0 = arena_push(a, most * sizeof *pos0), *start = NULL;
    s->position = arena_push(a, (size_t)r->n_slots * sizeof *s->position);
    s->kv = kv ? arena_push(a, most * sizeof *s->kv) : NULL;
    if (b->start) start = arena_push(a, (size_t)r->n_slots * sizeof *start);
    if (!off || !pos0 || !s->position || (kv && !s->kv) || (b->start && !start)) return false;
    int32_t n = 0;
    for (int32_t e = 0; e < r->n_experts; e++)
        for (int32_t i = 0, row = r->off[e]; i < b->n_seq; i++) {
            const int32_t from = row;
            float *have = kv ? &kv[i].state[e] : NULL; /* tokens in the slice's cache */
            while (row < r->off[e + 1] && r->row_token[row] < b->off[i + 1]) row++;
            if (row == from) continue;
            pos0[n] = have ? (int64_t)*have : 0;
            place_rows(b, r, from, row, pos0[n], i, s->position, start);
            if (kv) s->kv[n] = slice_cache(p, &p->m->spec.layer[l].attn, &kv[i], e);
            if (have) *have += (float)(row - from);
            off[++n] = row;
        }
    s->batch = (struct attn_batch){ n, off, pos0, start };
    return true;
}

/* ---- projections ---- */

static struct val *project(struct nn *c, struct val *x, struct groups of, const struct weight *w,
                           const struct weight *bias)
{
    const struct weight *const *slice = experts_blocks(c, w, of.n);
    const struct weight *const *b = bias ? experts_blocks(c, bias, of.n) : NULL;
    struct val *y = slice && (b || !bias) ? experts_linear(c, x, of, slice) : NULL;
    return y && b ? experts_add_bias(c, y, of, b) : y;
}

static struct val *finish_qk(struct pass *p, int32_t l, struct val *x, enum slot norm, const float *cos,
                             const float *sin)
{
    const struct spec *s = &p->m->spec;
    const struct attn_spec *a = &s->layer[l].attn;
    const struct weight *w = a->qk_norm != QK_NORM_NONE ? p->m->layer[l].slot[norm] : NULL;
    if (w && !a->norm_after_rope) x = nn_rmsnorm(p->c, x, w, s->norm_add, s->norm_eps);
    if (a->clip > 0) x = nn_clamp(p->c, x, a->clip);
    if (x && cos && !nn_rope(p->c, x, a->head_dim, cos, sin, a->rope.n_rot / 2, a->rope.interleaved)) return NULL;
    return w && a->norm_after_rope ? nn_rmsnorm(p->c, x, w, s->norm_add, s->norm_eps) : x;
}

/* ---- back to tokens ---- */

struct spread {
    struct val *o, *y;
    const struct route *r;
};

static void spread_back(struct nn *c, void *saved)
{
    const struct spread *s = saved;
    const int64_t n = s->o->cols;
    float *dout = s->y->grad ? nn_grad(c, s->o) : NULL;
    if (!dout) return;
#pragma omp parallel for schedule(dynamic) if (s->o->rows * n > NN_ALONE_BELOW)
    for (int32_t e = 0; e < s->r->n_experts; e++)
        for (int32_t row = s->r->off[e]; row < s->r->off[e + 1]; row++) {
            const float *dy = s->y->grad + s->r->row_token[row] * s->y->cols + e * n;
            const int32_t slot = s->r->row_slot[row];
            s->r->weight_grad[slot] += kern->dot(dy, s->o->data + row * n, n);
            kern->fma_row(dout + row * n, s->r->weight[slot], dy, n);
        }
}

/* y [T, slices · n]: each row of o [n_slots, n], weighed, where its token and slice are; else zero */
static struct val *spread(struct nn *c, struct val *o, const struct route *r)
{
    struct spread *s = o ? arena_push(c->arena, sizeof *s) : NULL;
    struct val *y = s ? nn_val(c, r->n_tokens, r->n_experts * o->cols) : NULL;
    if (!y) return NULL;
    const int64_t n = o->cols;
    memset(y->data, 0, (size_t)(y->rows * y->cols) * sizeof(float));
#pragma omp parallel for schedule(dynamic) if (o->rows * n > NN_ALONE_BELOW)
    for (int32_t e = 0; e < r->n_experts; e++)
        for (int32_t row = r->off[e]; row < r->off[e + 1]; row++)
            kern->scale(y->data + r->row_token[row] * y->cols + e * n, o->data + row * n, r->weight[r->row_slot[row]],
                        n);
    *s = (struct spread){ o, y, r };
    return nn_record(c, spread_back, s) ? y : NULL;
}

/* cos, sin [n, half] at s->position. Heads count their own tokens, so in a long batch positions come again: then each
 * is computed once. */
static bool fill_tables(struct pass *p, int32_t l, const struct subsets *s, int64_t n, float *cos, float *sin)
{
    const int32_t half = p->m->spec.layer[l].attn.rope.n_rot / 2;
    const float *inv_freq = p->m->inv_freq[l], factor = p->m->rope_factor[l];
    struct arena *arena = p->c->arena;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count = COE_MAX(count, s->position[i] + 1);
    if (count > n / 2) {
        rope_fill(inv_freq, factor, half, s->position, n, cos, sin);
        return true;
    }
    const struct arena_mark mark = arena_save(arena);
    const size_t row = (size_t)half * sizeof(float);
    int64_t *each = arena_push(arena, (size_t)count * sizeof *each);
    float *once_cos = arena_push(arena, (size_t)count * row), *once_sin = arena_push(arena, (size_t)count * row);
    if (!each || !once_cos || !once_sin) return false;
    for (int64_t i = 0; i < count; i++) each[i] = i;
    rope_fill(inv_freq, factor, half, each, count, once_cos, once_sin);
    for (int64_t i = 0; i < n; i++) {
        memcpy(cos + i * half, once_cos + s->position[i] * half, row);
        memcpy(sin + i * half, once_sin + s->position[i] * half, row);
    }
    arena_rewind(arena, mark);
    return true;
}

static bool tables(struct pass *p, int32_t l, const struct subsets *s, int64_t n, float **cos, float **sin)
{
    const struct rope_spec *rope = &p->m->spec.layer[l].attn.rope;
    const int32_t half = rope->n_rot / 2;
    *cos = *sin = NULL;
    if (rope->kind == ROPE_NONE) return true;
    *cos = arena_push(p->c->arena, (size_t)(n * half) * sizeof **cos);
    *sin = arena_push(p->c->arena, (size_t)(n * half) * sizeof **sin);
    if (!*cos || !*sin) return false;
    return fill_tables(p, l, s, n, *cos, *sin);
}

struct val *pass_heads(struct pass *p, int32_t l, struct val *x, struct kv_layer *kv)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    struct route_record *rec = route_heads(p, l, x);
    if (!rec) return NULL;
    const struct route *r = &rec->route;
    const struct groups of = { r->n_experts, r->off };
    struct subsets s;
    float *cos, *sin;
    if (!make_subsets(p, l, r, kv, &s) || !tables(p, l, &s, r->n_slots, &cos, &sin)) return NULL;
    struct val *rows = experts_pick(c, x, r->row_token, r->n_slots);
    struct val *q = finish_qk(p, l, project(c, rows, of, w[SLOT_Q], w[SLOT_Q_BIAS]), SLOT_Q_NORM, cos, sin);
    struct val *k = finish_qk(p, l, project(c, rows, of, w[SLOT_K], w[SLOT_K_BIAS]), SLOT_K_NORM, cos, sin);
    struct val *v = project(c, rows, of, w[SLOT_V], w[SLOT_V_BIAS]);
    if (a->clip > 0) v = nn_clamp(c, v, a->clip);
    const struct attn_shape shape = { .n_heads = a->n_heads / a->n_kv_heads,
                                      .n_kv_heads = 1,
                                      .head_dim = a->head_dim,
                                      .head_dim_v = a->head_dim,
                                      .scale = a->scale,
                                      .cap = a->cap,
                                      .kv = model_kv_dtype(p->f->kv_type) };
    struct val *o = nn_attention(c, q, k, v, &shape, &s.batch, s.kv);
    return nn_linear(c, spread(c, o, r), w[SLOT_O], w[SLOT_O_BIAS]);
}

coe_status heads_check(const struct attn_spec *a, const char *where)
{
    const struct {
        bool no;
        const char *why;
    } rules[] = {
        { a->kind == MIX_LATENT, "latent attention (MLA): all heads share one latent, there is nothing to cut" },
        { a->kind != MIX_HEADS && a->kind != MIX_LATENT, "a layer that mixes tokens without such heads" },
        { a->sinks, "sinks: they are scores beside those of all tokens, chosen or not" },
        { a->gate != ATTN_GATE_NONE, "a gate on the output of all heads" },
        { a->qk_norm == QK_NORM_FULL, "a norm over all heads together (qk_norm full)" },
        { a->window || a->chunk, "a window or chunks: they count positions, and a head counts its own tokens" },
        { a->temper != 0, "queries tempered by position" },
        { a->rope.kind == ROPE_LONG || a->rope.limit, "a rope that changes with the length of the text" },
    };
    for (size_t i = 0; i < COE_COUNT(rules); i++)
        if (rules[i].no) return coe_fail(COE_E_INPUT, "%s: attention_experts with %s", where, rules[i].why);
    return moe_spec_check(&a->moe, where);
}

COE_PART(mixer, heads, .summary = "attention heads as experts: a token is there for some of them only",
         .paper = "Union of Experts, 2025", .card = "routing.md 14", .unit = "token")
