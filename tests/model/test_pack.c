/* Weights laid out for the kernels (model_pack): the same bits as from the file, at every level and number of threads;
 * only where the budget allows it. */
#include <string.h>

#include "model/model.h"
#include "model/quantize.h"
#include "support/arrays.h"
#include "support/tiny_model.h"

#define N 9
#define VOCAB 320

static struct coe_model *open_quantised(const char *origin, enum dtype t, const char *name)
{
    struct coe_model *m;
    struct quantize_opts o = quantize_default();
    struct quantize_report report;
    const char *file = temp_path(name);
    o.type = t;
    assert_ok(model_open(&m, origin));
    assert_ok(model_quantize(m, file, &o, &report));
    model_close(m);
    assert_ok(model_open(&m, file));
    return m;
}

static void logits_of(float *out, const struct coe_model *m)
{
    static const int32_t ids[N] = { 3, 1, 4, 1, 5, 9, 2, 6, 5 }, off[] = { 0, N };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward pass = { .batch = &batch };
    struct nn c = { .arena = test_arena() };
    const struct val *y = model_forward(m, &c, ids, N, &pass);
    if (!y) fail_msg("%s", coe_error());
    memcpy(out, y->data, (size_t)(N * VOCAB) * sizeof *out);
}

static void panels_have_the_bits_of_the_file(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_Q4_0, DT_Q8_0, DT_Q4_K, DT_Q6_K };
    static float want[N * VOCAB], got[N * VOCAB];
    const struct kernels *best = kern;
    const char *origin = tiny_model("packed", &(struct tiny){ .d_model = 256 });
    for (size_t i = 0; i < COE_COUNT(types); i++) {
        struct coe_model *m = open_quantised(origin, types[i], "packed.gguf");
        logits_of(want, m);
        assert_null(m->panels);
        assert_ok(model_pack(m));
        assert_non_null(m->panels);
        for (const struct kernels *const *k = kernels_all(); *k; k++)
            for (int threads = 1; threads <= 2; threads++) {
                kern = *k;
                coe_set_threads(threads);
                logits_of(got, m);
                assert_same_bits(kern->name, got, want, N * VOCAB);
            }
        kern = best;
        coe_set_threads(0);
        model_close(m);
    }
}

/* BF16 and F32, with a head of its own, in one file; below `least` nothing is copied. */
static void plain_matrices_move_into_large_pages_as_they_are(void **state)
{
    (void)state;
    static float want[N * VOCAB], got[N * VOCAB];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct coe_model *m;
        assert_ok(model_open(&m, tiny_model(bf16 ? "plain-bf16" : "plain-f32", &(struct tiny){ .bf16 = bf16 })));
        logits_of(want, m);
        assert_ok(model_pack(m)); /* a few thousand weights: not worth it */
        assert_null(m->panels);
        const void *mapped = m->layer[0].moe.gate[1]->data;
        assert_ok(model_pack_from(m, 1));
        assert_non_null(m->panels);
        assert_true(m->layer[0].moe.gate[1]->data != mapped);
        assert_false(m->layer[0].moe.gate[1]->panels);
        logits_of(got, m);
        assert_same_bits(bf16 ? "BF16" : "F32", got, want, N * VOCAB);
        model_close(m);
    }
}

static void a_model_beyond_the_budget_stays_in_its_file(void **state)
{
    (void)state;
    static float want[N * VOCAB], got[N * VOCAB];
    struct coe_model *m =
        open_quantised(tiny_model("mapped", &(struct tiny){ .d_model = 256 }), DT_Q4_0, "mapped.gguf");
    logits_of(want, m);
    mem_set_budget(mem_used() + 65536);
    assert_ok(model_pack(m));
    mem_set_budget(0);
    assert_null(m->panels);
    logits_of(got, m);
    assert_same_bits("logits", got, want, N * VOCAB);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_have_the_bits_of_the_file),
        cmocka_unit_test(plain_matrices_move_into_large_pages_as_they_are),
        cmocka_unit_test(a_model_beyond_the_budget_stays_in_its_file),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/pack", tests, NULL, NULL);
}
