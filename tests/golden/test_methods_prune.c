/* Golden: expert scores of the REAP tool, from fixtures/methods/reap*: our router and experts run over the inputs, the
 * trace recorder adds up what they did, the planners choose. Masked tokens are left out. */
#include "support/golden.h"

#include <stdio.h>
#include <string.h>

#include "golden/covered.h"
#include "plan/plan.h"
#include "support/block.h"
#include "trace/trace_in.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4

static const json_t *parameters(const struct golden_folder *f)
{
    return json_object_get(golden_json(f, "about.json"), "parameters");
}

static bool noted(const struct golden_folder *f, const char *text)
{
    const json_t *notes = json_object_get(golden_json(f, "about.json"), "notes"), *n;
    size_t i;
    json_array_foreach(notes, i, n)
        if (strstr(json_string_value(n), text)) return true;
    return false;
}

static void load_rows(const struct weight *w, const struct array *fused, int32_t e)
{
    memcpy(w->master, fused->f + e * weight_count(w), (size_t)weight_count(w) * sizeof(float));
}

/* w1, w3 [E, f, d], w2 [E, d, f], gate [E, d] */
static struct block load_block(const struct golden_folder *f, const struct ckpt *in)
{
    struct moe_spec s = moe_spec_default();
    const struct array gate = tensor_array(in, "gate"), w1 = tensor_array(in, "w1"), w2 = tensor_array(in, "w2"),
                       w3 = tensor_array(in, "w3");
    s.n_experts = (int32_t)gate.dim[0];
    s.expert_ffn = (int32_t)w1.dim[1];
    s.router.bias = true;
    assert_ok(json_need_i32(parameters(f), "top_k", 1, s.n_experts, &s.router.top_k, f->label));
    assert_ok(json_get_bool(parameters(f), "renormalize", &s.router.renormalize, f->label));
    struct block b = block_make(&s, gate.dim[1], BLOCK_GATED);
    block_set(&b, "router.0", gate.f, gate.n);
    for (int32_t e = 0; e < s.n_experts; e++) {
        load_rows(b.gate[e], &w1, e);
        load_rows(b.down[e], &w2, e);
        load_rows(b.up[e], &w3, e);
    }
    if (noted(f, "last expert is set to -30")) { /* an expert nobody uses: its row is zero, its bias the logit */
        memset(block_weight(&b, "router.0")->master + gate.n - gate.dim[1], 0, (size_t)gate.dim[1] * sizeof(float));
        block_weight(&b, "router_bias.0")->master[s.n_experts - 1] = -30.0f;
    }
    return b;
}

static struct trace *record(struct block *b, const struct ckpt *in)
{
    const struct array x = tensor_array(in, "x"), mask = tensor_array(in, "mask");
    struct trace *t = trace_make("golden");
    if (!t) fail_msg("%s", coe_error());
    assert_ok(trace_make_layers(t, 1));
    t->layer[0] = (struct trace_layer){ .n_experts = b->spec.n_experts, .n_iterations = 1, .n_group = 1 };
    trace_layers_done(t);
    struct trace_recorder r = { .trace = t, .domain = trace_add_domain(t, "case") };
    const int64_t tokens = x.dim[1];
    uint8_t *counted = test_alloc((size_t)tokens);
    for (int64_t batch = 0; batch < x.dim[0]; batch++) {
        struct nn c = { .arena = test_arena() };
        for (int64_t i = 0; i < tokens; i++) counted[i] = mask.i[batch * tokens + i] != 0;
        r.counted = counted;
        const struct moe_observer observer = trace_observer(&r);
        struct block_run run = { .observer = &observer };
        block_forward(b, &c, NULL, nn_wrap(&c, x.f + batch * tokens * b->d, tokens, b->d), &run);
        trace_batch_done(&r, tokens);
    }
    return t;
}

/* A score of the tool and how our planners name it. */
static const struct score {
    const char *name, *planner, *set[2][2];
} scores[] = {
    { "frequency", "frequency", { { "by", "count" } } },
    { "gate_sum", "frequency", { { "by", "auto" } } },
    { "ean_sum", "ean", { { "reduce", "sum" }, { "power", "1" } } },
    { "ean_mean", "ean", { { "reduce", "mean" }, { "power", "1" } } },
    { "weighted_ean_sum", "reap", { { "weight", "auto" }, { "reduce", "sum" } } },
    { "reap", "reap", { { "weight", "auto" }, { "reduce", "mean" } } },
};

static double score_of(const char *name, const struct expert_sums *s, bool renorm)
{
    const double n = s->count ? (double)s->count : 1, weighted = renorm ? s->renorm_norm : s->score_norm;
    if (!strcmp(name, "gate_sum")) return renorm ? s->renorm : s->score;
    if (!strcmp(name, "ean_sum")) return s->norm;
    if (!strcmp(name, "ean_mean")) return s->norm / n;
    if (!strcmp(name, "weighted_ean_sum")) return weighted;
    if (!strcmp(name, "reap")) return weighted / n;
    return (double)s->max_out; /* max_activation */
}

static void check_score(const struct ckpt *want, const char *name, const struct expert_sums *sums, int32_t n,
                        bool renorm)
{
    if (!has_tensor(want, "%s", name)) return;
    const struct array expected = tensor_array(want, "%s", name);
    for (int32_t e = 0; e < n; e++) {
        char what[64];
        const float got = (float)score_of(name, &sums[e], renorm);
        snprintf(what, sizeof what, "%s of expert %d", name, e);
        assert_close(what, &got, &expected.f[e], 1, ABS_TOL, REL_TOL);
    }
}

/* The planner's keep list is what is left when the expected ids are gone. */
static void check_plan(const struct golden_folder *f, const struct ckpt *want, const struct trace *t, struct block *b,
                       const struct score *s)
{
    if (!has_tensor(want, "prune.%s", s->name)) return;
    const struct array gone = tensor_array(want, "prune.%s", s->name);
    const int32_t n = b->spec.n_experts;
    struct layer_spec layer = { .is_moe = true, .moe = b->spec };
    struct coe_model m = { .spec = { .n_layers = 1, .layer = &layer } };
    struct plan_layer decided = { 0 };
    struct plan p = { .n_layers = 1, .layer = &decided };
    json_t *set = json_object();
    for (size_t i = 0; i < COE_COUNT(s->set); i++)
        if (s->set[i][0]) json_object_set_new(set, s->set[i][0], json_string(s->set[i][1]));
    const struct planner *planner = part_find("planner", s->planner)->impl;
    const struct plan_in in = { &m, t, test_arena(), 1 - (double)gone.n / n, 0, planner, set };
    assert_ok(planner->plan(&in, &p));
    assert_int_equal(decided.n_keep, n - (int32_t)gone.n);
    for (int32_t i = 0; i < decided.n_keep; i++)
        for (int64_t j = 0; j < gone.n; j++)
            if (decided.keep[i] == gone.i[j])
                fail_msg("%s: %s keeps expert %d, the tool prunes it", f->label, s->name, gone.i[j]);
    json_decref(set);
    arena_free(&p.arena);
}

static void prune(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    struct block b = load_block(f, in);
    struct trace *t = record(&b, in);
    const int32_t n = b.spec.n_experts;
    struct expert_sums *sums = test_alloc((size_t)n * sizeof *sums);
    trace_expert_sums(t, -1, 0, -1, sums);
    const struct array uses = tensor_array(want, "frequency");
    for (int32_t e = 0; e < n; e++) assert_int_equal(sums[e].count, uses.i[e]);
    for (size_t i = 1; i < COE_COUNT(scores); i++)
        check_score(want, scores[i].name, sums, n, b.spec.router.renormalize);
    check_score(want, "max_activation", sums, n, false);
    for (size_t i = 0; i < COE_COUNT(scores); i++) check_plan(f, want, t, &b, &scores[i]);
    trace_free(t);
}

static golden_fn *choose(struct golden_folder *f)
{
    const char *program = covered_by(f->name);
    return program && !strcmp(program, "methods_prune") ? prune : NULL;
}

int main(void) { return kernels_init() || golden_run("golden/methods_prune", "methods", choose); }
