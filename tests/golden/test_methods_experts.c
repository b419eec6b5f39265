/* Golden: kinds of experts against their authors' code. */
#include "support/golden.h"
#include "support/kinds.h"

#include <math.h>

static double number(const json_t *about, const char *name)
{
    const json_t *v = json_object_get(json_object_get(about, "parameters"), name);
    if (!json_is_number(v)) fail_msg("about.json has no parameter %s", name);
    return json_number_value(v);
}

/* rows [n, from] → [n, to], zeros behind */
static float *wider(const float *x, int64_t n, int64_t from, int64_t to)
{
    float *out = test_alloc((size_t)(n * to) * sizeof *out);
    for (int64_t i = 0; i < n; i++) memcpy(out + i * to, x + i * from, (size_t)from * sizeof *out);
    return out;
}

static float *transposed(const float *x, int64_t rows, int64_t cols)
{
    float *out = test_alloc((size_t)(rows * cols) * sizeof *out);
    for (int64_t i = 0; i < rows * cols; i++) out[i % cols * rows + i / cols] = x[i];
    return out;
}

/* A layer whose input and output are as wide as the wider of the adapted projection's; scores of ranks that share a
 * router row are equal. */
static struct block ranks_of(const struct golden_folder *f, const struct ckpt *in, int64_t d)
{
    const json_t *about = golden_json(f, "about.json");
    const struct array a = tensor_array(in, "A"), b = tensor_array(in, "B"), bias = tensor_array(in, "bias"),
                       router = tensor_array(in, "router");
    const int32_t n = (int32_t)a.dim[0], k = (int32_t)number(about, "active");
    const int64_t part = n / router.dim[0];
    struct moe_spec s = kinds_spec(
        (struct expert_range[]){ { .kind = "rank1", .n = n, .param = { number(about, "lora_alpha") } } }, 1, k);
    s.router.score = SCORE_SIGMOID;
    s.router.selection_bias = s.router.bias_in_weights = s.router.renormalize = true;
    s.router.scale = (float)k;
    struct block block = block_make(&s, d, 0);
    float *rows = block_weight(&block, "router.0")->master;
    const float *wide = wider(router.f, router.dim[0], router.dim[1], d);
    for (int32_t e = 0; e < n; e++) memcpy(rows + e * d, wide + e / part * d, (size_t)d * sizeof *rows);
    block_set(&block, "range.0.lora_A.weight", wider(a.f, n, a.dim[1], d), n * d);
    block_set(&block, "range.0.lora_B.weight", wider(transposed(b.f, b.dim[0], n), n, b.dim[0], d), n * d);
    block_set(&block, "selection_bias.0", bias.f, n);
    return block;
}

static void smora(const struct golden_folder *f)
{
    const json_t *about = golden_json(f, "about.json");
    const struct ckpt *in = golden_ckpt(f, "case.safetensors"), *out = golden_ckpt(f, "expect.safetensors");
    struct array x = tensor_array(in, "x"), base = tensor_array(in, "base.weight"), b = tensor_array(in, "base.bias"),
                 want = tensor_array(out, "y"), after = tensor_array(out, "bias_after");
    const int64_t d_in = base.dim[1], d_out = base.dim[0], d = COE_MAX(d_in, d_out), n = x.n / d_in;
    struct block block = ranks_of(f, in, d);
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    const struct val *own = nn_linear(&c, nn_wrap(&c, x.f, n, d_in), test_weight("base", base.f, d_out, d_in),
                                      test_weight("bias", b.f, 1, d_out));
    const struct val *added = block_forward(&block, &c, NULL, nn_wrap(&c, wider(x.f, n, d_in, d), n, d), &run);
    float *y = test_alloc((size_t)(n * d_out) * sizeof *y);
    for (int64_t i = 0; i < n * d_out; i++) y[i] = own->data[i] + added->data[i / d_out * d + i % d_out];
    assert_close("y", y, want.f, n * d_out, 1e-5, 1e-4);
    uint64_t *counts = test_alloc((size_t)after.n * sizeof *counts);
    moe_add_counts(run.records[0], counts);
    float *bias = block_weight(&block, "selection_bias.0")->master;
    moe_bias_update(bias, counts, (int32_t)after.n, number(about, "bias_update_rate"));
    assert_close("bias_after", bias, after.f, after.n, 1e-5, 1e-4);
}

static golden_fn *choose(struct golden_folder *f)
{
    return strncmp(f->name, "smora", 5) ? NULL : smora;
}

int main(void)
{
    return kernels_init() || golden_run("golden/methods_experts", "methods", choose);
}
