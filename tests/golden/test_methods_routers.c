/* Golden: routers that carry something from layer to layer, over several layers: rmoe_gru, rmoe_rnn (forward, backward
 * and balance loss), moe_plus_plus* (with constant, copy and zero experts). The inputs of the layers are given; only
 * the routers join them. */
#include "support/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden/covered.h"
#include "support/routers.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4
#define MOST_LAYERS 16

static int32_t whole(const struct golden_folder *f, const char *key)
{
    int32_t x = 0;
    const json_t *p = json_object_get(golden_json(f, "about.json"), "parameters");
    assert_ok(json_need_i32(p, key, 0, 1 << 20, &x, "parameters"));
    return x;
}

static void load(const struct block *b, const char *name, const struct ckpt *in, const char *tensor)
{
    const struct array w = tensor_array(in, "%s", tensor);
    block_set(b, name, w.f, w.n);
}

/* ---- RMoE ---- */

/* The cell's gates as the file has them, one after the other in ours: [r | z | n], or n alone */
static const char *const gru_gates[] = { "r", "z", "n", NULL }, *const rnn_gates[] = { "n", NULL };

static void each_gate(const struct block *b, const struct ckpt *file, const char *prefix, const char *const *gates,
                      void (*fn)(struct weight *w, int64_t from, const char *what, const struct array *values))
{
    static const char *const ours[] = { "weight_ih", "weight_hh", "bias_ih", "bias_hh" };
    for (int i = 0; i < 4; i++) {
        struct weight *w = block_weight(b, "router.%s.0", ours[i]);
        int64_t from = 0;
        for (int g = 0; gates[g]; g++) {
            char name[40];
            snprintf(name, sizeof name, "%s%s_%c%s", prefix, i < 2 ? "weight" : "bias", i % 2 ? 'h' : 'i', gates[g]);
            const struct array values = tensor_array(file, "%s", name);
            fn(w, from, name, &values);
            from += values.n;
        }
        assert_int_equal(from, weight_count(w));
    }
}

static void load_gate(struct weight *w, int64_t from, const char *what, const struct array *values)
{
    (void)what;
    memcpy(w->master + from, values->f, (size_t)values->n * sizeof(float));
}

static void check_gate(struct weight *w, int64_t from, const char *what, const struct array *values)
{
    assert_close(what, w->grad + from, values->f, values->n, ABS_TOL, REL_TOL);
}

static void load_layer(const struct block *b, const struct ckpt *in, int32_t l)
{
    static const char *const ours[] = { "gate", "up", "down" }, *const file[] = { "w1", "w3", "w2" };
    char name[64], tensor[64];
    snprintf(tensor, sizeof tensor, "layer%d.weight1", l);
    load(b, "router.proj.weight.0", in, tensor);
    snprintf(tensor, sizeof tensor, "layer%d.weight2", l);
    load(b, "router.out.weight.0", in, tensor);
    snprintf(tensor, sizeof tensor, "layer%d.bias", l);
    if (b->spec.out_bias) load(b, "out_bias", in, tensor);
    for (int32_t e = 0; e < b->spec.n_experts; e++)
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "experts.%d.%s", e, ours[i]);
            snprintf(tensor, sizeof tensor, "layer%d.experts.%d.%s.weight", l, e, file[i]);
            load(b, name, in, tensor);
        }
}

/* All layers look at the cell of layer 0, as a model's do. */
static void share_cell(struct block *b, const struct block *first)
{
    const struct part_weight *w = moe_part_table(&b->spec, 0, NULL);
    for (int32_t i = 0; w[i].name; i++)
        if (w[i].scope == PART_OF_MODEL) b->w.router_part[0][i] = first->w.router_part[0][i];
}

static struct moe_spec rmoe_spec(const struct golden_folder *f, const struct ckpt *in, const char *cell)
{
    struct moe_spec s = router_spec_of(cell, whole(f, "experts"), whole(f, "top_k"));
    s.router.kind_param[0] = whole(f, "router_width");
    s.router.renormalize = true;
    s.expert_ffn = (int32_t)tensor_array(in, "layer0.experts.0.w1.weight").dim[0];
    s.out_bias = has_tensor(in, "layer0.bias");
    return s;
}

static void check_balance(struct moe_pass *p, const struct ckpt *want)
{
    struct moe_spec *spec = test_alloc(sizeof *spec);
    double total;
    *spec = *p->records[0]->spec;
    spec->loss[spec->n_losses++] = (struct loss_spec){ "hf", 1 };
    for (int32_t i = 0; i < p->n_records; i++) p->records[i]->spec = spec;
    const struct loss_call call = { .c = p->c, .records = p->records, .n_records = p->n_records };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("lbl", total, (double)tensor_array(want, "lbl").f[0], 1e-4);
}

static void rmoe(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const bool gru = has_tensor(in, "cell.weight_ir");
    const char *const *gates = gru ? gru_gates : rnn_gates;
    const struct moe_spec spec = rmoe_spec(f, in, gru ? "gru" : "rnn");
    const struct array x = tensor_array(in, "x");
    const int32_t layers = (int32_t)x.dim[0];
    const int64_t n = x.dim[1], d = x.dim[2];
    struct block b[MOST_LAYERS];
    struct route_record *records[MOST_LAYERS];
    struct moe_pass *p = router_pass(true);
    p->records = records, p->max_records = MOST_LAYERS;
    double loss = 0;
    assert_in_range(layers, 1, MOST_LAYERS);
    for (int32_t l = 0; l < layers; l++) {
        b[l] = block_make(&spec, d, BLOCK_GATED);
        load_layer(&b[l], in, l);
        if (!l) each_gate(b, in, "cell.", gates, load_gate);
        share_cell(&b[l], b);
        struct val *y = moe_output(p, &b[l].spec, &b[l].w, NULL, l, router_input(p, x.f + l * n * d, n, d));
        if (!y) fail_msg("%s", coe_error());
        const struct array z = tensor_array(want, "layer%d.router_logits", l), h = tensor_array(want, "layer%d.h", l);
        assert_close("router_logits", records[l]->z->data, z.f, z.n, ABS_TOL, REL_TOL);
        assert_close("h", p->carried->data, h.f, h.n, ABS_TOL, REL_TOL);
        assert_close("y", y->data, tensor_array(want, "layer%d.y", l).f, n * d, ABS_TOL, REL_TOL);
        y->grad = test_alloc((size_t)(n * d) * sizeof(float));
        for (int64_t i = 0; i < n * d; i++)
            loss += (double)y->data[i] * (double)y->data[i], y->grad[i] = 2 * y->data[i];
    }
    assert_near("loss", loss, (double)tensor_array(want, "loss").f[0], 1e-4 * loss);
    check_balance(p, want);
    assert_ok(nn_backward(p->c));
    each_gate(b, want, "grad.", gates, check_gate);
    for (int32_t l = 0; l < layers; l++) {
        const struct array g1 = tensor_array(want, "grad.layer%d.weight1", l);
        const struct array g2 = tensor_array(want, "grad.layer%d.weight2", l);
        assert_close("weight1", block_weight(&b[l], "router.proj.weight.0")->grad, g1.f, g1.n, ABS_TOL, REL_TOL);
        assert_close("weight2", block_weight(&b[l], "router.out.weight.0")->grad, g2.f, g2.n, ABS_TOL, REL_TOL);
    }
}

/* ---- MoE++ ---- */

static bool yes(const struct golden_folder *f, const char *key)
{
    bool b = false;
    assert_ok(json_get_bool(json_object_get(golden_json(f, "about.json"), "parameters"), key, &b, "parameters"));
    return b;
}

/* Experts: feed-forward, constant, copy, zero. Only Mixtral's gating leaves the zero expert its weight. */
static struct moe_spec plus_spec(const struct golden_folder *f, const struct ckpt *in)
{
    static const char *const kinds[] = { "ffn", "const", "copy", "null" }, *const keys[] = { "ffn", "constant", "copy",
                                                                                             "zero" };
    struct moe_spec s = router_spec_of("gating_residual", 0, whole(f, "top_k"));
    double norm = 0;
    for (int i = 0; i < 4; i++)
        if (whole(f, keys[i])) {
            s.range[s.n_ranges++] = (struct expert_range){ .kind = kinds[i], .n = whole(f, keys[i]) };
            s.n_experts += whole(f, keys[i]);
        }
    s.expert_ffn = (int32_t)tensor_array(in, "layer0.moe.experts.experts.0.up_proj.weight").dim[0];
    s.range[0].ffn = s.expert_ffn;
    s.router.renormalize = true;
    s.router.capacity.weigh_first = yes(f, "mixtral_gating");
    if (!yes(f, "mixtral_gating") && !yes(f, "no_mul_topk")) s.input_scale = (float)s.router.top_k;
    assert_ok(json_get_num(json_object_get(golden_json(f, "about.json"), "parameters"), "gate_norm_std", &norm, "std"));
    s.router.kind_param[0] = yes(f, "two_layer_gate");
    if (yes(f, "two_layer_gate"))
        s.router.kind_param[1] = (double)tensor_array(in, "layer0.moe.gate.wg.0.weight").dim[0];
    s.router.kind_param[2] = yes(f, "logits_norm") ? norm : 0;
    return s;
}

static void load_tensor(const struct block *b, const struct ckpt *in, int32_t l, const char *ours, const char *file)
{
    char tensor[100];
    snprintf(tensor, sizeof tensor, "layer%d.moe.%s", l, file);
    load(b, ours, in, tensor);
}

static void load_plus(const struct block *b, const struct ckpt *in, int32_t l, bool two_layer)
{
    static const char *const matrix[] = { "gate", "up", "down" };
    char ours[64], file[64];
    load_tensor(b, in, l, two_layer ? "router.fc1.weight.0" : "router.0",
                two_layer ? "gate.wg.0.weight" : "gate.wg.weight");
    if (two_layer) load_tensor(b, in, l, "router.fc2.weight.0", "gate.wg.2.weight");
    if (l) load_tensor(b, in, l, "router.residual.weight.0", "gate.gate_map.weight");
    for (int32_t e = 0; e < b->spec.n_experts; e++) {
        const struct expert_range r = moe_range_of(&b->spec, e);
        for (int i = 0; !strcmp(r.kind, "ffn") && i < 3; i++) {
            snprintf(ours, sizeof ours, "experts.%d.%s", e, matrix[i]);
            snprintf(file, sizeof file, "experts.experts.%d.%s_proj.weight", e, matrix[i]);
            load_tensor(b, in, l, ours, file);
        }
        if (strcmp(r.kind, "const") != 0) continue;
        snprintf(ours, sizeof ours, "experts.%d.mix.weight", e);
        snprintf(file, sizeof file, "experts.experts.%d.wg.weight", e);
        load_tensor(b, in, l, ours, file);
        snprintf(ours, sizeof ours, "experts.%d.constant", e);
        snprintf(file, sizeof file, "experts.experts.%d.constant", e);
        load_tensor(b, in, l, ours, file);
    }
}

static void plus(const struct golden_folder *f)
{
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *want = golden_ckpt(f, "expect.safetensors");
    const struct moe_spec spec = plus_spec(f, in);
    struct moe_pass *p = router_pass(false);
    for (int32_t l = 0; has_tensor(in, "x%d", l); l++) {
        const struct array x = tensor_array(in, "x%d", l), y = tensor_array(want, "y%d", l);
        const struct array z = tensor_array(want, "router_logits%d", l);
        struct block b = block_make_nth(&spec, x.dim[1], BLOCK_GATED, l);
        load_plus(&b, in, l, yes(f, "two_layer_gate"));
        const struct val *got = moe_output(p, &b.spec, &b.w, NULL, l, router_input(p, x.f, x.dim[0], x.dim[1]));
        if (!got) fail_msg("%s", coe_error());
        assert_close("router_logits", p->carried->data, z.f, z.n, ABS_TOL, REL_TOL);
        assert_close("y", got->data, y.f, y.n, ABS_TOL, REL_TOL);
    }
}

static golden_fn *choose(struct golden_folder *f)
{
    const char *program = covered_by(f->name);
    if (!program || strcmp(program, "methods_routers")) return NULL;
    return strncmp(f->name, "rmoe", 4) ? plus : rmoe;
}

int main(void) { return kernels_init() || golden_run("golden/methods_routers", "methods", choose); }
