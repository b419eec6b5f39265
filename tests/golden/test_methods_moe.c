/* Golden: routers and balancing losses of fixtures/methods, and the list of all folders there that no program tests
 * yet.
 *
 * A folder may hold parts that no spec expresses (capacity, Sinkhorn, sparsemixer): they get a line of their own,
 * "methods/FOLDER.PART: without a test". */
#include "support/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden/covered.h"
#include "moe/selection/sinkhorn.h"
#include "moe/moe.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4

static const json_t *parameters(const struct golden_folder *f)
{
    return json_object_get(golden_json(f, "about.json"), "parameters");
}

static int32_t whole(const json_t *o, const char *key, int32_t otherwise)
{
    assert_ok(json_get_i32(o, key, 0, 1 << 20, &otherwise, key));
    return otherwise;
}

static float number(const json_t *o, const char *key, float otherwise)
{
    assert_ok(json_get_f32(o, key, &otherwise, key));
    return otherwise;
}

static bool yes(const json_t *o, const char *key)
{
    bool b = false;
    assert_ok(json_get_bool(o, key, &b, key));
    return b;
}

static bool without_part(const struct golden_folder *f, const char *part)
{
    return printf("%s.%s: without a test\n", f->label, part) > 0;
}

static struct nn *context(void)
{
    struct nn *c = test_alloc(sizeof *c);
    c->arena = test_arena();
    c->tape = test_alloc(sizeof *c->tape);
    return c;
}

/* The route of logits z [T, E], recorded on the tape. */
static struct route_record *route_of(struct nn *c, const struct moe_spec *spec, float *z, int64_t n, const float *bias)
{
    struct route_record *r = test_alloc(sizeof *r);
    struct weight *b = bias ? test_weight("bias", (float *)(uintptr_t)bias, 1, spec->n_experts) : NULL;
    assert_ok(moe_spec_check(spec, "golden"));
    assert_ok(moe_route(c, r, spec, nn_wrap(c, z, n, spec->n_experts), b, NULL));
    return r;
}

/* Every expected (expert, weight) of every token is a slot of the route, and there are no others. */
static void assert_route_within(const char *what, const struct route *r, const struct array *idx,
                                const struct array *weight, double abs, double rel)
{
    const int64_t k = idx->dim[idx->n_dims - 1];
    assert_int_equal(idx->n / k, r->n_tokens);
    for (int32_t t = 0; t < r->n_tokens; t++) {
        assert_int_equal(r->tok_off[t + 1] - r->tok_off[t], k);
        for (int64_t j = 0; j < k; j++) {
            const int32_t id = idx->i[t * k + j];
            int32_t slot = r->tok_off[t];
            while (slot < r->tok_off[t + 1] && r->expert[slot] != id) slot++;
            if (slot == r->tok_off[t + 1]) fail_msg("%s: token %d did not choose expert %d", what, t, id);
            char at[120];
            snprintf(at, sizeof at, "%s: token %d, expert %d, weight", what, t, id);
            assert_close(at, &r->weight[slot], &weight->f[t * k + j], 1, abs, rel);
        }
    }
}

static void assert_route(const char *what, const struct route *r, const struct array *idx, const struct array *weight)
{
    assert_route_within(what, r, idx, weight, ABS_TOL, REL_TOL);
}

/* ---- routers ---- */

/* Prefixes of router_table → its rule; false for a family nobody knows. Those that end in _norm1 renormalise. */
static bool table_rule(const char *family, struct router_spec *r)
{
    const size_t n = strlen(family);
    r->selection = "top_k";
    if (!strcmp(family, "phimoe")) {
        r->renormalize = false;
        r->selection = "sparsemixer";
        r->jitter = 0.01f; /* the reference was run with this, see its "function" */
        return true;
    }
    r->renormalize = !strcmp(family, "mixtral") || !strcmp(family, "granite") ||
                     (n > 6 && !strcmp(family + n - 6, "_norm1"));
    return r->renormalize || (n > 6 && !strcmp(family + n - 6, "_norm0"));
}

static void router_table(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array z = tensor_array(in, "router_logits");
    struct moe_spec spec = moe_spec_default();
    spec.n_experts = (int32_t)z.dim[1];
    spec.expert_ffn = 1;
    for (size_t i = 0; i < ckpt_count(want); i++) {
        char family[64];
        snprintf(family, sizeof family, "%.60s", ckpt_at(want, i)->name);
        char *dot = strstr(family, ".idx");
        if (!dot) continue;
        *dot = 0;
        if (!table_rule(family, &spec.router)) {
            without_part(f, family);
            continue;
        }
        const struct array idx = tensor_array(want, "%s.idx", family), weight = tensor_array(want, "%s.weight", family);
        spec.router.top_k = (int32_t)idx.dim[1];
        struct nn inference = { .arena = test_arena() }; /* sparsemixer has no backward pass */
        assert_route(family, &route_of(&inference, &spec, z.f, z.dim[0], NULL)->route, &idx, &weight);
    }
}

/* x · Wᵀ, checked where the file has the logits */
static float *logits_of(const struct ckpt *in, const struct ckpt *want, struct nn *c, int64_t *n, int32_t *experts)
{
    const struct array x = tensor_array(in, "x"), w = tensor_array(in, "weight");
    struct val *z = nn_linear(c, nn_wrap(c, x.f, x.dim[0], x.dim[1]), test_weight("weight", w.f, w.dim[0], w.dim[1]),
                              NULL);
    *n = x.dim[0];
    *experts = (int32_t)w.dim[0];
    if (!z) fail_msg("%s", coe_error());
    if (!has_tensor(want, "router_logits")) return z->data;
    assert_close("router_logits", z->data, tensor_array(want, "router_logits").f, *n * *experts, ABS_TOL, REL_TOL);
    return z->data;
}

static void check_router(const struct golden_folder *f, struct moe_spec spec)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    struct nn *c = context();
    int64_t n;
    float *z = logits_of(in, want, c, &n, &spec.n_experts);
    spec.expert_ffn = 1;
    const struct array idx = tensor_array(want, "topk_idx"), weight = tensor_array(want, "topk_weight");
    const float *bias = has_tensor(in, "bias") ? tensor_array(in, "bias").f : NULL;
    assert_route("route", &route_of(c, &spec, z, n, bias)->route, &idx, &weight);
}

static void deepseek_v2(const struct golden_folder *f)
{
    const json_t *p = parameters(f);
    const char *method = "greedy";
    struct moe_spec s = moe_spec_default();
    assert_ok(json_get_str(p, "topk_method", &method, f->label));
    s.router.top_k = whole(p, "top_k", 1);
    if (strcmp(method, "greedy"))
        s.router.n_group = whole(p, "n_group", 1), s.router.topk_group = whole(p, "topk_group", 1);
    s.router.scale = number(p, "routed_scaling_factor",
                            1); /* norm_topk_prob is ignored by the reference, see its notes */
    check_router(f, s);
}

static void deepseek_v3(const struct golden_folder *f)
{
    const json_t *p = parameters(f);
    struct moe_spec s = moe_spec_default();
    s.router.score = SCORE_SIGMOID;
    s.router.top_k = whole(p, "top_k", whole(p, "topk", 1));
    s.router.n_group = whole(p, "n_group", whole(p, "n_groups", 1));
    s.router.topk_group = whole(p, "topk_group", whole(p, "topk_groups", 1));
    s.router.group_score = GROUP_SUM2;
    s.router.renormalize = !json_object_get(p, "norm_topk_prob") || yes(p, "norm_topk_prob");
    s.router.renorm_eps = 1e-20f;
    s.router.scale = number(p, "routed_scaling_factor", number(p, "route_scale", 1));
    check_router(f, s);
}

/* The best of each group, softmax over all, times a learned factor; the reference computes in half precision. */
static void pangu(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array z = tensor_array(in, "router_logits"), factor = tensor_array(in, "router_scale");
    const struct array idx = tensor_array(want, "topk_idx"), weight = tensor_array(want, "topk_weight");
    const json_t *p = parameters(f);
    struct nn c = { .arena = test_arena() };
    struct moe_spec s = moe_spec_default();
    s.n_experts = (int32_t)z.dim[1];
    s.expert_ffn = 1;
    s.router.selection = "grouped";
    s.router.top_k = whole(p, "top_k", 8);
    s.router.n_group = s.router.topk_group = whole(p, "groups", 8);
    s.router.expert_scale = true;
    assert_ok(moe_spec_check(&s, f->label));
    struct route_record r = { .expert_scale = test_weight("router_scale", factor.f, 1, factor.n) };
    assert_ok(moe_route(&c, &r, &s, nn_wrap(&c, z.f, z.dim[0], z.dim[1]), NULL, NULL));
    assert_route_within("route", &r.route, &idx, &weight, 1e-5, 2e-3);
}

/* ---- losses ---- */

/* Value and gradient of one loss over the records, against `loss` and `grad` (both times coef) of the file. */
static void check_loss(const char *kind, double coef, struct nn *c, struct route_record **records, int32_t n_records,
                       const struct attn_batch *batch, const uint8_t *counted, const struct array *loss,
                       const struct array *grad)
{
    struct moe_spec *spec = (struct moe_spec *)(uintptr_t)records[0]->spec;
    spec->loss[0] = (struct loss_spec){ kind, coef };
    spec->n_losses = 1;
    for (int32_t i = 0; i < n_records; i++) records[i]->dz = NULL;
    const struct loss_call call = {
        .c = c, .records = records, .n_records = n_records, .batch = batch, .counted = counted, .scale = 1
    };
    double total = 0;
    assert_ok(moe_losses(&call, &total, NULL));
    const float got = (float)total;
    assert_close(kind, &got, loss->f, 1, 1e-6, 1e-6);
    char what[80];
    snprintf(what, sizeof what, "gradient of %s", kind);
    const int64_t n = grad->n / n_records;
    for (int32_t i = 0; i < n_records; i++) assert_norm_close(what, records[i]->dz, grad->f + i * n, n, 1e-5);
}

static struct attn_batch *batch_of(int64_t rows, int32_t n_seq)
{
    struct attn_batch *b = test_alloc(sizeof *b);
    int32_t *off = test_alloc(((size_t)n_seq + 1) * sizeof *off);
    for (int32_t i = 0; i <= n_seq; i++) off[i] = (int32_t)(rows / n_seq * i);
    *b = (struct attn_batch){ n_seq, off, test_alloc((size_t)n_seq * sizeof(int64_t)), NULL };
    return b;
}

static void load_balancing(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array z = tensor_array(in, "router_logits");
    const int32_t layers = (int32_t)z.dim[0];
    struct moe_spec spec = moe_spec_default();
    struct nn *c = context();
    struct route_record **records = test_alloc((size_t)layers * sizeof *records);
    spec.n_experts = (int32_t)z.dim[2];
    spec.expert_ffn = 1;
    spec.router.top_k = whole(parameters(f), "top_k", 2);
    for (int32_t l = 0; l < layers; l++) records[l] = route_of(c, &spec, z.f + l * z.dim[1] * z.dim[2], z.dim[1], NULL);
    const struct attn_batch *batch = batch_of(z.dim[1], 1);
    struct array loss = tensor_array(want, "loss"), grad = tensor_array(want, "grad");
    check_loss("hf", 1, c, records, layers, batch, NULL, &loss, &grad);
    if (!has_tensor(want, "loss_masked")) return;
    const struct array mask = tensor_array(in, "attention_mask");
    uint8_t *counted = test_alloc((size_t)mask.n);
    for (int64_t i = 0; i < mask.n; i++) counted[i] = mask.i[i] != 0;
    loss = tensor_array(want, "loss_masked"), grad = tensor_array(want, "grad_masked");
    check_loss("hf", 1, c, records, layers, batch, counted, &loss, &grad);
}

/* Rows of a position-major array [S, B, …] put one sequence after the other, as a batch has them. */
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

/* gates [T, E]: the weight of each chosen expert, 0 elsewhere */
static void check_gates(const struct ckpt *want, const char *name, const struct moe_spec *spec, const struct array *z)
{
    const struct array gates = tensor_array(want, "%s.gates", name), count = tensor_array(want, "%s.count", name);
    const struct route *r = &route_of(context(), spec, z->f, z->dim[0], NULL)->route;
    float *got = test_alloc((size_t)gates.n * sizeof *got);
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t s = r->tok_off[t]; s < r->tok_off[t + 1]; s++)
            got[t * spec->n_experts + r->expert[s]] = r->weight[s];
    assert_close(name, got, gates.f, gates.n, 1e-6, 1e-5);
    for (int32_t e = 0; e < spec->n_experts; e++) assert_int_equal(route_count(r, e), count.i[e]);
}

static void megatron_gates(const struct ckpt *want, const json_t *p, struct moe_spec spec, const struct array *z)
{
    check_gates(want, "pre", &spec, z);
    spec.router.renormalize = true; /* softmax over the chosen */
    check_gates(want, "post", &spec, z);
    spec.router.renormalize = false;
    spec.router.n_group = whole(p, "device_groups", 1), spec.router.topk_group = whole(p, "kept_groups", 1);
    check_gates(want, "pre_devices", &spec, z);
    spec.router.n_group = spec.router.topk_group = 1;
    spec.router.scale = number(p, "scaling_factor",
                               2.5f); /* the value the file was made with is not in its parameters */
    check_gates(want, "pre_scale", &spec, z);
}

/* A token keeps its place at an expert by its gate; the fixture's factor is the one that its fullest expert shows. */
static void capacity_gates(const struct ckpt *want, struct moe_spec spec, const struct array *z)
{
    static const char *const name[] = { "pre_cap", "post_cap_probs" };
    for (int post = 0; post < 2; post++) {
        const struct array gates = tensor_array(want, "%s.gates", name[post]);
        const struct array map = tensor_array(want, "%s.map", name[post]);
        int32_t most = 0;
        for (int32_t e = 0; e < spec.n_experts; e++) {
            int32_t n = 0;
            for (int64_t t = 0; t < z->dim[0]; t++) n += map.i[t * spec.n_experts + e];
            most = COE_MAX(most, n);
        }
        spec.router.renormalize = post;
        spec.router.capacity = (struct capacity_spec){
            .tokens = most, .order = CAPACITY_SCORE, .weigh_first = post, .always = true
        };
        const struct route *r = &route_of(context(), &spec, z->f, z->dim[0], NULL)->route;
        float *got = test_alloc((size_t)gates.n * sizeof *got);
        for (int32_t t = 0; t < r->n_tokens; t++)
            for (int32_t s = r->tok_off[t]; s < r->tok_off[t + 1]; s++)
                got[t * spec.n_experts + r->expert[s]] = r->weight[s];
        assert_close(name[post], got, gates.f, gates.n, 1e-6, 1e-5);
    }
}

/* The fixture's matrix has mass 1 over all and stops early: compare at 1e-3. */
static void sinkhorn(const struct ckpt *want, const struct array *z)
{
    const struct array matrix = tensor_array(want, "sinkhorn");
    const int32_t rows = (int32_t)z->dim[0], cols = (int32_t)z->dim[1];
    double *pi = test_alloc((size_t)matrix.n * sizeof *pi);
    double *scratch = test_alloc((size_t)(rows + cols) * sizeof *scratch);
    sinkhorn_plan(pi, scratch, z->f, rows, cols, 1, 1e-9, 10000);
    for (int64_t i = 0; i < matrix.n; i++)
        assert_near("sinkhorn", pi[i] / rows, (double)matrix.f[i], 1e-3 * (double)matrix.f[i] + 1e-5);
}

static void megatron(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const json_t *p = parameters(f), *coef = json_object_get(p, "coefficients");
    const struct array z = tensor_array(in, "router_logits");
    const int32_t n_seq = whole(p, "batch", 2);
    struct moe_spec spec = moe_spec_default();
    struct nn *c = context();
    spec.n_experts = (int32_t)z.dim[1];
    spec.expert_ffn = 1;
    spec.router.top_k = whole(p, "top_k", 2);
    megatron_gates(want, p, spec, &z);
    struct route_record *plain = route_of(c, &spec, z.f, z.dim[0], NULL);
    struct array loss = tensor_array(want, "switch_loss"), grad = tensor_array(want, "switch_grad");
    check_loss("assign", (double)number(coef, "switch", 1), c, &plain, 1, batch_of(z.dim[0], 1), NULL, &loss, &grad);
    loss = tensor_array(want, "z_loss"), grad = tensor_array(want, "z_grad");
    check_loss("z", (double)number(coef, "z", 1), c, &plain, 1, batch_of(z.dim[0], 1), NULL, &loss, &grad);
    const struct array sorted = by_sequence(&z, n_seq);
    struct route_record *rows = route_of(c, &spec, sorted.f, z.dim[0], NULL);
    loss = tensor_array(want, "sequence_loss"), grad = tensor_array(want, "sequence_grad");
    grad = by_sequence(&grad, n_seq);
    check_loss("sequence", (double)number(coef, "sequence", 1), c, &rows, 1, batch_of(z.dim[0], n_seq), NULL, &loss,
               &grad);
    capacity_gates(want, spec, &z);
    sinkhorn(want, &z);
}

/* Tokens beyond the capacity of their expert, counted inside their sequence, visit none. */
static void check_kept(struct nn *c, const struct moe_spec *spec, float *z, const struct attn_batch *batch,
                       const struct ckpt *want)
{
    const struct array kept = tensor_array(want, "kept");
    struct route_record *r = test_alloc(sizeof *r);
    r->batch = batch;
    assert_ok(moe_route(c, r, spec, nn_wrap(c, z, kept.n, spec->n_experts), NULL, NULL));
    for (int32_t t = 0; t < r->route.n_tokens; t++)
        if (r->route.tok_off[t + 1] - r->route.tok_off[t] != kept.i[t])
            fail_msg("token %d has %d experts, expected %d", t, r->route.tok_off[t + 1] - r->route.tok_off[t],
                     kept.i[t]);
}

static void switch_losses(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct array x = tensor_array(in, "x"), w = tensor_array(in, "router.weight");
    const struct array chosen = tensor_array(want, "chosen"), prob = tensor_array(want, "prob");
    const int64_t rows = x.n / w.dim[1];
    struct nn *c = context();
    struct moe_spec spec = moe_spec_default();
    spec.n_experts = (int32_t)w.dim[0];
    spec.expert_ffn = 1;
    spec.router.top_k = 1;
    struct val *z = nn_linear(c, nn_wrap(c, x.f, rows, w.dim[1]), test_weight("router", w.f, w.dim[0], w.dim[1]), NULL);
    assert_close("router_logits", z->data, tensor_array(want, "router_logits").f, rows * w.dim[0], ABS_TOL, REL_TOL);
    struct route_record *r = route_of(c, &spec, z->data, rows, NULL);
    const struct array idx = { .n_dims = 2, .dim = { rows, 1 }, .n = rows, .i = chosen.i };
    assert_route("choice", &r->route, &idx, &prob);
    struct array loss = tensor_array(want, "z_loss"), grad = tensor_array(want, "z_grad");
    check_loss("z", 1, c, &r, 1, batch_of(rows, 1), NULL, &loss, &grad);
    loss = tensor_array(want, "lbl"), grad = tensor_array(want, "lbl_grad"); /* balance inside each sequence */
    check_loss("sequence", 1, c, &r, 1, batch_of(rows, (int32_t)x.dim[0]), NULL, &loss, &grad);
    spec.router.capacity.tokens = whole(parameters(f), "expert_capacity", 1);
    spec.router.capacity.always = true;
    check_kept(c, &spec, z->data, batch_of(rows, (int32_t)x.dim[0]), want);
}

static const struct {
    const char *prefix;
    golden_fn *fn;
} tests[] = {
    { "router_table", router_table },
    { "deepseek_v2_router", deepseek_v2 },
    { "deepseek_v3_router", deepseek_v3 },
    { "deepseek_v3_gate_official", deepseek_v3 },
    { "mixtral_load_balancing_loss", load_balancing },
    { "megatron_router", megatron },
    { "switch_layer", switch_losses },
    { "pangu_grouped_topk", pangu },
};

static golden_fn *choose(struct golden_folder *f)
{
    for (size_t i = 0; i < COE_COUNT(tests); i++)
        if (!strncmp(f->name, tests[i].prefix, strlen(tests[i].prefix))) return tests[i].fn;
    return covered_by(f->name) ? NULL : golden_without;
}

int main(void) { return kernels_init() || golden_run("golden/methods_moe", "methods", choose); }
