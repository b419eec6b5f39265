/* FiLM experts of MoFME: the limits of the card, and what watchers see. */
#include "support/kinds.h"

enum { D = 3, F = 4, E = 3, ROWS = 5 };

static struct block block_of(bool linear, int32_t k)
{
    const struct moe_spec s =
        kinds_spec((struct expert_range[]){ { .kind = "film", .n = E, .ffn = F, .param = { linear ? 1 : 0 } } }, 1, k);
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_random(&b, 12, 1);
    return b;
}

static void set(const struct block *b, const char *format, int32_t e, float value)
{
    struct weight *w = block_weight(b, format, e);
    for (int64_t i = 0; i < weight_count(w); i++) w->master[i] = value;
}

/* x = (1, -1, 2), W1 = W2 = rows that pick x0, x1, x2, x0: with relu h = (1, 0, 4, 1); gamma = (1, 2, .5, -1),
 * beta = (0, 1, 0, 0): (1, 1, 2, -1); A adds them up in its first row: 3. */
static void an_expert_scales_and_shifts_the_shared_features(void **state)
{
    (void)state;
    const float picks[F * D] = { 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0 };
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "film", .n = 1, .ffn = F } }, 1, 1);
    s.act = ACT_RELU;
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_set(&b, "range.0.fc1.weight", picks, F * D);
    block_set(&b, "range.0.fc2.weight", picks, F * D);
    block_set(&b, "range.0.adaptor.weight", (float[D * F]){ 1, 1, 1, 1 }, D * F);
    block_set(&b, "experts.0.gamma", (float[]){ 1, 2, .5f, -1 }, F);
    block_set(&b, "experts.0.beta", (float[]){ 0, 1, 0, 0 }, F);
    assert_close("y", kinds_output(&b, (float[]){ 1, -1, 2 }, 1), (float[]){ 3, 0, 0 }, D, 0, 0);
}

/* gamma = 1, beta = 0 in every expert: weights that sum to one leave the shared network, a feed-forward expert. */
static void without_modulation_all_experts_are_the_shared_network(void **state)
{
    (void)state;
    struct block b = block_of(false, 2);
    struct moe_spec dense = routes_spec(1, 1, "top_k");
    dense.expert_ffn = F;
    struct block d = block_make(&dense, D, BLOCK_GATED);
    b.spec.router.renormalize = true;
    for (int32_t e = 0; e < E; e++) set(&b, "experts.%d.gamma", e, 1), set(&b, "experts.%d.beta", e, 0);
    block_set(&d, "experts.0.gate", block_weight(&b, "range.0.fc1.weight")->master, F * D);
    block_set(&d, "experts.0.up", block_weight(&b, "range.0.fc2.weight")->master, F * D);
    block_set(&d, "experts.0.down", block_weight(&b, "range.0.adaptor.weight")->master, D * F);
    const float *x = random_floats(4, ROWS * D, 1);
    assert_close("y", kinds_output(&b, x, ROWS), kinds_output(&d, x, ROWS), ROWS * D, 2e-6, 0);
}

static void the_linear_form_with_zero_matrices_is_the_static_one(void **state)
{
    (void)state;
    struct block l = block_of(true, 2), s = block_of(false, 2);
    for (size_t i = 0; i < s.n; i++) block_set(&l, s.list[i]->name, s.list[i]->master, weight_count(s.list[i]));
    for (int32_t e = 0; e < E; e++) {
        set(&l, "experts.%d.gamma.weight", e, 0);
        set(&l, "experts.%d.beta.weight", e, 0);
    }
    const float *x = random_floats(4, ROWS * D, 1);
    assert_close("y", kinds_output(&l, x, ROWS), kinds_output(&s, x, ROWS), ROWS * D, 1e-7, 0);
}

struct seen {
    float *rows;
    int32_t n;
};

static void keep(void *user, const struct route_record *r, const struct val *x, const float *y)
{
    struct seen *s = user;
    s->n = r->route.n_slots;
    s->rows = test_alloc((size_t)(s->n * D) * sizeof *s->rows);
    memcpy(s->rows, y, (size_t)(s->n * D) * sizeof *s->rows);
    (void)x;
    for (int32_t t = 0; t < r->route.n_tokens; t++) /* rows become the sum over each token's experts */
        for (int32_t i = r->route.tok_off[t]; i < r->route.tok_off[t + 1]; i++)
            for (int j = 0; j < D; j++) s->rows[r->route.slot_row[i] * D + j] *= r->route.weight[i];
}

/* Each expert's output alone, weighed and added up, is what the mixture gave. */
static void watchers_see_each_experts_output(void **state)
{
    (void)state;
    struct block b = block_of(false, E);
    struct seen seen = { 0 };
    const struct moe_observer watch = { .user = &seen, .outputs = keep };
    struct block_run how = { .observer = &watch };
    struct nn c = { .arena = test_arena() };
    float *x = random_floats(6, D, 1), sum[D] = { 0 };
    const struct val *y = block_forward(&b, &c, NULL, nn_wrap(&c, x, 1, D), &how);
    assert_int_equal(seen.n, E);
    for (int i = 0; i < E * D; i++) sum[i % D] += seen.rows[i];
    assert_close("sum", sum, y->data, D, 1e-6, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_scales_and_shifts_the_shared_features),
        cmocka_unit_test(without_modulation_all_experts_are_the_shared_network),
        cmocka_unit_test(the_linear_form_with_zero_matrices_is_the_static_one),
        cmocka_unit_test(watchers_see_each_experts_output),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/film", tests, NULL, NULL);
}
