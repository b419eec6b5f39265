/* Golden: whole MoE blocks of fixtures/methods, forward and backward: block_grad_* (loss = Σ y·r) and gpt_oss_layer.
 *
 * The rule comes from the folder's about.json: the model family in its "method", what its "rule" says, and any
 * parameter in the words of config.json. */
#include "support/golden.h"

#include <stdio.h>
#include <string.h>

#include "golden/covered.h"
#include "support/block.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4

/* How the library names a block's tensors */
struct naming {
    const char *family;
    const char *router; /* "gate" or "router" */
    const char *shared; /* prefix of the shared expert, or NULL */
    bool input_major;   /* gpt-oss: [E, d, 2F] with gate and up interleaved, [E, F, d], biases */
};
static const struct naming namings[] = {
    { "mixtral", "gate", NULL, false },
    { "olmoe", "gate", NULL, false },
    { "qwen2_moe", "gate", "shared_expert", false },
    { "qwen3_moe", "gate", NULL, false },
    { "deepseek_v3", "gate", "shared_experts", false },
    { "gpt_oss", "router", NULL, true },
};

static const struct naming *naming_of(const char *family)
{
    for (size_t i = 0; i < COE_COUNT(namings); i++)
        if (!strcmp(namings[i].family, family)) return &namings[i];
    return NULL;
}

/* "… the MoE block of NAME" → NAME; a folder without that sentence is named after its family */
static const char *family_of(const struct golden_folder *f)
{
    const char *method = json_string_value(json_object_get(golden_peek(f, "about.json"), "method"));
    const char *of = method ? strstr(method, "block of ") : NULL;
    if (of) return of + strlen("block of ");
    return strncmp(f->name, "gpt_oss", 7) ? "" : "gpt_oss";
}

static void read_numbers(struct moe_spec *s, const json_t *p, const char *rule)
{
    struct router_spec *r = &s->router;
    const char *groups = strstr(rule, " groups of which "), *times = strstr(rule, "times ");
    if (groups) {
        while (groups > rule && groups[-1] >= '0' && groups[-1] <= '9') groups--;
        sscanf(groups, "%d groups of which %d", &r->n_group, &r->topk_group);
    }
    if (times) sscanf(times, "times %f", &r->scale);
    assert_ok(json_get_i32(p, "n_group", 1, 1024, &r->n_group, "parameters"));
    assert_ok(json_get_i32(p, "topk_group", 1, 1024, &r->topk_group, "parameters"));
    assert_ok(json_get_f32(p, "routed_scaling_factor", &r->scale, "parameters"));
    assert_ok(json_need_i32(p, "top_k", 1, 1024, &r->top_k, "parameters"));
}

static struct moe_spec spec_of(const struct golden_folder *f, const char *family)
{
    const json_t *p = json_object_get(golden_json(f, "about.json"), "parameters");
    const char *rule = json_string_value(json_object_get(p, "rule"));
    struct moe_spec s = moe_spec_default();
    if (!rule) rule = "";
    const bool always = !strcmp(family, "mixtral") || !strcmp(family, "deepseek_v3") || !strcmp(family, "gpt_oss");
    s.router.renormalize = always || (strstr(rule, "normalised") && !strstr(rule, "not renormalised"));
    assert_ok(json_get_bool(p, "norm_topk_prob", &s.router.renormalize, "parameters"));
    if (!strcmp(family, "deepseek_v3")) {
        s.router.score = SCORE_SIGMOID;
        s.router.selection_bias = true;
        s.router.group_score = GROUP_SUM2;
        s.router.renorm_eps = 1e-20f;
    }
    if (!strcmp(family, "gpt_oss")) s.router.bias = true, s.act = ACT_SWIGLU_CLAMP;
    s.shared_gate = !strcmp(family, "qwen2_moe");
    read_numbers(&s, p, rule);
    return s;
}

/* One expert's matrix in the file's layout ↔ [rows, cols] of ours: element (i, j) sits at start + i*row + j*col. */
struct view {
    int64_t start, row, col;
};

static struct view view_of(const struct naming *n, const char *part, int64_t e, int64_t d, int64_t f)
{
    const bool up = !strcmp(part, "up"), down = !strcmp(part, "down");
    if (n->input_major) return down ? (struct view){ e * f * d, 1, d } : (struct view){ e * d * 2 * f + up, 2, 2 * f };
    return down ? (struct view){ e * d * f, f, 1 } : (struct view){ (e * 2 + up) * f * d, d, 1 };
}

/* Copies between a weight's array and its place in the fused one. */
static void gather(float *w, const float *fused, struct view v, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) w[i * cols + j] = fused[v.start + i * v.row + j * v.col];
}

/* Visits every weight of the block with the array of the file (under `prefix`) that it is a part of. */
static void each_weight(const struct block *b, const struct naming *n, const struct ckpt *file, const char *prefix,
                        void (*fn)(struct weight *w, const float *values))
{
    static const char *const parts[] = { "gate", "up", "down" };
    const int64_t d = b->d, f = b->spec.expert_ffn;
    fn(block_weight(b, "router.0"), tensor_array(file, "%s%s.weight", prefix, n->router).f);
    if (b->spec.router.bias) fn(block_weight(b, "router_bias.0"), tensor_array(file, "%s%s.bias", prefix, n->router).f);
    for (int32_t e = 0; e < b->spec.n_experts; e++)
        for (int i = 0; i < 3; i++) {
            const char *fused = i == 2 ? "down_proj" : "gate_up_proj";
            struct weight *w = block_weight(b, "experts.%d.%s", e, parts[i]);
            float *values = test_alloc((size_t)weight_count(w) * sizeof *values);
            gather(values, tensor_array(file, "%sexperts.%s", prefix, fused).f, view_of(n, parts[i], e, d, f), w->rows,
                   w->cols);
            fn(w, values);
            if (!n->input_major) continue;
            w = block_weight(b, "experts.%d.%s_bias", e, parts[i]);
            const float *bias = tensor_array(file, "%sexperts.%s_bias", prefix, fused).f;
            gather(values, bias, i == 2 ? (struct view){ e * d, 0, 1 } : (struct view){ e * 2 * f + i, 0, 2 }, 1,
                   w->cols);
            fn(w, values);
        }
    for (int i = 0; n->shared && i < 3; i++)
        fn(block_weight(b, "shared.%s", parts[i]),
           tensor_array(file, "%s%s.%s_proj.weight", prefix, n->shared, parts[i]).f);
    if (b->spec.shared_gate)
        fn(block_weight(b, "shared_expert_gate"), tensor_array(file, "%s%s_gate.weight", prefix, n->shared).f);
}

static void load(struct weight *w, const float *values)
{
    memcpy(w->master, values, (size_t)weight_count(w) * sizeof *values);
}

static void check_gradient(struct weight *w, const float *values)
{
    char what[80];
    snprintf(what, sizeof what, "gradient of %s", w->name);
    assert_close(what, w->grad, values, weight_count(w), ABS_TOL, REL_TOL);
}

static struct block load_block(const struct golden_folder *f, const struct ckpt *in, const struct naming *n)
{
    struct moe_spec s = spec_of(f, n->family);
    const struct array down = tensor_array(in, "experts.down_proj"); /* [E, d, F], gpt-oss [E, F, d] */
    s.n_experts = (int32_t)down.dim[0];
    s.expert_ffn = (int32_t)down.dim[n->input_major ? 1 : 2];
    if (n->shared) s.shared_ffn = (int32_t)tensor_array(in, "%s.gate_proj.weight", n->shared).dim[0];
    struct block b = block_make(&s, down.dim[n->input_major ? 2 : 1], n->input_major ? BLOCK_BIASES : BLOCK_GATED);
    each_weight(&b, n, in, "", load);
    if (s.router.selection_bias)
        load(block_weight(&b, "selection_bias.0"), tensor_array(in, "gate.e_score_correction_bias").f);
    return b;
}

static void block(const struct golden_folder *f)
{
    const struct naming *n = naming_of(family_of(f));
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    struct block b = load_block(f, in, n);
    const struct array x = tensor_array(in, "x"), y = tensor_array(want, "y");
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    struct val *x0 = nn_wrap(&c, x.f, x.n / b.d, b.d);
    struct block_run run = { 0 };
    struct val *got = block_forward(&b, &c, NULL, x0, &run);
    assert_close("y", got->data, y.f, y.n, ABS_TOL, REL_TOL);
    if (has_tensor(want, "router_logits")) {
        const struct array z = tensor_array(want, "router_logits");
        assert_close("router_logits", run.records[0]->z->data, z.f, z.n, ABS_TOL, REL_TOL);
    }
    if (!has_tensor(want, "grad.x")) return;
    got->grad = tensor_array(in, "r").f;
    assert_ok(nn_backward(&c));
    assert_close("gradient of x", x0->grad, tensor_array(want, "grad.x").f, x.n, ABS_TOL, REL_TOL);
    each_weight(&b, n, want, "grad.", check_gradient);
}

static golden_fn *choose(struct golden_folder *f)
{
    const char *program = covered_by(f->name);
    if (!program || strcmp(program, "methods_block")) return NULL;
    return naming_of(family_of(f)) ? block : golden_without;
}

int main(void) { return kernels_init() || golden_run("golden/methods_block", "methods", choose); }
