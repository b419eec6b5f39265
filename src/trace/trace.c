/* trace.c — the table of columns, and a trace in memory: one block for each column, domain after domain. */
#include "trace/trace_in.h"

#include <string.h>

const char *const trace_level_name[1] = { "counts" };

const struct trace_column_info trace_column_info[TRACE_N_COLUMNS] = {
    [TRACE_TOKENS] = { "tokens", DT_U64, PER_ITERATION },
    [TRACE_PROBABILITY] = { "probability", DT_F64, PER_EXPERT },
    [TRACE_COUNT] = { "count", DT_U64, PER_EXPERT },
    [TRACE_SCORE] = { "score", DT_F64, PER_EXPERT },
    [TRACE_RENORM] = { "renorm", DT_F64, PER_EXPERT },
    [TRACE_GATE] = { "gate", DT_F64, PER_EXPERT },
    [TRACE_NORM] = { "norm", DT_F64, PER_EXPERT },
    [TRACE_NORM2] = { "norm2", DT_F64, PER_EXPERT },
    [TRACE_SCORE_NORM] = { "score_norm", DT_F64, PER_EXPERT },
    [TRACE_RENORM_NORM] = { "renorm_norm", DT_F64, PER_EXPERT },
    [TRACE_GATE_NORM] = { "gate_norm", DT_F64, PER_EXPERT },
    [TRACE_MAX_ABS] = { "max_abs", DT_F32, PER_EXPERT },
    [TRACE_MAX_OUT] = { "max_out", DT_F32, PER_EXPERT },
    [TRACE_MAX_TOKEN] = { "max_token", DT_I64, PER_EXPERT },
    [TRACE_MAX_POSITION] = { "max_position", DT_I64, PER_EXPERT },
    [TRACE_COSELECT] = { "coselect", DT_U64, PER_PAIR },
    [TRACE_CHAIN] = { "chain", DT_U64, PER_STEP },
    [TRACE_INPUT2] = { "input2", DT_F64, PER_INPUT },
    [TRACE_HIDDEN2] = { "hidden2", DT_F64, PER_HIDDEN },
};

static size_t shape_values(const struct trace *t, const struct trace_layer *l, enum trace_shape shape)
{
    const size_t e = (size_t)l->n_experts;
    switch (shape) {
    case PER_ITERATION: return 1;
    case PER_EXPERT: return e;
    case PER_INPUT: return t->importance ? e * (size_t)t->d_model : 0;
    case PER_HIDDEN: return t->importance ? e * (size_t)l->expert_ffn : 0;
    default: return e * e;
    }
}

static int32_t shape_iterations(const struct trace_layer *l, enum trace_shape shape)
{
    return shape == PER_STEP ? l->n_iterations - 1 : l->n_iterations;
}

/* Offsets of every layer inside a domain. Layers are bounded by the reader (read.c): 4096
 * layers, 16 iterations, 65536² pairs make less than 2^48. */
static void lay_out(struct trace *t)
{
    for (int shape = 0; shape < TRACE_N_SHAPES; shape++) {
        size_t at = 0;
        for (int32_t l = 0; l < t->n_layers; l++) {
            t->layer[l].at[shape] = at;
            at += shape_values(t, &t->layer[l], (enum trace_shape)shape) *
                  (size_t)shape_iterations(&t->layer[l], (enum trace_shape)shape);
        }
        t->stride[shape] = at;
    }
}

size_t trace_count(const struct trace *t, enum trace_column c, int32_t layer, int32_t iteration)
{
    const enum trace_shape shape = trace_column_info[c].shape;
    return iteration < shape_iterations(&t->layer[layer], shape) ? shape_values(t, &t->layer[layer], shape) : 0;
}

void *trace_at(const struct trace *t, enum trace_column c, int32_t domain, int32_t layer, int32_t iteration)
{
    const struct trace_column_info *i = &trace_column_info[c];
    const struct trace_layer *l = &t->layer[layer];
    const size_t value =
        (size_t)domain * t->stride[i->shape] + l->at[i->shape] + (size_t)iteration * shape_values(t, l, i->shape);
    return (char *)t->column[c] + value * (size_t)dtype_info[i->type].bytes;
}

size_t trace_column_bytes(const struct trace *t, int c)
{
    const struct trace_column_info *i = &trace_column_info[c];
    return t->domains.n * t->stride[i->shape] * (size_t)dtype_info[i->type].bytes;
}

uint64_t trace_tokens(const struct trace *t)
{
    uint64_t n = 0;
    for (size_t d = 0; d < t->domains.n; d++) n += (uint64_t)t->domains.at[d].tokens;
    return n;
}

struct trace *trace_make(const char *path)
{
    struct trace *t = mem_zalloc("trace", sizeof *t);
    if (!t) return NULL;
    t->path = arena_strdup(&t->arena, path);
    t->route = arena_strdup(&t->arena, "");
    if (t->path && t->route) return t;
    trace_free(t);
    return NULL;
}

coe_status trace_make_layers(struct trace *t, int32_t n)
{
    t->n_layers = n;
    t->layer = arena_push_zero(&t->arena, (size_t)n * sizeof *t->layer);
    return t->layer ? COE_OK : COE_E_NOMEM;
}

void trace_layers_done(struct trace *t) { lay_out(t); }

void trace_want_importance(struct trace *t)
{
    assert(!t->domains.n);
    t->importance = true;
    lay_out(t);
}

static void describe_layer(struct trace_layer *l, const struct coe_model *m, int32_t layer)
{
    const struct moe_spec *s = &m->spec.layer[layer].moe;
    *l = (struct trace_layer){ .layer = layer,
                               .n_experts = s->n_experts,
                               .top_k = s->router.top_k,
                               .n_iterations = s->chain.n_iterations,
                               .n_group = s->router.n_group,
                               .groups_kept = s->router.topk_group,
                               .expert_ffn = s->expert_ffn,
                               .score = s->router.score,
                               .renormalize = s->router.renormalize,
                               .shared_gate = s->chain.shared_gate,
                               .scale = (double)s->router.scale };
}

/* The storage type of the first expert stands for all. */
static const char *expert_type(const struct coe_model *m)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (m->params[i].at.slot == SLOT_EXPERT_DOWN) return dtype_info[m->params[i].w.type].name;
    return "F32";
}

static coe_status describe(struct trace *t, const struct coe_model *m)
{
    t->n_model_layers = m->spec.n_layers;
    t->d_model = m->spec.d_model;
    t->vocab = m->spec.vocab;
    t->family = arena_strdup(&t->arena, m->spec.family);
    t->weights = arena_strdup(&t->arena, expert_type(m));
    if (!t->family || !t->weights) return COE_E_NOMEM;
    if (m->tokenizer) tokenizer_fingerprint(m->tokenizer, t->tokenizer);
    if (m->ckpt) COE_TRY(ckpt_fingerprint(m->ckpt, t->model));
    int32_t n = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++) n += m->spec.layer[l].is_moe;
    if (!n) return coe_fail(COE_E_USAGE, "%s: is a dense model; there are no experts to trace", m->path);
    COE_TRY(trace_make_layers(t, n));
    for (int32_t l = 0, i = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].is_moe) describe_layer(&t->layer[i++], m, l);
    lay_out(t);
    return COE_OK;
}

coe_status trace_new(struct trace **out, const struct coe_model *m, int64_t window)
{
    struct trace *t = trace_make("trace");
    *out = NULL;
    if (!t) return COE_E_NOMEM;
    t->window = window;
    coe_status s = describe(t, m);
    if (s) trace_free(t);
    else *out = t;
    return s;
}

void trace_free(struct trace *t)
{
    if (!t) return;
    for (int c = 0; c < TRACE_N_COLUMNS; c++) mem_free(t->column[c]);
    for (size_t d = 0; d < t->domains.n; d++) VEC_FREE(&t->domains.at[d].files);
    VEC_FREE(&t->domains);
    arena_free(&t->arena);
    mem_free(t);
}

/* Zero, and -1 where a token index says that there was none. */
static void clear_values(const struct trace *t, int c, size_t domain)
{
    const struct trace_column_info *i = &trace_column_info[c];
    const size_t bytes = t->stride[i->shape] * (size_t)dtype_info[i->type].bytes;
    memset((char *)t->column[c] + domain * bytes, i->type == DT_I64 ? 0xFF : 0, bytes);
}

int32_t trace_add_domain(struct trace *t, const char *label)
{
    for (size_t d = 0; d < t->domains.n; d++)
        if (!strcmp(t->domains.at[d].label, label)) return (int32_t)d;
    struct trace_domain domain = { .label = arena_strdup(&t->arena, label) };
    if (!domain.label) return -1;
    const size_t n = t->domains.n + 1;
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        const struct trace_column_info *i = &trace_column_info[c];
        size_t values, bytes;
        if (!coe_mul_size(&values, n, t->stride[i->shape]) ||
            !coe_mul_size(&bytes, values, (size_t)dtype_info[i->type].bytes)) {
            coe_fail(COE_E_NOMEM, "%s: a trace of %zu domains does not fit in memory", t->path, n);
            return -1;
        }
        void *grown = mem_resize("trace", t->column[c], bytes);
        if (!grown) return -1;
        t->column[c] = grown;
    }
    if (!VEC_PUSH(&t->domains, domain)) return -1;
    for (int c = 0; c < TRACE_N_COLUMNS; c++) clear_values(t, c, n - 1);
    return (int32_t)n - 1;
}

static bool same_layers(const struct trace *a, const struct trace *b)
{
    if (a->n_layers != b->n_layers) return false;
    for (int32_t l = 0; l < a->n_layers; l++) {
        const struct trace_layer *x = &a->layer[l], *y = &b->layer[l];
        if (x->layer != y->layer || x->n_experts != y->n_experts || x->n_iterations != y->n_iterations ||
            x->top_k != y->top_k || (a->importance && x->expert_ffn != y->expert_ffn))
            return false;
    }
    return true;
}

static coe_status check_mergeable(const struct trace *t, const struct trace *from)
{
    const struct {
        const char *what, *a, *b;
    } equal[] = { { "model", t->model, from->model },
                  { "tokenizer", t->tokenizer, from->tokenizer },
                  { "plan", t->plan, from->plan },
                  { "route", t->route, from->route },
                  { "kv", model_kv_name(t->kv), model_kv_name(from->kv) } };
    for (size_t i = 0; i < COE_COUNT(equal); i++)
        if (strcmp(equal[i].a, equal[i].b))
            return coe_fail(COE_E_INPUT, "%s: %s is '%s', in %s it is '%s'; such traces do not add up", from->path,
                            equal[i].what, equal[i].b, t->path, equal[i].a);
    if (t->importance != from->importance)
        return coe_fail(COE_E_INPUT, "%s: was recorded %s importance (--imatrix), %s is not; such traces do not add up",
                        from->path, from->importance ? "with" : "without", t->path);
    if (!same_layers(t, from))
        return coe_fail(COE_E_INPUT, "%s: layers and experts differ from those of %s", from->path, t->path);
    return COE_OK;
}

static void add_values(void *to, const void *from, enum dtype type, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (type == DT_U64) ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
        else if (type == DT_F64) ((double *)to)[i] += ((const double *)from)[i];
}

/* Largest elements, and where the first of them was: on a tie the earlier text stays. */
static void merge_maxima(struct trace *t, int32_t to, int64_t offset, const struct trace *from, int32_t d)
{
    const size_t n = t->stride[PER_EXPERT];
    float *abs = t->column[TRACE_MAX_ABS], *out = t->column[TRACE_MAX_OUT];
    int64_t *token = t->column[TRACE_MAX_TOKEN], *position = t->column[TRACE_MAX_POSITION];
    const float *f_abs = from->column[TRACE_MAX_ABS], *f_out = from->column[TRACE_MAX_OUT];
    const int64_t *f_token = from->column[TRACE_MAX_TOKEN], *f_position = from->column[TRACE_MAX_POSITION];
    for (size_t i = 0; i < n; i++) {
        const size_t a = (size_t)to * n + i, b = (size_t)d * n + i;
        out[a] = COE_MAX(out[a], f_out[b]);
        if (f_token[b] < 0 || (token[a] >= 0 && abs[a] >= f_abs[b])) continue;
        abs[a] = f_abs[b];
        token[a] = f_token[b] + offset;
        position[a] = f_position[b];
    }
}

coe_status trace_merge(struct trace *t, const struct trace *from)
{
    COE_TRY(check_mergeable(t, from));
    t->window = COE_MAX(t->window, from->window);
    for (size_t d = 0; d < from->domains.n; d++) {
        const struct trace_domain *source = &from->domains.at[d];
        const int32_t to = trace_add_domain(t, source->label);
        if (to < 0) return COE_E_NOMEM;
        struct trace_domain *target = &t->domains.at[to];
        for (int c = 0; c < TRACE_N_COLUMNS; c++) {
            const struct trace_column_info *i = &trace_column_info[c];
            const size_t n = t->stride[i->shape], bytes = (size_t)dtype_info[i->type].bytes;
            if (n == 0) continue; /* an optional column that this trace was made without */
            add_values((char *)t->column[c] + (size_t)to * n * bytes, (const char *)from->column[c] + d * n * bytes,
                       i->type, n);
        }
        merge_maxima(t, to, target->tokens, from, (int32_t)d);
        target->tokens += source->tokens;
        for (size_t f = 0; f < source->files.n; f++) {
            struct trace_file_source file = source->files.at[f];
            if (!(file.path = arena_strdup(&t->arena, file.path)) || !VEC_PUSH(&target->files, file))
                return COE_E_NOMEM;
        }
    }
    return COE_OK;
}
