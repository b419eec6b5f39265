/* Golden: selections, capacities and null experts of fixtures/methods: top-p, expert choice, growing k, top-2 with
 * capacity, AdaMoE, transport, THOR's
 * consistency. */
#include "support/golden.h"

#include <stdio.h>
#include <string.h>

#include "moe/selection/transport.h"
#include "support/block.h"
#include "support/routes.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4

static const json_t *parameters(const struct golden_folder *f)
{
    return json_object_get(golden_json(f, "about.json"), "parameters");
}

static int32_t whole(const json_t *o, const char *key)
{
    int32_t n = 0;
    assert_ok(json_need_i32(o, key, 1, 1 << 20, &n, "parameters"));
    return n;
}

/* weights [T, E], 0 where a token has no slot */
static float *dense(const struct route *r)
{
    float *w = test_alloc((size_t)r->n_tokens * (size_t)r->n_experts * sizeof *w);
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t s = r->tok_off[t]; s < r->tok_off[t + 1]; s++)
            w[(int64_t)t * r->n_experts + r->expert[s]] = r->weight[s];
    return w;
}

static void assert_gates(const char *what, const struct route *r, const struct array *gates)
{
    assert_int_equal(gates->n, (int64_t)r->n_tokens * r->n_experts);
    assert_close(what, dense(r), gates->f, gates->n, ABS_TOL, REL_TOL);
}

/* x · Wᵀ (+ b) */
static const float *logits_of(const struct array *x, const struct array *w, const struct array *b)
{
    struct nn *c = test_alloc(sizeof *c);
    c->arena = test_arena();
    const int64_t rows = x->n / w->dim[1];
    struct val *z = nn_linear(c, nn_wrap(c, x->f, rows, w->dim[1]), test_weight("weight", w->f, w->dim[0], w->dim[1]),
                              b ? test_weight("bias", b->f, 1, b->n) : NULL);
    if (!z) fail_msg("%s", coe_error());
    return z->data;
}

/* "p04" is p = 0.4: slots of a token in idx and weight, -1 and 0 where there is none */
static void top_p(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array x = tensor_array(in, "x"), w = tensor_array(in, "router.weight");
    const json_t *list = json_object_get(parameters(f), "top_p");
    const int32_t experts = (int32_t)w.dim[0];
    for (size_t i = 0; i < json_array_size(list); i++) {
        const double p = json_number_value(json_array_get(list, i));
        char name[16];
        snprintf(name, sizeof name, "p%02d", (int)(p * 10 + 0.5));
        const struct array count = tensor_array(want, "%s.count", name), idx = tensor_array(want, "%s.idx", name);
        const struct array weight = tensor_array(want, "%s.weight", name);
        struct moe_spec s = routes_spec(experts, 1, "top_p");
        s.router.param[0] = p;
        const struct route *r = &routes_of(&s, NULL, logits_of(&x, &w, NULL), count.n, NULL)->route;
        for (int32_t t = 0; t < r->n_tokens; t++) {
            const int64_t row = (int64_t)t * experts;
            /* a sum that only rounding takes to 1 may leave out what weighs nothing */
            if (p < 1 || n_chosen(r, t) > count.i[t]) assert_int_equal(n_chosen(r, t), count.i[t]);
            assert_ids("experts", r->expert + r->tok_off[t], idx.i + row, n_chosen(r, t));
            assert_close("weights", r->weight + r->tok_off[t], weight.f + row, n_chosen(r, t), ABS_TOL, REL_TOL);
        }
    }
}

/* ---- expert choice: rows are position * batch + sequence ---- */

static struct array by_sequence(const struct array *a, int32_t n_seq)
{
    struct array out = *a;
    const int64_t cols = a->dim[1], length = a->dim[0] / n_seq;
    out.f = test_alloc((size_t)a->n * sizeof *out.f);
    for (int32_t b = 0; b < n_seq; b++)
        for (int64_t s = 0; s < length; s++)
            memcpy(out.f + (b * length + s) * cols, a->f + (s * n_seq + b) * cols, (size_t)cols * sizeof *out.f);
    return out;
}

static void expert_choice(const struct golden_folder *f)
{
    static const struct {
        const char *name;
        enum score_kind score;
        bool by_logit, per_batch;
    } cases[] = {
        { "pre_softmax", SCORE_SOFTMAX, false, false }, { "pre_softmax_batch", SCORE_SOFTMAX, false, true },
        { "post_softmax", SCORE_SOFTMAX, true, false }, { "post_softmax_batch", SCORE_SOFTMAX, true, true },
        { "post_sigmoid", SCORE_SIGMOID, true, false },
    };
    const struct ckpt *want = golden_ckpt(f, "expect.safetensors");
    const struct array raw = tensor_array(golden_ckpt(f, "case.safetensors"), "router_logits");
    const int32_t n_seq = whole(parameters(f), "batch"), rows = (int32_t)raw.dim[0];
    const struct array z = by_sequence(&raw, n_seq);
    int32_t *off = test_alloc(((size_t)n_seq + 1) * sizeof *off);
    for (int32_t i = 0; i <= n_seq; i++) off[i] = rows / n_seq * i;
    const struct attn_batch batch = { n_seq, off, NULL, NULL };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct moe_spec s = routes_spec((int32_t)raw.dim[1], whole(parameters(f), "top_k"), "expert_choice");
        s.router.score = cases[i].score;
        s.router.param[0] = cases[i].by_logit;
        s.router.renormalize = cases[i].by_logit;
        const struct array position_major = tensor_array(want, "%s.gates", cases[i].name);
        /* over the batch ties apart the order of rows does not matter */
        const struct array gates = by_sequence(&position_major, n_seq);
        assert_gates(cases[i].name, &routes_of(&s, NULL, z.f, rows, cases[i].per_batch ? NULL : &batch)->route, &gates);
    }
    const struct array k = tensor_array(golden_ckpt(f, "case.safetensors"), "dynamic_topk");
    const struct array position_major = tensor_array(want, "post_softmax_dynamic.gates");
    const struct array gates = by_sequence(&position_major, n_seq);
    for (int32_t b = 0; b < n_seq; b++) { /* each sequence has its own k */
        struct moe_spec s = routes_spec((int32_t)raw.dim[1], k.i[b], "expert_choice");
        s.router.param[0] = 1, s.router.renormalize = true;
        const int64_t at = (int64_t)off[b] * raw.dim[1], n = (int64_t)(off[b + 1] - off[b]) * raw.dim[1];
        const struct route *r = &routes_of(&s, NULL, z.f + at, off[b + 1] - off[b], NULL)->route;
        assert_close("post_softmax_dynamic", dense(r), gates.f + at, n, ABS_TOL, REL_TOL);
    }
}

/* ---- top-2 with capacity ---- */

static void nllb(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array x = tensor_array(in, "x"), w = tensor_array(in, "weight");
    const int32_t rows = (int32_t)x.dim[0];
    const struct {
        const char *name;
        struct capacity_spec capacity;
    } cases[] = {
        { "plain", { .tokens = 64, .always = true } },
        { "normfirst", { .tokens = 64, .weigh_first = true, .always = true } },
        { "bpr", { .tokens = 4, .order = CAPACITY_BEST, .always = true } },
        { "evalcap", { .tokens = (rows * 3 + 9) / 10, .always = true } },
        { "capacity2", { .tokens = 2, .always = true } },
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct moe_spec s = routes_spec((int32_t)w.dim[0], 2, "top_k");
        const struct array gates = tensor_array(want, "%s.gates", cases[i].name);
        s.router.renormalize = true;
        s.router.capacity = cases[i].capacity;
        assert_gates(cases[i].name, &routes_of(&s, NULL, logits_of(&x, &w, NULL), rows, NULL)->route, &gates);
    }
}

/* ---- growing k ---- */

static void check_schedule(const struct golden_folder *f, const char *name, double from, double to, int shape)
{
    const struct array step = tensor_array(golden_ckpt(f, "case.safetensors"), "steps");
    const struct array k = tensor_array(golden_ckpt(f, "expect.safetensors"), "k.%s", name);
    struct moe_spec s = routes_spec((int32_t)COE_MAX(from, to), (int32_t)to, "growing_k");
    s.router.param[0] = from, s.router.param[1] = whole(parameters(f), "total_steps"), s.router.param[2] = shape;
    const float *z = test_alloc((size_t)s.n_experts * sizeof(float));
    for (int64_t i = 0; i < step.n; i++) {
        const int32_t got = n_chosen(&routes_of(&s, routes_training((uint64_t)step.i[i]), z, 1, NULL)->route, 0);
        if (got != k.i[i]) fail_msg("%s: k is %d at step %d, expected %d", name, got, step.i[i], k.i[i]);
    }
}

/* Its sum of probabilities is divided by the assignments: `assign` over k. */
static void check_balance(struct route_record *rec, double coef, double want)
{
    struct nn c = { .arena = test_arena() };
    struct moe_spec spec = *rec->spec;
    double total;
    spec.loss[spec.n_losses++] = (struct loss_spec){ "assign", coef };
    rec->spec = &spec;
    assert_ok(moe_losses(&(struct loss_call){ .c = &c, .records = &rec, .n_records = 1 }, &total, NULL));
    assert_near("lbl", total, want, ABS_TOL + REL_TOL * want);
}

static void smoe_dropout(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array x = tensor_array(in, "x"), w = tensor_array(in, "weight"), b = tensor_array(in, "bias");
    const struct array idx = tensor_array(want, "topk_idx"), weight = tensor_array(want, "topk_weight");
    const int32_t k = whole(parameters(f), "top_k"), least = whole(parameters(f), "k_min"),
                  most = whole(parameters(f), "k_max");
    struct moe_spec s = routes_spec((int32_t)w.dim[0], k, "growing_k");
    s.router.renormalize = true;
    struct route_record *rec = routes_of(&s, NULL, logits_of(&x, &w, &b), x.dim[0], NULL);
    const struct route *r = &rec->route;
    assert_ids("experts", r->expert, idx.i, idx.n);
    assert_close("weights", r->weight, weight.f, weight.n, ABS_TOL, REL_TOL);
    check_balance(rec, 1.0 / k, (double)tensor_array(want, "lbl").f[0]);
    s.router.top_k = s.n_experts;
    const struct array all = tensor_array(want, "dense_weight");
    assert_gates("all experts", &routes_of(&s, NULL, logits_of(&x, &w, &b), x.dim[0], NULL)->route, &all);
    check_schedule(f, "linear_increase", least, most, 0);
    check_schedule(f, "linear_decrease", most, least, 0);
    check_schedule(f, "cosine_increase", least, most, 1);
    check_schedule(f, "cosine_decrease", most, least, 1);
    check_schedule(f, "exp_increase", least, most, 2);
    check_schedule(f, "multi_step_increase", least, most, 3);
    check_schedule(f, "multi_step_decrease", most, least, 3);
}

/* ---- null experts ---- */

static void null_layer(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array x = tensor_array(in, "x"), y = tensor_array(want, "y");
    const struct array own = tensor_array(in, "gate.weight"), nulls = tensor_array(in, "gate2.weight");
    const struct array up = tensor_array(in, "experts.0.w1.weight");
    const int32_t true_experts = whole(parameters(f), "true_experts");
    struct moe_spec s =
        routes_spec(true_experts + whole(parameters(f), "null_experts"), whole(parameters(f), "top_k"), "top_k");
    s.n_null = whole(parameters(f), "null_experts");
    s.expert_ffn = (int32_t)up.dim[0];
    s.router.renormalize = true;
    struct block b = block_make(&s, x.dim[1], BLOCK_GATED);
    float *router = block_weight(&b, "router.0")->master;
    memcpy(router, own.f, (size_t)own.n * sizeof *router);
    memcpy(router + own.n, nulls.f, (size_t)nulls.n * sizeof *router);
    for (int32_t e = 0; e < true_experts; e++) {
        static const char *const part[] = { "gate", "up", "down" }, *const file[] = { "w1", "w3", "w2" };
        for (int i = 0; i < 3; i++) {
            char name[32];
            const struct array w = tensor_array(in, "experts.%d.%s.weight", e, file[i]);
            snprintf(name, sizeof name, "experts.%d.%s", e, part[i]);
            block_set(&b, name, w.f, w.n);
        }
    }
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    const struct val *got = block_forward(&b, &c, NULL, nn_wrap(&c, x.f, x.dim[0], x.dim[1]), &run);
    const struct array idx = tensor_array(want, "topk_idx");
    assert_ids("choice", run.records[0]->wanted.expert, idx.i, idx.n);
    assert_close("y", got->data, y.f, y.n, ABS_TOL, REL_TOL);
}

static void null_loss(const struct golden_folder *f)
{
    const struct ckpt *want = golden_ckpt(f, "expect.safetensors");
    const struct array z = tensor_array(golden_ckpt(f, "case.safetensors"), "lora_router_logits");
    const struct array loss = tensor_array(want, "lora_loss"), grad = tensor_array(want, "lora_loss_grad");
    const int64_t rows = z.dim[1], experts = z.dim[2];
    struct moe_spec s = routes_spec((int32_t)experts, whole(parameters(f), "top_k"), "top_k");
    s.n_null = whole(parameters(f), "lora_null_experts");
    s.loss[0] = (struct loss_spec){ "null_balance", 1 };
    s.n_losses = 1;
    struct nn *c = routes_training(0);
    struct route_record *records[16];
    const int32_t n = (int32_t)z.dim[0];
    assert_in_range(n, 1, 16);
    for (int32_t l = 0; l < n; l++) records[l] = routes_of(&s, c, z.f + l * rows * experts, rows, NULL);
    const struct loss_call call = { .c = c, .records = records, .n_records = n, .scale = 1 };
    double total;
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("loss", total, (double)loss.f[0], 1e-5);
    for (int32_t l = 0; l < n; l++)
        assert_norm_close("gradient", records[l]->dz, grad.f + l * rows * experts, rows * experts, 1e-4);
}

static void adamoe(const struct golden_folder *f)
{
    null_layer(f);
    null_loss(f);
}

/* ---- sparsity-constrained transport ---- */

static const double *doubles(const struct array *a)
{
    double *x = test_alloc((size_t)a->n * sizeof *x);
    for (int64_t i = 0; i < a->n; i++) x[i] = (double)a->f[i];
    return x;
}

static double row_sum(const double *x, int64_t n, int64_t stride)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i * stride];
    return sum;
}

/* x [m, n] by columns, as the solver has its costs and plans */
static double *by_columns(const double *x, int32_t m, int32_t n)
{
    double *y = test_alloc((size_t)m * (size_t)n * sizeof *y);
    for (int32_t t = 0; t < m; t++)
        for (int32_t j = 0; j < n; j++) y[(int64_t)j * m + t] = x[(int64_t)t * n + j];
    return y;
}

/* How far the sum of row t is from its share; a row that misses it by more than a hundredth sits on a kink. */
static double row_error(const double *plan, int32_t t, int32_t m, int32_t n)
{
    return fabs(row_sum(plan + t, n, m) - 1.0 / m);
}
static bool on_kink(const double *plan, int32_t t, int32_t m, int32_t n) { return row_error(plan, t, m, n) > .01 / m; }

/* Without a limit the maximum is one plan. With one, tokens whose entries tie for the k-th place of a column are split
 * by where a solver stops: they are left out, the other rows agree as closely as the reference met its own sums. */
static void check_plan(const struct golden_folder *f, const double *cost, const char *dual, bool sparse, double reg)
{
    const struct array file = tensor_array(golden_ckpt(f, "expect.safetensors"), "%s_%s_%d_%d", dual,
                                           sparse ? "sparse" : "l2", (int)reg, (int)(reg * 10 + .5) % 10);
    const int32_t m = (int32_t)file.dim[0], n = (int32_t)file.dim[1];
    const double *want = by_columns(doubles(&file), m, n);
    const struct transport p = { cost, m, n, sparse ? whole(parameters(f), "max_nz") : m, reg };
    double *plan = test_alloc((size_t)file.n * sizeof *plan), tolerance = 1e-4;
    const bool semi = !strcmp(dual, "semi");
    const int32_t size = semi ? m : m + n;
    transport_solve(&p, semi ? transport_semi_dual : transport_dual, size, 1e-9, 1000, plan, NULL,
                    arena_push(test_arena(), transport_room(&p, size)));
    for (int32_t j = 0; j < n; j++) {
        int32_t used = 0;
        for (int32_t t = 0; t < m; t++) used += plan[(int64_t)j * m + t] > 0;
        assert_in_range(used, 1, p.k);
        if (semi) assert_near("column", row_sum(plan + (int64_t)j * m, m, 1), 1.0 / n, 1e-6);
    }
    int32_t kinks = 0;
    for (int32_t t = 0; t < m; t++)
        if (!on_kink(want, t, m, n)) tolerance = fmax(tolerance, 4 * row_error(want, t, m, n));
    for (int32_t t = 0; t < m; t++) {
        kinks += on_kink(want, t, m, n);
        if (sparse && (on_kink(want, t, m, n) || on_kink(plan, t, m, n))) continue;
        for (int32_t j = 0; j < n; j++)
            assert_near(dual, plan[(int64_t)j * m + t], want[(int64_t)j * m + t], tolerance);
    }
    if (kinks == m || (!sparse && kinks)) fail_msg("%s: the reference met no sums", dual);
}

static void sparse_ot(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array c = tensor_array(in, "cost"), alpha = tensor_array(in, "alpha"), beta = tensor_array(in, "beta");
    const int32_t m = (int32_t)c.dim[0], n = (int32_t)c.dim[1];
    const double *cost = by_columns(doubles(&c), m, n);
    double gamma = 0, *x = test_alloc((size_t)(m + n) * sizeof *x), *gradient = test_alloc((size_t)(m + n) * sizeof *x);
    double *scratch = test_alloc((2 * (size_t)m + (size_t)n) * sizeof *scratch);
    int32_t *order = test_alloc(2 * (size_t)COE_MAX(m, n) * sizeof *order);
    assert_ok(json_get_num(parameters(f), "gamma_for_values", &gamma, "parameters"));
    memcpy(x, doubles(&alpha), (size_t)m * sizeof *x);
    memcpy(x + m, doubles(&beta), (size_t)n * sizeof *x);
    const struct transport p = { cost, m, n, whole(parameters(f), "max_nz"), gamma };
    const struct array semi = tensor_array(want, "semi_value"), dual = tensor_array(want, "dual_value");
    const struct array semi_grad = tensor_array(want, "semi_grad"), grad_a = tensor_array(want, "dual_grad_alpha"),
                       grad_b = tensor_array(want, "dual_grad_beta"), projection = tensor_array(want, "projection");
    assert_near("semi-dual", transport_semi_dual(&p, x, gradient, NULL, scratch, order), (double)semi.f[0], 1e-6);
    for (int32_t t = 0; t < m; t++) assert_near("its gradient", gradient[t], (double)semi_grad.f[t], 1e-6);
    assert_near("dual", transport_dual(&p, x, gradient, NULL, scratch, order), (double)dual.f[0], 1e-6);
    for (int32_t t = 0; t < m; t++) assert_near("by alpha", gradient[t], (double)grad_a.f[t], 1e-6);
    for (int32_t j = 0; j < n; j++) assert_near("by beta", gradient[m + j], (double)grad_b.f[j], 1e-6);
    for (int32_t j = 0; j < n; j++) {
        transport_project(scratch, cost + (int64_t)j * m, m, m, &scratch[2 * m], order);
        for (int32_t t = 0; t < m; t++)
            assert_near("projection", scratch[t], (double)projection.f[(int64_t)j * m + t], 1e-6);
    }
    const json_t *regs = json_object_get(parameters(f), "reg");
    for (size_t i = 0; i < json_array_size(regs); i++)
        for (int k = 0; k < 4; k++)
            check_plan(f, cost, k & 1 ? "semi" : "dual", k & 2, json_number_value(json_array_get(regs, i)));
}

/* ---- consistency of stochastic experts ---- */

static void thor(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array a = tensor_array(in, "logits1"), b = tensor_array(in, "logits2"), pad = tensor_array(in, "pad");
    const struct array loss = tensor_array(want, "loss"), da = tensor_array(want, "grad1"),
                       db = tensor_array(want, "grad2");
    const int64_t rows = pad.n, vocab = a.n / rows;
    struct nn *c = routes_training(0);
    int32_t *target = test_alloc((size_t)rows * sizeof *target);
    for (int64_t t = 0; t < rows; t++) target[t] = pad.i[t] ? -1 : 0;
    struct val *x = nn_wrap(c, a.f, rows, vocab), *y = nn_wrap(c, b.f, rows, vocab);
    double sum;
    assert_ok(nn_consistency(c, x, y, target, 1, &sum));
    assert_near("loss", sum, (double)loss.f[0], ABS_TOL + REL_TOL * fabs((double)loss.f[0]));
    assert_ok(nn_backward(c));
    assert_close("gradient of the first pass", x->grad, da.f, da.n, ABS_TOL, REL_TOL);
    assert_close("gradient of the second pass", y->grad, db.f, db.n, ABS_TOL, REL_TOL);
}

static const struct {
    const char *prefix;
    golden_fn *fn;
} tests[] = {
    { "adamoe", adamoe },         { "top_p_dynamic", top_p },       { "expert_choice", expert_choice },
    { "nllb_top2_router", nllb }, { "smoe_dropout", smoe_dropout }, { "sparse_ot", sparse_ot },
    { "thor_consistency", thor },
};

static golden_fn *choose(struct golden_folder *f)
{
    for (size_t i = 0; i < COE_COUNT(tests); i++)
        if (!strncmp(f->name, tests[i].prefix, strlen(tests[i].prefix))) return tests[i].fn;
    return NULL;
}

int main(void) { return kernels_init() || golden_run("golden/methods_selection", "methods", choose); }
