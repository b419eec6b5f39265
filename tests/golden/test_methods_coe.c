/* Golden: the Chain-of-Experts authors' models (fixtures/methods/coe_*). First layer by layer from the router inputs of
 * the first iteration, so that the chain is tested by itself: what each iteration reads, scores, chooses and pays in
 * auxiliary loss, what the block puts out, and for the last layer everything behind it: logits, loss, and the gradients
 * of its routers, experts, norm, the final norm and the head, with and without the auxiliary losses. Then the whole
 * model, with its latent attention: logits of every sequence, every decision, and the gradient of every parameter.
 *
 * A block that adds the residual stream h does not show h; but h = out - x_C must give x_0 when it is normalised. */
#include "support/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden/covered.h"
#include "model/model.h"
#include "support/block.h"

#define ABS_TOL 2e-5
#define REL_TOL 2e-4
#define LOGIT_TOL 2e-4 /* of the range of the logits */

struct fixture_model {
    const struct golden_folder *folder;
    const json_t *config;
    const struct ckpt *weights, *want;
    struct moe_spec spec;
    int32_t n_layers, n_seq, *off, *ids;
    int64_t d, n; /* width, tokens of all sequences */
};

static int32_t whole(const json_t *o, const char *key, int32_t otherwise)
{
    assert_ok(json_get_i32(o, key, 0, 1 << 24, &otherwise, key));
    return otherwise;
}

static bool yes(const json_t *o, const char *key)
{
    bool b = false;
    assert_ok(json_get_bool(o, key, &b, key));
    return b;
}

static void read_chain(struct chain_spec *c, const json_t *o)
{
    static const enum residual_mode mode[2][2] = { { RESIDUAL_NEITHER, RESIDUAL_OUTER },
                                                   { RESIDUAL_INNER, RESIDUAL_BOTH } };
    c->n_iterations = whole(o, "inner_iter", 1);
    c->shared_gate = !yes(o, "use_igate");
    c->residual = mode[yes(o, "inner_residual")][yes(o, "outer_residual")];
}

/* The authors' config in our words */
static void read_spec(struct fixture_model *m)
{
    const json_t *o = m->config;
    struct moe_spec *s = &m->spec;
    const char *score = "softmax", *method = "greedy";
    double alpha = 0.001;
    *s = moe_spec_default();
    s->n_experts = whole(o, "n_routed_experts", 0);
    s->expert_ffn = whole(o, "moe_intermediate_size", 0);
    s->shared_ffn = whole(o, "n_shared_experts", 0) * s->expert_ffn;
    s->router.top_k = whole(o, "num_experts_per_tok", 0);
    s->router.renormalize = yes(o, "norm_topk_prob") && s->router.top_k > 1;
    s->router.renorm_eps = 1e-20f;
    assert_ok(json_get_f32(o, "routed_scaling_factor", &s->router.scale, "config.json"));
    if (s->router.renormalize) s->router.scale = 1; /* their code scales only what it does not normalise */
    assert_ok(json_get_str(o, "scoring_func", &score, "config.json"));
    assert_string_equal(score, "softmax");
    assert_ok(json_get_str(o, "topk_method", &method, "config.json"));
    if (strcmp(method, "greedy"))
        s->router.n_group = whole(o, "n_group", 1), s->router.topk_group = whole(o, "topk_group", 1);
    assert_ok(json_get_num(o, "aux_loss_alpha", &alpha, "config.json"));
    s->loss[s->n_losses++] = (struct loss_spec){ yes(o, "seq_aux") ? "sequence" : "assign", alpha };
    read_chain(&s->chain, o);
}

static void read_tokens(struct fixture_model *m)
{
    const json_t *list = json_object_get(golden_json(m->folder, "inputs.json"), "sequences");
    m->n_seq = (int32_t)json_array_size(list);
    m->off = test_alloc(((size_t)m->n_seq + 1) * sizeof *m->off);
    for (int32_t i = 0; i < m->n_seq; i++)
        m->off[i + 1] = m->off[i] + (int32_t)json_array_size(json_array_get(list, (size_t)i));
    m->n = m->off[m->n_seq];
    m->ids = test_alloc((size_t)m->n * sizeof *m->ids);
    for (int32_t i = 0; i < m->n_seq; i++)
        for (int32_t t = m->off[i]; t < m->off[i + 1]; t++)
            m->ids[t] = (int32_t)json_integer_value(
                json_array_get(json_array_get(list, (size_t)i), (size_t)(t - m->off[i])));
}

static struct fixture_model open_model(const struct golden_folder *f)
{
    struct fixture_model m = { .folder = f };
    m.config = golden_json(f, "config.json");
    m.weights = golden_ckpt(f, "model.safetensors");
    m.want = golden_ckpt(f, "expect.safetensors");
    m.n_layers = whole(m.config, "num_hidden_layers", 0);
    m.d = whole(m.config, "hidden_size", 0);
    read_spec(&m);
    read_tokens(&m);
    return m;
}

/* The checkpoint's name of a block's weight, "" when the release has none */
static const char *name_of(const struct fixture_model *m, const struct weight *w, int32_t layer)
{
    static char name[160];
    char part[16];
    int32_t i;
    if (sscanf(w->name, "router.%d", &i) == 1) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.gate.%d.weight", layer, i);
        if (!has_tensor(m->weights, "%s", name)) snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", layer);
    } else if (sscanf(w->name, "experts.%d.%15s", &i, part) == 2) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, i, part);
    } else if (sscanf(w->name, "shared.%15s", part) == 1) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.shared_experts.%s_proj.weight", layer, part);
    }
    return name;
}

static struct block load_block(const struct fixture_model *m, int32_t layer)
{
    struct block b = block_make(&m->spec, m->d, BLOCK_GATED);
    for (size_t i = 0; i < b.n; i++) {
        const struct array a = tensor_array(m->weights, "%s", name_of(m, b.list[i], layer));
        block_set(&b, b.list[i]->name, a.f, a.n);
    }
    return b;
}

/* ---- forward ---- */

struct iterations {
    const struct fixture_model *m;
    int32_t layer, seen;
};

static void check_choice(const struct iterations *it, const struct route_record *r)
{
    const struct array idx = tensor_array(it->m->want, "layer%d.iter%d.topk_idx", it->layer, r->iteration);
    const struct array weight = tensor_array(it->m->want, "layer%d.iter%d.topk_weight", it->layer, r->iteration);
    char what[80];
    snprintf(what, sizeof what, "layer %d, iteration %d: chosen experts", it->layer, r->iteration);
    assert_int_equal(idx.n, r->route.n_slots);
    assert_ids(what, r->route.expert, idx.i, idx.n);
    snprintf(what, sizeof what, "layer %d, iteration %d: weights", it->layer, r->iteration);
    assert_close(what, r->route.weight, weight.f, weight.n, ABS_TOL, REL_TOL);
}

static void on_outputs(void *user, const struct route_record *r, const struct val *x, const float *y)
{
    struct iterations *it = user;
    (void)y;
    const struct array input = tensor_array(it->m->want, "layer%d.iter%d.x", it->layer, r->iteration);
    const struct array z = tensor_array(it->m->want, "layer%d.iter%d.router_logits", it->layer, r->iteration);
    char what[80];
    snprintf(what, sizeof what, "layer %d, iteration %d: input", it->layer, r->iteration);
    assert_close(what, x->data, input.f, input.n, ABS_TOL, REL_TOL);
    snprintf(what, sizeof what, "layer %d, iteration %d: router logits", it->layer, r->iteration);
    assert_close(what, r->z->data, z.f, z.n, ABS_TOL, REL_TOL);
    check_choice(it, r);
    it->seen++;
}

static bool adds_stream(const struct fixture_model *m)
{
    return m->spec.chain.residual == RESIDUAL_OUTER || m->spec.chain.residual == RESIDUAL_BOTH;
}

/* h = out - x_C, which normalised must be x_0; x_C is the block's result on a zero stream. */
static float *stream_of(const struct fixture_model *m, int32_t layer, const struct array *out, const float *x_c)
{
    float *h = test_alloc((size_t)out->n * sizeof *h);
    if (!adds_stream(m)) return h;
    const struct array norm = tensor_array(m->weights, "model.layers.%d.post_attention_layernorm.weight", layer);
    const struct array x0 = tensor_array(m->want, "layer%d.iter0.x", layer);
    float eps = 1e-6f;
    assert_ok(json_get_f32(m->config, "rms_norm_eps", &eps, "config.json"));
    for (int64_t i = 0; i < out->n; i++) h[i] = out->f[i] - x_c[i];
    struct nn c = { .arena = test_arena() };
    struct val *x = nn_rmsnorm(&c, nn_wrap(&c, h, m->n, m->d), test_weight("norm", norm.f, 1, m->d), 0, eps);
    assert_norm_close("x_0 from out - x_C", x->data, x0.f, x0.n, 1e-4);
    return h;
}

static void check_aux(const struct fixture_model *m, int32_t layer, struct nn *c, const struct block_run *run)
{
    const struct attn_batch batch = { m->n_seq, m->off, NULL, NULL };
    for (int32_t t = 0; t < run->n_records; t++) {
        double total = 0;
        char what[80];
        const struct loss_call call = { .c = c, .records = &run->records[t], .n_records = 1, .batch = &batch };
        assert_ok(moe_losses(&call, &total, NULL));
        snprintf(what, sizeof what, "layer %d, iteration %d: auxiliary loss", layer, t);
        const double want = (double)tensor_array(m->want, "layer%d.iter%d.aux_loss", layer, t).f[0];
        assert_near(what, total, want, ABS_TOL + REL_TOL * want);
    }
}

/* Runs one layer without a tape and checks all of it; the stream it needs is returned. */
static float *check_layer(const struct fixture_model *m, struct block *b, int32_t layer)
{
    struct nn c = { .arena = test_arena() };
    struct iterations it = { m, layer, 0 };
    const struct moe_observer observer = { .user = &it, .outputs = on_outputs };
    struct block_run run = { .observer = &observer };
    const struct array x0 = tensor_array(m->want, "layer%d.iter0.x", layer),
                       out = tensor_array(m->want, "layer%d.out", layer);
    const struct val *x_c = block_forward(b, &c, NULL, nn_wrap(&c, x0.f, m->n, m->d), &run);
    assert_int_equal(it.seen, m->spec.chain.n_iterations);
    float *h = stream_of(m, layer, &out, x_c->data);
    const struct val *y = block_forward(b, &c, nn_wrap(&c, h, m->n, m->d), nn_wrap(&c, x0.f, m->n, m->d), NULL);
    assert_close("block output", y->data, out.f, out.n, ABS_TOL, REL_TOL);
    check_aux(m, layer, &c, &run);
    return h;
}

/* ---- what follows the last layer, and back ---- */

struct tail {
    struct weight *norm, *head;
    struct val *x0; /* input of the last layer's chain */
};

static void check_logits(const struct fixture_model *m, const struct val *y)
{
    for (int32_t i = 0; i < m->n_seq; i++) {
        const struct array want = npy_array(golden_path(m->folder, "logits.%d.npy", i));
        const float *got = y->data + m->off[i] * y->cols;
        assert_close("logits", got, want.f, want.n, LOGIT_TOL * range_of(want.f, want.n), 0);
    }
}

static int32_t *next_ids(const struct fixture_model *m)
{
    int32_t *target = test_alloc((size_t)m->n * sizeof *target);
    for (int32_t i = 0; i < m->n_seq; i++)
        for (int32_t t = m->off[i]; t < m->off[i + 1]; t++) target[t] = t + 1 < m->off[i + 1] ? m->ids[t + 1] : -1;
    return target;
}

/* Last layer, final norm, head, loss and auxiliary losses (scale 0: left out), then backwards. */
static struct tail run_tail(const struct fixture_model *m, struct block *b, float *h, double aux_scale)
{
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    struct tail o;
    struct block_run run = { 0 };
    const struct array x0 = tensor_array(m->want, "layer%d.iter0.x", m->n_layers - 1),
                       norm = tensor_array(m->weights, "model.norm.weight");
    const struct array head = tensor_array(m->weights, "lm_head.weight");
    float eps = 1e-6f;
    assert_ok(json_get_f32(m->config, "rms_norm_eps", &eps, "config.json"));
    o.norm = test_weight("model.norm.weight", norm.f, 1, m->d);
    o.head = test_weight("lm_head.weight", head.f, head.dim[0], m->d);
    o.x0 = nn_wrap(&c, x0.f, m->n, m->d);
    struct val *y = block_forward(b, &c, nn_wrap(&c, h, m->n, m->d), o.x0, &run);
    y = nn_linear(&c, nn_rmsnorm(&c, y, o.norm, 0, eps), o.head, NULL);
    check_logits(m, y);
    double sum = 0, total = 0;
    int64_t count = 0;
    assert_ok(nn_xent(&c, y, next_ids(m), 1.0 / (double)(m->n - m->n_seq), 0, &sum, &count));
    assert_near("loss", sum / (double)count, (double)tensor_array(m->want, "loss").f[0], ABS_TOL);
    const struct attn_batch batch = { m->n_seq, m->off, NULL, NULL };
    const struct loss_call call = {
        .c = &c, .records = run.records, .n_records = run.n_records, .batch = &batch, .scale = aux_scale
    };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_ok(nn_backward(&c));
    return o;
}

static void check_gradient(const struct fixture_model *m, const char *prefix, const char *name, const float *got,
                           int64_t n)
{
    const struct array want = tensor_array(m->want, "%s%s", prefix, name);
    char what[200];
    snprintf(what, sizeof what, "%s%s", prefix, name);
    assert_int_equal(want.n, n);
    assert_close(what, got, want.f, n, ABS_TOL, REL_TOL);
}

/* x_0 = n ⊙ w with n = x_0 / w, so the gradient of the norm's weight is Σ_t dx_0 ⊙ n. */
static void check_norm_gradient(const struct fixture_model *m, const struct tail *o)
{
    char name[80];
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", m->n_layers - 1);
    const struct array w = tensor_array(m->weights, "%s", name);
    float *dw = test_alloc((size_t)m->d * sizeof *dw);
    for (int64_t i = 0; i < m->n * m->d; i++) dw[i % m->d] += o->x0->grad[i] * (o->x0->data[i] / w.f[i % m->d]);
    check_gradient(m, "grad.", name, dw, m->d);
}

static void check_gradients(const struct fixture_model *m, struct block *b, float *h)
{
    block_zero_grad(b);
    const struct tail o = run_tail(m, b, h, 1);
    for (size_t i = 0; i < b->n; i++)
        check_gradient(m, "grad.", name_of(m, b->list[i], m->n_layers - 1), b->list[i]->grad, weight_count(b->list[i]));
    check_gradient(m, "grad.", o.norm->name, o.norm->grad, m->d);
    check_gradient(m, "grad.", o.head->name, o.head->grad, weight_count(o.head));
    check_norm_gradient(m, &o);
    block_zero_grad(b);
    run_tail(m, b, h, 0);
    for (size_t i = 0; i < b->n; i++)
        if (has_tensor(m->want, "grad_noaux.%s", name_of(m, b->list[i], m->n_layers - 1)))
            check_gradient(m, "grad_noaux.", name_of(m, b->list[i], m->n_layers - 1), b->list[i]->grad,
                           weight_count(b->list[i]));
}

/* ---- the whole model ---- */

static struct coe_model *model; /* closed by the next folder when a check fails */

static void whole_route(void *user, const struct route_record *r)
{
    const struct fixture_model *m = user;
    const struct array z = tensor_array(m->want, "layer%d.iter%d.router_logits", r->layer, r->iteration);
    char what[80];
    snprintf(what, sizeof what, "whole model, layer %d, iteration %d: router logits", r->layer, r->iteration);
    assert_close(what, r->z->data, z.f, z.n, 5e-5, 5e-4);
    check_choice(&(struct iterations){ m, r->layer, 0 }, r);
}

/* The same logits with every head's keys and values made from the latent; training refuses that form by its name. */
static void whole_expanded(const struct fixture_model *m)
{
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena() };
    const struct attn_batch batch = { m->n_seq, m->off, test_alloc((size_t)m->n_seq * sizeof(int64_t)), NULL };
    struct forward f = { .batch = &batch, .mla = COE_MLA_EXPANDED };
    struct val *y = model_forward(model, &c, m->ids, m->n, &f);
    if (!y) fail_msg("%s", coe_error());
    check_logits(m, y);
    c.tape = &tape;
    assert_null(model_forward(model, &c, m->ids, m->n, &f));
    assert_int_equal(coe_last_status(), COE_E_USAGE);
    assert_non_null(strstr(coe_error(), "the expanded form of latent attention"));
}

/* Both sequences as one batch, with the auxiliary losses injected into the gradient */
static void whole_step(const struct fixture_model *m)
{
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    const struct attn_batch batch = { m->n_seq, m->off, test_alloc((size_t)m->n_seq * sizeof(int64_t)), NULL };
    const struct moe_observer observer = { .user = (void *)(uintptr_t)m, .route = whole_route };
    const int32_t n_records = model_n_records(model);
    struct route_record **records = test_alloc((size_t)n_records * sizeof *records);
    struct forward f = { .batch = &batch, .observer = &observer, .records = records, .max_records = n_records };
    struct val *y = model_forward(model, &c, m->ids, m->n, &f);
    if (!y) fail_msg("%s", coe_error());
    assert_int_equal(f.n_records, m->n_layers * m->spec.chain.n_iterations);
    check_logits(m, y);
    double sum = 0, total = 0;
    int64_t count = 0;
    assert_ok(nn_xent(&c, y, next_ids(m), 1.0 / (double)(m->n - m->n_seq), 0, &sum, &count));
    assert_near("loss of the whole model", sum / (double)count, (double)tensor_array(m->want, "loss").f[0], ABS_TOL);
    const struct loss_call call = {
        .c = &c, .records = records, .n_records = f.n_records, .batch = &batch, .scale = 1
    };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_ok(nn_backward(&c));
}

static void check_whole(const struct fixture_model *m)
{
    if (model) model_close(model);
    model = NULL;
    assert_ok(model_open(&model, m->folder->path));
    whole_expanded(m);
    assert_ok(model_make_trainable(model, NULL));
    whole_step(m);
    for (size_t i = 0; i < model->n_params; i++) {
        const struct weight *w = &model->params[i].w;
        check_gradient(m, "grad.", w->name, w->grad, weight_count(w));
    }
    model_close(model);
    model = NULL;
}

static void chain(const struct golden_folder *f)
{
    const struct fixture_model m = open_model(f);
    for (int32_t l = 0; l < m.n_layers; l++) {
        struct block b = load_block(&m, l);
        float *h = check_layer(&m, &b, l);
        if (l == m.n_layers - 1) check_gradients(&m, &b, h);
    }
    check_whole(&m);
}

static golden_fn *choose(struct golden_folder *f)
{
    const char *program = covered_by(f->name);
    return program && !strcmp(program, "methods_coe") ? chain : NULL;
}

int main(void)
{
    const int failed = kernels_init() || golden_run("golden/methods_coe", "methods", choose);
    if (model) model_close(model);
    return failed;
}
