/* session.c — one timeline of inference: its cache, and evaluation of one or several of them at once. */
#include <string.h>

#include "model/model.h"

#define CHUNK 512 /* tokens per forward pass: bounds the activations of a long prompt */

/* Bytes of one layer's cache, each a multiple of 64 so that what follows is aligned */
struct cache_size {
    size_t k, v, state;
};

static size_t aligned(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* heads times capacity keys of `key` and values of `value` elements of type t */
static struct cache_size of_type(const struct coe_session *s, enum dtype t, int64_t heads, int64_t key, int64_t value)
{
    return (struct cache_size){ aligned(heads * (s->capacity / KEY_BLOCK) * kv_key_bytes(t, key)),
                                aligned(heads * s->capacity * kv_value_bytes(t, value)), 0 };
}

static struct cache_size of_heads(const struct coe_session *s, int64_t heads, int64_t key, int64_t value)
{
    return of_type(s, model_kv_dtype(s->kv_type), heads, key, value);
}

static struct cache_size cache_size(const struct coe_session *s, int32_t l)
{
    const struct spec *spec = &s->model->spec;
    const struct attn_spec *a = &spec->layer[l].attn;
    const struct recurrent_spec *r = &a->recurrent;
    const int64_t qkv = 2 * (int64_t)r->n_k * r->d_k + (int64_t)r->n_v * r->d_v;
    switch (a->kind) {
    case MIX_LATENT:
        if (s->mla == COE_MLA_EXPANDED) return of_heads(s, a->n_heads, a->rope.n_rot + a->latent.nope, a->latent.v_dim);
        return of_heads(s, 1, a->rope.n_rot + a->latent.kv_rank, a->latent.kv_rank);
    case MIX_CONV: return (struct cache_size){ 0, 0, aligned(4 * nn_conv_state(spec->d_model, r->kernel)) };
    case MIX_DELTA:
        return (struct cache_size){ 0, 0,
                                    aligned(4 * (nn_conv_state(qkv, r->kernel) + (int64_t)r->n_v * r->d_k * r->d_v)) };
    case MIX_HEADS: { /* and how many tokens each head has */
        struct cache_size size = of_heads(s, a->n_kv_heads, a->head_dim, a->head_dim);
        size.state = aligned(4 * (int64_t)a->n_kv_heads);
        return size;
    }
    default: return of_heads(s, a->n_kv_heads, a->head_dim, a->head_dim);
    }
}

/* The same of what experts keep */
static size_t expert_state(const struct spec *spec, int32_t l)
{
    return spec->layer[l].is_moe ? (size_t)moe_state(&spec->layer[l].moe) : 0;
}

/* One block for all layers, zeroed */
static coe_status make_expert_states(struct coe_session *s)
{
    const struct spec *spec = &s->model->spec;
    size_t floats = 0;
    for (int32_t l = 0; l < spec->n_layers; l++) floats += expert_state(spec, l);
    if (!floats) return COE_OK;
    s->recurrent = s->remembers = true;
    float *at = s->expert_states = mem_zalloc("states of experts", floats * sizeof(float));
    for (int32_t l = 0; at && l < spec->n_layers; at += expert_state(spec, l++)) s->kv[l].experts = at;
    return at ? COE_OK : COE_E_NOMEM;
}

/* Of the router of each pass of layer l's chain; all 0 where it needs none */
static struct cache_size router_cache_size(const struct coe_session *s, int32_t l)
{
    const struct layer_spec *layer = &s->model->spec.layer[l];
    const struct router_part *r = layer->is_moe ? moe_router(&layer->moe) : NULL;
    const struct attn_spec *a = &layer->attn;
    if (!r || !r->context) return (struct cache_size){ 0 };
    return r->sees_attention ? of_type(s, DT_F32, a->n_kv_heads, a->head_dim, layer->moe.n_experts)
                             : of_type(s, DT_F32, 1, s->model->spec.d_model, layer->moe.n_experts);
}

static coe_status make_router_caches(struct coe_session *s)
{
    const struct spec *spec = &s->model->spec;
    size_t bytes = 0, n = 0;
    for (int32_t l = 0; l < spec->n_layers; l++) {
        const struct cache_size size = router_cache_size(s, l);
        if (!size.k) continue;
        bytes += (size.k + size.v) * (size_t)spec->layer[l].moe.chain.n_iterations;
        n += (size_t)spec->layer[l].moe.chain.n_iterations;
    }
    if (!n) return COE_OK;
    s->router_kv = mem_zalloc("session", n * sizeof *s->router_kv);
    char *at = s->router_memory = mem_zalloc("caches of routers", bytes);
    if (!s->router_kv || !at) return COE_E_NOMEM;
    struct kv_layer *next = s->router_kv;
    for (int32_t l = 0; l < spec->n_layers; l++) {
        const struct cache_size size = router_cache_size(s, l);
        if (!size.k) continue;
        s->kv[l].router = next;
        for (int32_t i = 0; i < spec->layer[l].moe.chain.n_iterations; i++, at += size.k + size.v)
            *next++ = (struct kv_layer){ .k = at, .v = at + size.k, .capacity = s->capacity };
    }
    return COE_OK;
}

const char *model_math_name(coe_math math)
{
    if (math == COE_MATH_FP32) return "fp32";
    return strcmp(kern->bf16_unit, "fp32") ? "bf16 (avx512_bf16)" : "bf16 (fp32)";
}

static coe_status make_caches(struct coe_session *s)
{
    const struct spec *spec = &s->model->spec;
    size_t bytes = 1;
    for (int32_t l = 0; l < spec->n_layers; l++) {
        const struct cache_size n = cache_size(s, l);
        bytes += n.k + n.v + n.state;
        s->recurrent = s->recurrent || n.state > 0;
        if (s->model->far_inv_freq[l] && s->capacity > spec->layer[l].attn.rope.original_positions)
            s->original = spec->layer[l].attn.rope.original_positions;
    }
    s->remembers = s->recurrent || s->original;
    s->kv = mem_zalloc("session", (size_t)spec->n_layers * sizeof *s->kv);
    s->memory = mem_zalloc("key/value cache", bytes);
    if (!s->kv || !s->memory) return COE_E_NOMEM;
    char *at = s->memory;
    for (int32_t l = 0; l < spec->n_layers; l++) {
        const struct cache_size n = cache_size(s, l);
        s->kv[l] = (struct kv_layer){
            .k = at, .v = at + n.k, .state = n.state ? (float *)(void *)(at + n.k + n.v) : NULL, .capacity = s->capacity
        };
        at += n.k + n.v + n.state;
    }
    COE_TRY(make_router_caches(s));
    return make_expert_states(s);
}

coe_status coe_session_open(coe_session **out, const coe_model *m, const coe_session_opts *opts)
{
    const coe_session_opts o = opts ? *opts : (coe_session_opts){ 0 };
    struct coe_session *s = mem_zalloc("session", sizeof *s);
    *out = NULL;
    if (!s) return COE_E_NOMEM;
    if ((unsigned)o.math > COE_MATH_BF16) {
        mem_free(s);
        return coe_fail(COE_E_USAGE, "arithmetic %d: there are fp32 (0) and bf16 (1)", (int)o.math);
    }
    if ((unsigned)o.kv > COE_KV_Q8_0) {
        mem_free(s);
        return coe_fail(COE_E_USAGE, "a key/value cache of type %d: there are f32, f16 and q8_0", (int)o.kv);
    }
    if (o.mla == COE_MLA_EXPANDED && !model_mla_name(m, o.mla)) {
        mem_free(s);
        return coe_fail(COE_E_USAGE, "%s: has no latent attention that could be expanded", m->path);
    }
    if (model_check_task(m, o.task)) {
        mem_free(s);
        return COE_E_USAGE;
    }
    int64_t capacity = o.max_tokens > 0 ? o.max_tokens : COE_MIN(m->spec.max_positions, (int64_t)4096);
    s->model = m;
    s->capacity = (capacity + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK;
    s->on_route = o.on_route;
    s->user = o.user;
    s->mla = o.mla;
    s->math = o.math;
    s->kv_type = o.kv;
    s->task = o.task ? o.task : m->task;
    coe_status status = make_caches(s);
    if (status) {
        coe_session_close(s);
        return status;
    }
    *out = s;
    return COE_OK;
}

void coe_session_close(coe_session *s)
{
    if (!s) return;
    mem_free(s->memory);
    mem_free(s->expert_states);
    mem_free(s->router_kv);
    mem_free(s->router_memory);
    mem_free(s->kv);
    VEC_FREE(&s->past);
    arena_free(&s->arena);
    mem_free(s);
}

/* Recurrent states cannot go back, and keys turned by other factors are no use: the cache starts again and sees the
 * first n tokens once more. */
static coe_status replay(struct coe_session *s, int64_t n)
{
    struct ids kept = s->past;
    coe_route_fn *on_route = s->on_route;
    s->past = (struct ids){ 0 };
    s->position = 0;
    s->on_route = NULL;
    for (int32_t l = 0; l < s->model->spec.n_layers; l++) {
        if (s->kv[l].experts) memset(s->kv[l].experts, 0, expert_state(&s->model->spec, l) * sizeof(float));
            if (s->kv[l].state) memset(s->kv[l].state, 0, cache_size(s, l).state);
    }
    coe_status status = n ? coe_session_eval(s, kept.at, (size_t)n, NULL, 1) : COE_OK;
    s->on_route = on_route;
    VEC_FREE(&kept);
    return status;
}

coe_status coe_session_rewind(coe_session *s, int64_t n_keep)
{
    if (n_keep < 0 || n_keep > s->position)
        return coe_fail(COE_E_USAGE, "cannot keep %lld of %lld tokens", (long long)n_keep, (long long)s->position);
    const bool nearer = s->far && n_keep < s->original;
    if (nearer) s->far = false;
    if (nearer || (s->recurrent && n_keep < s->position)) return replay(s, n_keep);
    s->position = n_keep;
    if (s->remembers) s->past.n = (size_t)n_keep;
    return COE_OK;
}

int64_t coe_session_position(const coe_session *s) { return s->position; }

/* Rows of a batch → each session's callback, experts in ascending id */
struct reporter {
    struct coe_session *const *s;
    const struct attn_batch *batch;
};

static void report_token(const struct coe_session *s, const struct route_record *r, int64_t t, int64_t position)
{
    int32_t expert[1024], n = 0; /* moe_spec_check allows a top_k of 1024 */
    float weight[1024];
    const struct route *rt = &r->route;
    for (int32_t last = -1, i = rt->tok_off[t]; i < rt->tok_off[t + 1] && n < (int32_t)COE_COUNT(expert); i++) {
        int32_t at = -1;
        for (int32_t j = rt->tok_off[t]; j < rt->tok_off[t + 1]; j++)
            if (rt->expert[j] > last && (at < 0 || rt->expert[j] < rt->expert[at])) at = j;
        expert[n] = last = rt->expert[at];
        weight[n++] = rt->weight[at];
    }
    s->on_route(s->user, &(coe_route_event){ r->layer, r->iteration, rt->n_experts, n, position, expert, weight });
}

static void on_route(void *user, const struct route_record *r)
{
    const struct reporter *rep = user;
    if (r->of_attention) return;
    for (int32_t i = 0; i < rep->batch->n_seq; i++)
        for (int64_t t = rep->batch->off[i]; rep->s[i]->on_route && t < rep->batch->off[i + 1]; t++)
            report_token(rep->s[i], r, t, rep->batch->pos0[i] + t - rep->batch->off[i]);
}

/* Everything that can be wrong is found before the first token is fed, so a call either counts as a whole or not at
 * all. */
/* What routes a token by other tokens, or NULL */
static const char *needs_whole(const struct coe_model *m)
{
    const char *why = NULL;
    for (int32_t l = 0; l < m->spec.n_layers && !why; l++) {
        const struct layer_spec *s = &m->spec.layer[l];
        if (s->is_moe) why = moe_needs_whole_sequence(&s->moe);
        if (!why && s->attn.kind == MIX_HEADS) why = moe_needs_whole_sequence(&s->attn.moe);
    }
    return why;
}

static coe_status check_whole(struct coe_session *const *s, int32_t n_seq)
{
    const char *why = needs_whole(s[0]->model);
    for (int32_t i = 0; why && i < n_seq; i++)
        if (s[i]->position)
            return coe_fail(COE_E_USAGE,
                            "%s: %s routes whole sequences: a token's experts depend on other tokens, so it cannot go "
                            "on after %lld tokens; it serves training, `coe eval`, `coe logits` and `coe trace`",
                            s[i]->model->path, why, (long long)s[i]->position);
    return COE_OK;
}

static coe_status check_batch(struct coe_session *const *s, const int32_t *const *ids, const size_t *n, int32_t n_seq)
{
    for (int32_t i = 0; i < n_seq; i++) {
        if (!n[i]) return coe_fail(COE_E_USAGE, "no tokens to evaluate");
        if (s[i]->mla != s[0]->mla)
            return coe_fail(COE_E_USAGE, "a batch of sessions with %s and %s latent attention",
                            model_mla_name(s[0]->model, s[0]->mla), model_mla_name(s[i]->model, s[i]->mla));
        if (s[i]->math != s[0]->math)
            return coe_fail(COE_E_USAGE, "a batch of sessions with %s and %s arithmetic", model_math_name(s[0]->math),
                            model_math_name(s[i]->math));
        if (s[i]->kv_type != s[0]->kv_type)
            return coe_fail(COE_E_USAGE, "a batch of sessions with %s and %s caches", model_kv_name(s[0]->kv_type),
                            model_kv_name(s[i]->kv_type));
        if (s[i]->position + (int64_t)n[i] > s[i]->capacity)
            return coe_fail(COE_E_USAGE,
                            "the cache holds %lld tokens and is full at %lld + %zu; open the session with more",
                            (long long)s[i]->capacity, (long long)s[i]->position, n[i]);
        COE_TRY(model_check_length(s[i]->model, s[i]->position + (int64_t)n[i]));
        for (size_t t = 0; t < n[i]; t++)
            if (ids[i][t] < 0 || ids[i][t] >= s[i]->model->spec.vocab)
                return coe_fail(COE_E_USAGE, "token id %d at position %lld is outside the vocabulary of %d", ids[i][t],
                                (long long)s[i]->position + (long long)t, s[i]->model->spec.vocab);
    }
    return COE_OK;
}

/* One forward pass over take[i] tokens of each session, from done[i] on. */
static coe_status eval_pass(struct coe_session *const *s, const int32_t *const *ids, const size_t *take,
                            const size_t *done, int32_t n_seq, float *const *logits, bool last_only)
{
    const struct coe_model *m = s[0]->model;
    struct arena *a = &s[0]->arena;
    struct arena_mark mark = arena_save(a);
    coe_status status = COE_E_NOMEM;
    size_t total = 0;
    for (int32_t i = 0; i < n_seq; i++) total += take[i];
    int32_t *off = arena_push(a, ((size_t)n_seq + 1) * sizeof *off), *row = arena_push(a, total * sizeof *row);
    int64_t *pos0 = arena_push(a, (size_t)n_seq * sizeof *pos0);
    int32_t *task = arena_push(a, total * sizeof *task);
    struct kv_layer *kv = arena_push(a, (size_t)(m->spec.n_layers * n_seq) * sizeof *kv);
    bool *far = arena_push(a, (size_t)n_seq * sizeof *far);
    if (!off || !row || !pos0 || !task || !kv || !far) goto out;
    for (int32_t i = 0; i < n_seq; i++)
        if (s[i]->remembers && !VEC_RESERVE(&s[i]->past, s[i]->past.n + take[i])) goto out;
    off[0] = 0;
    bool observed = false;
    for (int32_t i = 0; i < n_seq; i++) {
        memcpy(row + off[i], ids[i] + done[i], take[i] * sizeof *row);
        off[i + 1] = off[i] + (int32_t)take[i];
        pos0[i] = s[i]->position;
        for (int32_t t = off[i]; t < off[i + 1]; t++) task[t] = s[i]->task;
        far[i] = s[i]->far;
        observed = observed || s[i]->on_route;
        for (int32_t l = 0; l < m->spec.n_layers; l++) kv[(int64_t)l * n_seq + i] = s[i]->kv[l];
    }
    const struct attn_batch batch = { n_seq, off, pos0, NULL };
    struct reporter reporter = { s, &batch };
    const struct moe_observer observer = { .user = &reporter, .route = on_route };
    struct forward f = { .batch = &batch, .task = task, .kv = kv, .observer = observed ? &observer : NULL,
                         .last_only = last_only, .mla = s[0]->mla, .kv_type = s[0]->kv_type, .far = far };
    struct nn c = { .arena = a, .math = s[0]->math };
    const struct val *y = model_forward(m, &c, row, (int64_t)total, &f);
    if (!y) {
        status = coe_last_status();
        goto out;
    }
    for (int32_t i = 0; i < n_seq; i++) {
        const int64_t first = last_only ? i : off[i], rows = last_only ? 1 : (int64_t)take[i];
        if (logits && logits[i])
            memcpy(logits[i] + (last_only ? 0 : (int64_t)done[i] * y->cols), y->data + first * y->cols,
                   (size_t)(rows * y->cols) * sizeof(float));
        s[i]->position += (int64_t)take[i];
        for (size_t t = 0; s[i]->remembers && t < take[i]; t++) s[i]->past.at[s[i]->past.n++] = ids[i][done[i] + t];
    }
    status = COE_OK;
out:
    arena_rewind(a, mark);
    return status;
}

/* Long prompts in pieces; the last piece gives the last row. */
static coe_status eval_pieces(struct coe_session *s, const int32_t *ids, size_t n, float *logits, bool last_only)
{
    for (size_t done = 0; done < n; done += COE_MIN((size_t)CHUNK, n - done)) {
        const size_t take = COE_MIN((size_t)CHUNK, n - done);
        COE_TRY(eval_pass(&s, &ids, &take, &done, 1, logits ? &logits : NULL, last_only));
    }
    return COE_OK;
}

static bool goes_far(const struct coe_session *s, size_t n)
{
    return s->original && !s->far && s->position + (int64_t)n > s->original;
}

/* Tokens within LongRoPE's original length, then all before the next once more with the other factors, then the rest:
 * so a token's logits depend on the tokens before it only, not on how calls split them. */
static coe_status eval_far(struct coe_session *s, const int32_t *ids, size_t n, float *logits, bool last_only)
{
    const size_t near = (size_t)(s->original - s->position);
    const size_t row = last_only ? 0 : (size_t)s->model->spec.vocab;
    if (near) COE_TRY(eval_pieces(s, ids, near, last_only ? NULL : logits, last_only));
    s->far = true;
    COE_TRY(replay(s, s->position));
    return eval_pieces(s, ids + near, n - near, logits ? logits + near * row : NULL, last_only);
}

static coe_status eval_alone(struct coe_session *s, const int32_t *ids, size_t n, float *logits, bool last_only)
{
    if (goes_far(s, n)) return eval_far(s, ids, n, logits, last_only);
    return eval_pieces(s, ids, n, logits, last_only);
}

/* All in one forward pass */
static coe_status eval_together(struct coe_session *const *s, const int32_t *const *ids, const size_t *n,
                                int32_t n_seq, float *const *logits, bool last_only)
{
    struct arena_mark mark = arena_save(&s[0]->arena);
    size_t *none = arena_push_zero(&s[0]->arena, (size_t)n_seq * sizeof *none);
    coe_status status = none ? eval_pass(s, ids, n, none, n_seq, logits, last_only) : COE_E_NOMEM;
    arena_rewind(&s[0]->arena, mark);
    return status;
}

coe_status session_eval_batch(struct coe_session *const *s, const int32_t *const *ids, const size_t *n, int32_t n_seq,
                              float *const *logits, bool last_only)
{
    COE_TRY(check_batch(s, ids, n, n_seq));
    COE_TRY(check_whole(s, n_seq));
    const bool whole = needs_whole(s[0]->model);
    bool alone = n_seq == 1 && !whole;
    for (int32_t i = 0; i < n_seq; i++) {
        if (whole) s[i]->far = goes_far(s[i], n[i]);
        alone = alone || goes_far(s[i], n[i]);
    }
    if (!alone || whole) return eval_together(s, ids, n, n_seq, logits, last_only);
    for (int32_t i = 0; i < n_seq; i++)
        COE_TRY(eval_alone(s[i], ids[i], n[i], logits ? logits[i] : NULL, last_only));
    return COE_OK;
}

coe_status coe_session_eval(coe_session *s, const int32_t *ids, size_t n, float *logits, int last_only)
{
    return session_eval_batch(&s, &ids, &n, 1, logits ? &logits : NULL, last_only != 0);
}
