/* block.c — see block.h. */
#include "support/block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct weight *add(struct block *b, int64_t rows, int64_t cols, const char *format, ...) COE_PRINTF(4, 5);

static struct weight *add(struct block *b, int64_t rows, int64_t cols, const char *format, ...)
{
    char *name = test_alloc(64);
    va_list args;
    va_start(args, format);
    vsnprintf(name, 64, format, args);
    va_end(args);
    struct weight *w = test_weight(name, test_alloc((size_t)(rows * cols) * sizeof(float)), rows, cols);
    b->list[b->n++] = w;
    return w;
}

static bool shape_of(const struct block *b, const struct part_weight *w, const double *param, int32_t t, int64_t *rows,
                     int64_t *cols)
{
    const bool first = !b->nth && !t && (!b->spec.chain.shared_gate || b->spec.chain.n_iterations == 1);
    const struct part_at at = { .spec = &b->spec, .param = param, .d_model = b->d, .nth = b->nth,
                                .iteration = t, .first = first };
    *rows = *cols = 1;
    return w->shape(&at, rows, cols);
}

/* What the router declares, named "router.fc1.weight.0" after the pass; what passes share is that of pass 0. */
static void add_router_parts(struct block *b)
{
    const double *param;
    const struct part_weight *w = moe_part_table(&b->spec, 0, &param);
    for (int32_t i = 0; w && w[i].name; i++)
        for (int32_t t = 0; t < b->spec.chain.n_iterations; t++) {
            int64_t rows, cols;
            const bool shared = w[i].scope != PART_OF_ITERATION || b->spec.chain.shared_gate;
            if (t && shared) b->w.router_part[t][i] = b->w.router_part[0][i];
            else if (shape_of(b, &w[i], param, t, &rows, &cols))
                b->w.router_part[t][i] = add(b, rows, cols, "router.%s.%d", w[i].name, t);
        }
}

static void add_routers(struct block *b)
{
    const struct moe_spec *s = &b->spec;
    for (int32_t t = 0; t < s->chain.n_iterations; t++) {
        if (t && s->chain.shared_gate) {
            b->w.router[t] = b->w.router[0];
            b->w.router_bias[t] = b->w.router_bias[0];
            b->w.selection_bias[t] = b->w.selection_bias[0];
            continue;
        }
        if (moe_router_matrix(s)) b->w.router[t] = add(b, s->n_experts, b->d, "router.%d", t);
        if (s->router.bias) b->w.router_bias[t] = add(b, 1, s->n_experts, "router_bias.%d", t);
        if (s->router.selection_bias) b->w.selection_bias[t] = add(b, 1, s->n_experts, "selection_bias.%d", t);
    }
    add_router_parts(b);
    if (s->chain.learned_weight) b->w.coe_weight = add(b, 1, 1, "coe_weight");
}

static const struct weight **row_of(int32_t n) { return test_alloc((size_t)n * sizeof(struct weight *)); }

/* What the kinds of experts declare: "range.0.lora_A.weight", of single experts "experts.3.lora_A.weight". */
static void add_kind_parts(struct block *b)
{
    struct expert_range r[MAX_RANGES];
    for (int32_t g = 0, n = moe_ranges(&b->spec, r); g < n && b->spec.n_ranges; g++) {
        const struct part_at at = { .spec = &b->spec, .param = r[g].param, .range = &r[g], .d_model = b->d };
        const struct part_weight *w = moe_kind(&r[g])->weights;
        for (int32_t i = 0; w && w[i].name; i++) {
            int64_t rows = 1, cols = 1;
            const bool own = w[i].scope == PART_OF_EXPERT;
            const struct weight **row = own ? row_of(b->spec.n_experts) : NULL;
            if (!w[i].shape(&at, &rows, &cols)) continue;
            for (int32_t e = r[g].first; own && e < r[g].first + r[g].n; e++)
                row[e] = add(b, rows, cols, "experts.%d.%s", e, w[i].name);
            if (own) b->w.expert_part[g][i] = row;
            else b->w.kind_part[g][i] = add(b, rows, cols, "range.%d.%s", g, w[i].name);
        }
    }
}

static void add_experts(struct block *b, int form)
{
    add_kind_parts(b);
    const int32_t n = b->spec.n_experts;
    const struct weight **gb = row_of(n), **ub = row_of(n), **db = row_of(n);
    b->gate = test_alloc((size_t)n * sizeof *b->gate);
    b->up = test_alloc((size_t)n * sizeof *b->up);
    b->down = test_alloc((size_t)n * sizeof *b->down);
    for (int32_t e = 0; e < n; e++) {
        const struct expert_range range = moe_range_of(&b->spec, e);
        const int64_t f = range.ffn;
        if (!moe_kind(&range)->matrices) continue;
        b->gate[e] = add(b, f, b->d, "experts.%d.gate", e);
        if (!(form & BLOCK_UNGATED)) b->up[e] = add(b, f, b->d, "experts.%d.up", e);
        b->down[e] = add(b, b->d, f, "experts.%d.down", e);
        if (!(form & BLOCK_BIASES)) continue;
        gb[e] = add(b, 1, f, "experts.%d.gate_bias", e);
        ub[e] = add(b, 1, f, "experts.%d.up_bias", e);
        db[e] = add(b, 1, b->d, "experts.%d.down_bias", e);
    }
    b->w.gate = (const struct weight *const *)b->gate;
    b->w.up = form & BLOCK_UNGATED ? NULL : (const struct weight *const *)b->up;
    b->w.down = (const struct weight *const *)b->down;
    if (form & BLOCK_BIASES) b->w.gate_bias = gb, b->w.up_bias = ub, b->w.down_bias = db;
}

struct block block_make(const struct moe_spec *spec, int64_t d, int form) { return block_make_nth(spec, d, form, 0); }

struct block block_make_nth(const struct moe_spec *spec, int64_t d, int form, int32_t nth)
{
    struct block b = { .spec = *spec, .d = d, .nth = nth };
    assert_ok(moe_spec_check(spec, "block"));
    const int32_t passes = (3 + PART_WEIGHTS) * spec->chain.n_iterations;
    const int32_t experts = (6 + PART_WEIGHTS) * spec->n_experts + MAX_RANGES * PART_WEIGHTS;
    b.list = test_alloc((size_t)(passes + experts + 8) * sizeof *b.list);
    add_routers(&b);
    add_experts(&b, form);
    if (spec->out_bias) b.w.out_bias = add(&b, 1, d, "out_bias");
    if (!spec->shared_ffn) return b;
    const int64_t wide = d * moe_shared_tokens(spec);
    b.w.shared_gate = add(&b, spec->shared_ffn, wide, "shared.gate");
    if (!(form & BLOCK_SHARED_UNGATED)) b.w.shared_up = add(&b, spec->shared_ffn, wide, "shared.up");
    b.w.shared_down = add(&b, wide, spec->shared_ffn, "shared.down");
    if (spec->shared_gate) b.w.shared_expert_gate = add(&b, 1, wide, "shared_expert_gate");
    return b;
}

void block_random(struct block *b, uint64_t seed, double scale)
{
    for (size_t i = 0; i < b->n; i++) {
        struct weight *w = b->list[i];
        const int64_t n = weight_count(w);
        memcpy(w->master, random_floats(seed * 1000 + i, n, w->rows > 1 ? scale / sqrt((double)w->cols) : 0.3),
               (size_t)n * sizeof(float));
    }
}

struct weight *block_weight(const struct block *b, const char *format, ...)
{
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    for (size_t i = 0; i < b->n; i++)
        if (!strcmp(b->list[i]->name, name)) return b->list[i];
    fail_msg("the block has no weight %s", name);
    return NULL;
}

void block_set(const struct block *b, const char *name, const float *values, int64_t n)
{
    struct weight *w = block_weight(b, "%s", name);
    assert_int_equal(n, weight_count(w));
    memcpy(w->master, values, (size_t)n * sizeof *values);
}

void block_zero_grad(struct block *b)
{
    for (size_t i = 0; i < b->n; i++) memset(b->list[i]->grad, 0, (size_t)weight_count(b->list[i]) * sizeof(float));
}

struct val *block_logits(struct block *b, struct moe_pass *pass, int32_t t, struct val *x)
{
    struct val *added = NULL;
    const struct router_call call = { pass, &b->spec, &b->w, b->nth, t, x, NULL, &added };
    struct val *z = moe_router(&b->spec)->logits(&call);
    if (!z) fail_msg("%s", coe_error());
    return z;
}

struct val *block_forward(struct block *b, struct nn *c, struct val *h, struct val *x0, struct block_run *how)
{
    struct block_run none = { 0 };
    if (!how) how = &none;
    if (!h) h = nn_wrap(c, test_alloc((size_t)(x0->rows * x0->cols) * sizeof(float)), x0->rows, x0->cols);
    struct moe_pass pass = { .c = c,
                             .executor = &executor_local,
                             .observer = how->observer,
                             .records = how->records,
                             .max_records = MAX_ITERATIONS,
                             .batch = how->batch,
                             .task = how->task };
    struct val *y = moe_layer(&pass, &b->spec, &b->w, how->hook, 0, h, x0, NULL, NULL);
    if (!y) fail_msg("%s", coe_error());
    how->n_records = pass.n_records;
    return y;
}
