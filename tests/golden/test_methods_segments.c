/* Golden: Seg-MoE of fixtures/methods in its three forms: experts over whole segments (v0), the same through a
 * bottleneck before and behind (v1), experts token by token beside a shared expert over segments (current). */
#include "support/golden.h"

#include <stdio.h>
#include <string.h>

#include "support/block.h"
#include "support/routes.h"

#define ABS_TOL 1e-5
#define REL_TOL 1e-4

struct form {
    const struct ckpt *in;
    const json_t *parameters;
    bool whole, narrow; /* experts over segments; in_proj and out_proj */
    struct array into, out;
};

static double number(const struct form *f, const char *key)
{
    const json_t *v = json_object_get(f->parameters, key);
    if (!json_is_number(v)) fail_msg("parameter %s is missing", key);
    return json_number_value(v);
}

static void form_of(struct form *f, const struct golden_folder *folder)
{
    *f = (struct form){ .in = golden_ckpt(folder, "case.safetensors"),
                        .parameters = json_object_get(golden_json(folder, "about.json"), "parameters") };
    f->whole = has_tensor(f->in, "experts.0.up_proj.weight");
    f->narrow = has_tensor(f->in, "in_proj.weight");
    if (f->narrow) f->into = tensor_array(f->in, "in_proj.weight"), f->out = tensor_array(f->in, "out_proj.weight");
}

/* C [m, n] = A [m, k] · B [k, n] */
static struct array product(const struct array *a, const struct array *b)
{
    const int64_t m = a->dim[0], k = a->dim[1], n = b->dim[1];
    struct array c = { .n_dims = 2, .dim = { m, n }, .n = m * n, .f = test_alloc((size_t)(m * n) * sizeof *c.f) };
    for (int64_t i = 0; i < m * n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++) sum += (double)a->f[i / n * k + j] * (double)b->f[j * n + i % n];
        c.f[i] = (float)sum;
    }
    return c;
}

/* What reads a segment, and what writes one. There are no biases, so the bottleneck is a factor of every matrix. */
static struct array reading(const struct form *f, const char *name)
{
    const struct array w = tensor_array(f->in, "%s", name);
    return f->narrow ? product(&w, &f->into) : w;
}
static struct array writing(const struct form *f, const char *name)
{
    const struct array w = tensor_array(f->in, "%s", name);
    return f->narrow ? product(&f->out, &w) : w;
}

static void put(const struct block *b, const char *name, struct array w) { block_set(b, name, w.f, w.n); }

static struct block block_of(const struct form *f, int64_t d)
{
    const struct array shared = tensor_array(f->in, "shared_expert.up_proj.weight");
    const int32_t experts = (int32_t)number(f, "experts"), k = (int32_t)number(f, "top_k");
    const struct array up = tensor_array(f->in, f->whole ? "experts.0.up_proj.weight" : "experts.0.1.up_proj.weight");
    struct moe_spec s = routes_spec(experts, k, "top_k");
    char name[2][64];
    assert_true(moe_use_router(&s.router, "segment"));
    s.router.kind_param[0] = s.shared_segment = (int32_t)number(f, "segment");
    s.router.kind_param[1] = number(f, "temperature");
    s.router.renormalize = k > 1;
    s.router.renorm_min = k > 1 ? 1e-6f : 0;
    s.act = ACT_GELU;
    s.expert_ffn = (int32_t)up.dim[0];
    s.shared_ffn = (int32_t)shared.dim[0];
    s.shared_gate = true;
    if (f->whole) {
        s.range[0] = (struct expert_range){ .kind = "segment", .n = experts, .param = { (double)up.dim[0] } };
        s.n_ranges = 1;
    }
    struct block b = block_make(&s, d, BLOCK_UNGATED | BLOCK_SHARED_UNGATED);
    put(&b, "router.weight.0", reading(f, "gating.weight"));
    put(&b, "shared.gate", reading(f, "shared_expert.up_proj.weight"));
    put(&b, "shared.down", writing(f, "shared_expert.down_proj.weight"));
    put(&b, "shared_expert_gate", reading(f, "shared_gating.weight"));
    for (int32_t e = 0; e < experts; e++)
        for (int part = 0; part < 2; part++) {
            const char *proj = part ? "down_proj.weight" : "up_proj.weight";
            snprintf(name[0], sizeof name[0], f->whole ? "experts.%d.%s" : "experts.%d.1.%s", e, proj);
            snprintf(name[1], sizeof name[1], "experts.%d.%s", e, f->whole ? proj : part ? "down" : "gate");
            put(&b, name[1],
                !f->whole ? tensor_array(f->in, "%s", name[0])
                : part    ? writing(f, name[0])
                          : reading(f, name[0]));
        }
    return b;
}

/* The balance loss counts segments: its logits are those of each segment's first token. */
static void check_loss(const struct form *f, const struct block *b, const struct route_record *rec,
                       const struct golden_folder *folder, const struct attn_batch *batch)
{
    const struct ckpt *want = golden_ckpt(folder, "expect.safetensors");
    const struct array probs = tensor_array(want, "router_probs"), lbl = tensor_array(want, "lbl");
    const int32_t experts = b->spec.n_experts, width = b->spec.shared_segment;
    float *z = test_alloc((size_t)probs.n * sizeof *z), *p = test_alloc((size_t)probs.n * sizeof *p);
    int64_t segments = 0;
    for (int32_t i = 0; i < batch->n_seq; i++)
        for (int32_t t = batch->off[i]; t < batch->off[i + 1]; t += width, segments++) {
            memcpy(z + segments * experts, rec->z->data + (int64_t)t * experts, (size_t)experts * sizeof *z);
            memcpy(p + segments * experts, rec->p + (int64_t)t * experts, (size_t)experts * sizeof *p);
        }
    assert_int_equal(segments * experts, probs.n);
    assert_close("probabilities", p, probs.f, probs.n, ABS_TOL, REL_TOL);
    struct moe_spec s = routes_spec(experts, b->spec.router.top_k, "top_k");
    s.loss[0] = (struct loss_spec){ "assign", number(f, "balance_alpha") };
    s.n_losses = 1;
    struct route_record *r = routes_of(&s, NULL, z, segments, NULL);
    struct nn c = { .arena = test_arena() };
    const struct loss_call call = { .c = &c, .records = &r, .n_records = 1 };
    double total;
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("balance loss", total, (double)lbl.f[0], ABS_TOL + REL_TOL * (double)lbl.f[0]);
}

static void seg_moe(const struct golden_folder *folder)
{
    struct form f;
    form_of(&f, folder);
    const struct array x = tensor_array(f.in, "x"), y = tensor_array(golden_ckpt(folder, "expect.safetensors"), "y");
    const int32_t n_seq = (int32_t)x.dim[0], length = (int32_t)x.dim[1];
    const int64_t d = x.dim[2];
    struct block b = block_of(&f, d);
    struct nn c = { .arena = test_arena() };
    int32_t *off = test_alloc(((size_t)n_seq + 1) * sizeof *off);
    for (int32_t i = 0; i <= n_seq; i++) off[i] = i * length;
    const struct attn_batch batch = { n_seq, off, NULL, NULL };
    struct block_run run = { .batch = &batch };
    const struct val *got = block_forward(&b, &c, NULL, nn_wrap(&c, x.f, (int64_t)n_seq * length, d), &run);
    assert_close("y", got->data, y.f, y.n, ABS_TOL, REL_TOL);
    check_loss(&f, &b, run.records[0], folder, &batch);
}

static golden_fn *choose(struct golden_folder *f) { return strncmp(f->name, "seg_moe", 7) ? NULL : seg_moe; }

int main(void) { return kernels_init() || golden_run("golden/methods_segments", "methods", choose); }
