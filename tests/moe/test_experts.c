/* Experts of several kinds and widths in one layer. */
#include "support/block.h"
#include "support/routes.h"

enum { D = 6, T = 5 };

static struct moe_spec listed(const struct expert_range *range, int32_t n, int32_t k)
{
    struct moe_spec s = routes_spec(0, k, "top_k");
    s.n_ranges = n;
    for (int32_t i = 0; i < n; i++) {
        s.range[i] = range[i];
        s.n_experts += range[i].n;
        s.expert_ffn = COE_MAX(s.expert_ffn, range[i].ffn);
    }
    return s;
}

static struct val *input(struct nn *c, uint64_t seed) { return nn_wrap(c, random_floats(seed, T * D, 1), T, D); }

/* Output and all gradients of a layer under Σ y² / 2 */
static struct val *train(struct block *b, struct nn *c, uint64_t seed)
{
    struct val *x = input(c, seed), *y = block_forward(b, c, NULL, x, NULL);
    y->grad = test_alloc(T * D * sizeof(float));
    memcpy(y->grad, y->data, T * D * sizeof(float));
    assert_ok(nn_backward(c));
    return y;
}

static void a_list_of_kinds_is_what_the_counts_say(void **state)
{
    (void)state;
    struct moe_spec counts = routes_spec(6, 3, "top_k");
    counts.expert_ffn = 4, counts.n_identity = 2, counts.n_null = 1;
    const struct moe_spec list = listed((struct expert_range[]){ { .kind = "ffn", .n = 3, .ffn = 4 },
                                                                 { .kind = "copy", .n = 2 },
                                                                 { .kind = "null", .n = 1 } },
                                        3, 3);
    struct block a = block_make(&counts, D, BLOCK_BIASES), b = block_make(&list, D, BLOCK_BIASES);
    struct nn *c = routes_training(0);
    block_random(&a, 1, 1), block_random(&b, 1, 1);
    assert_int_equal(a.n, b.n);
    assert_same_bits("output", train(&b, c, 2)->data, train(&a, c, 2)->data, T * D);
    for (size_t i = 0; i < a.n; i++)
        assert_same_bits(a.list[i]->name, b.list[i]->grad, a.list[i]->grad, weight_count(a.list[i]));
}

/* One range of four experts and two ranges of two experts make one chain of sums. */
static void cutting_a_range_in_two_changes_no_bit_of_the_output(void **state)
{
    (void)state;
    const struct moe_spec one = listed((struct expert_range[]){ { .kind = "ffn", .n = 4, .ffn = 4 } }, 1, 3);
    const struct moe_spec two = listed(
        (struct expert_range[]){ { .kind = "ffn", .n = 2, .ffn = 4 }, { .kind = "ffn", .n = 2, .ffn = 4 } }, 2, 3);
    struct block a = block_make(&one, D, BLOCK_GATED), b = block_make(&two, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    block_random(&a, 1, 1), block_random(&b, 1, 1);
    assert_same_bits("output", block_forward(&b, &c, NULL, input(&c, 3), NULL)->data,
                     block_forward(&a, &c, NULL, input(&c, 3), NULL)->data, T * D);
}

/* A narrow expert is a wide one whose further neurons are zero. */
static void a_narrow_expert_is_a_wide_one_without_its_last_neurons(void **state)
{
    (void)state;
    const struct moe_spec wide = listed((struct expert_range[]){ { .kind = "ffn", .n = 3, .ffn = 5 } }, 1, 2);
    const struct moe_spec mixed = listed(
        (struct expert_range[]){ { .kind = "ffn", .n = 2, .ffn = 5 }, { .kind = "ffn", .n = 1, .ffn = 2 } }, 2, 2);
    struct block a = block_make(&wide, D, BLOCK_GATED), b = block_make(&mixed, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    block_random(&a, 1, 1);
    for (size_t i = 0; i < a.n; i++) memcpy(b.list[i]->master, a.list[i]->master, weight_count(b.list[i]) * 4);
    memset(a.gate[2]->master + 2 * D, 0, 3 * D * sizeof(float));
    for (int i = 0; i < D; i++) memcpy(b.down[2]->master + i * 2, a.down[2]->master + i * 5, 2 * sizeof(float));
    assert_close("output", block_forward(&b, &c, NULL, input(&c, 3), NULL)->data,
                 block_forward(&a, &c, NULL, input(&c, 3), NULL)->data, T * D, 1e-6, 1e-6);
}

static void observed(void *user, const struct route_record *r, const float *u)
{
    float *out = user;
    for (int32_t e = 0; e < r->route.n_experts; e++)
        for (int32_t row = r->route.off[e]; row < r->route.off[e + 1]; row++)
            for (int32_t j = 0; j < moe_range_of(r->spec, e).ffn; j++) out[e] += u[row * r->spec->expert_ffn + j];
}
static void nothing(void *user, const struct route_record *r, const struct val *x, const float *y)
{
    (void)user, (void)r, (void)x, (void)y;
}

/* gate rows 1, up rows 1: u = silu(s)·s of the token's sum s, in as many columns as the expert is wide. */
static void observers_see_each_expert_in_its_own_width(void **state)
{
    (void)state;
    const struct moe_spec s = listed((struct expert_range[]){ { .kind = "ffn", .n = 1, .ffn = 3 },
                                                              { .kind = "copy", .n = 1 },
                                                              { .kind = "ffn", .n = 1, .ffn = 1 } },
                                     3, 3);
    struct block b = block_make(&s, 1, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    for (size_t i = 0; i < b.n; i++)
        for (int64_t j = 0; j < weight_count(b.list[i]); j++) b.list[i]->master[j] = 1;
    float sums[3] = { 0 }, one = 1;
    const struct moe_observer o = { .user = sums, .outputs = nothing, .hidden = observed };
    block_forward(&b, &c, NULL, nn_wrap(&c, &one, 1, 1), &(struct block_run){ .observer = &o });
    assert_close("hidden", sums, (float[]){ 3 * 0.7310586f, 0, 0.7310586f }, 3, 1e-6, 0);
}

static void lists_that_make_no_layer_are_refused(void **state)
{
    (void)state;
    struct moe_spec s = listed((struct expert_range[]){ { .kind = "null", .n = 2 } }, 1, 1);
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("here: all experts are null");
    s = listed((struct expert_range[]){ { .kind = "ffn", .n = 2, .ffn = 3 } }, 1, 1);
    s.n_experts = 3;
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("n_experts is 3, the list of experts has 2");
    s.n_experts = 2, s.n_null = 1;
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("in it, not beside it");
    s.n_null = 0, s.range[0].kind = "nothing";
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("2 experts of kind 'nothing'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_of_kinds_is_what_the_counts_say),
        cmocka_unit_test(cutting_a_range_in_two_changes_no_bit_of_the_output),
        cmocka_unit_test(a_narrow_expert_is_a_wide_one_without_its_last_neurons),
        cmocka_unit_test(observers_see_each_expert_in_its_own_width),
        cmocka_unit_test(lists_that_make_no_layer_are_refused),
    };
    coe_set_threads(1);
    return kernels_init() || cmocka_run_group_tests_name("moe/experts", tests, NULL, NULL);
}
