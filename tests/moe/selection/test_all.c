/* What holds for every selection of the registry: a sequence in a batch is routed as it is alone, and gradients of the
 * weights agree with central differences of the formula. */
#include "support/routes.h"

enum { A = 7, B = 5, E = 6 };
static const int32_t off[] = { 0, A, A + B };
static const int64_t pos0[] = { 0, 0 };
static const struct attn_batch both = { 2, off, pos0, NULL };

/* Top 2 of 6; with groups where the selection uses them */
static struct moe_spec spec_of(const struct part *p, bool renormalize)
{
    struct moe_spec s = routes_spec(E, 2, p->name);
    s.router.renormalize = renormalize;
    if (!strcmp(p->name, "grouped")) s.router.n_group = s.router.topk_group = 2;
    return s;
}

/* These refuse a capacity. */
static bool limits_itself(const struct part *p)
{
    return !strcmp(p->name, "expert_choice") || !strcmp(p->name, "transport");
}

static void assert_same_tokens(const char *what, const struct route *all, int32_t from, const struct route *alone)
{
    for (int32_t t = 0; t < alone->n_tokens; t++) {
        const int32_t n = n_chosen(alone, t), at = all->tok_off[from + t];
        if (n_chosen(all, from + t) != n) fail_msg("%s: token %d of %d has other experts in a batch", what, t, from);
        assert_ids(what, all->expert + at, alone->expert + alone->tok_off[t], n);
        assert_same_bits(what, all->weight + at, alone->weight + alone->tok_off[t], n);
    }
}

static void sequences_in_a_batch_equal_each_alone(void **state)
{
    (void)state;
    const float *z = random_floats(11, (A + B) * E, 1.5);
    const struct part *p;
    for (size_t i = 0; (p = part_at("selection", i)); i++)
        for (int limit = 0; limit < 2; limit++) {
            struct moe_spec s = spec_of(p, true);
            if (limit && limits_itself(p)) continue;
            s.router.capacity = (struct capacity_spec){ .factor = limit ? .7 : 0, .always = true };
            const struct route *all = &routes_of(&s, NULL, z, A + B, &both)->route;
            assert_same_tokens(p->name, all, 0, &routes_of(&s, NULL, z, A, NULL)->route);
            assert_same_tokens(p->name, all, A, &routes_of(&s, NULL, z + A * E, B, NULL)->route);
        }
}

/* Σ r·weight of one token with its choice held: `chosen` shares the sum, `kept` counts. */
static double objective(const double *z, const bool *chosen, const bool *kept, const double *r, bool renormalize)
{
    double all = 0, sum = 0, out = 0;
    for (int e = 0; e < E; e++) all += exp(z[e]);
    for (int e = 0; e < E; e++) sum += chosen[e] ? exp(z[e]) / all : 0;
    for (int e = 0; e < E; e++) out += kept[e] ? r[e] * exp(z[e]) / all / (renormalize ? sum : 1) : 0;
    return out;
}

static void mark(bool *set, const struct route *r, int32_t t)
{
    memset(set, 0, E * sizeof *set);
    for (int32_t i = r->tok_off[t]; i < r->tok_off[t + 1]; i++) set[r->expert[i]] = true;
}

static void check_gradient(const char *name, const struct moe_spec *s, const float *z, const double *r)
{
    struct nn *c = routes_training(1);
    struct route_record *rec = routes_of(s, c, z, A, NULL);
    struct route *rt = &rec->route;
    const bool weigh_first = rec->wanted.tok_off && s->router.capacity.weigh_first;
    for (int32_t i = 0, t = 0; i < rt->n_slots; i++) {
        while (i >= rt->tok_off[t + 1]) t++;
        rt->weight_grad[i] = (float)r[t * E + rt->expert[i]];
    }
    assert_ok(nn_backward(c));
    for (int32_t t = 0; t < A; t++) {
        bool kept[E], chosen[E];
        double at[E];
        mark(kept, rt, t);
        mark(chosen, weigh_first ? &rec->wanted : rt, t);
        for (int e = 0; e < E; e++) at[e] = (double)z[t * E + e];
        for (int e = 0; e < E; e++) {
            const double h = 1e-5, here = at[e];
            at[e] = here + h;
            const double up = objective(at, chosen, kept, r + t * E, s->router.renormalize);
            at[e] = here - h;
            const double down = objective(at, chosen, kept, r + t * E, s->router.renormalize);
            at[e] = here;
            assert_near(name, (double)rec->z->grad[t * E + e], (up - down) / (2 * h), 2e-6);
        }
    }
}

static void gradients_of_weights_agree_with_central_differences(void **state)
{
    (void)state;
    const float *z = random_floats(12, A * E, 1.5);
    const double *r = random_doubles(13, A * E, 1);
    const struct part *p;
    for (size_t i = 0; (p = part_at("selection", i)); i++)
        for (int mode = 0; mode < 4; mode++) { /* renormalised; with a capacity, then weighed before drops */
            struct moe_spec s = spec_of(p, mode > 0);
            if (!strcmp(p->name, "sparsemixer") || (mode > 1 && limits_itself(p))) continue;
            if (!strcmp(p->name, "sinkhorn")) s.router.param[0] = 0; /* transport's weights are constants */
            s.router.capacity = (struct capacity_spec){ .factor = mode > 1 ? .7 : 0, .weigh_first = mode == 3 };
            check_gradient(p->name, &s, z, r);
        }
}

static void settings_outside_their_range_are_refused_by_name(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(E, 2, "top_p");
    s.router.param[0] = -1;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("p of top_p is -1");
    assert_false(moe_select(&s.router, "no_such_selection"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_in_a_batch_equal_each_alone),
        cmocka_unit_test(gradients_of_weights_agree_with_central_differences),
        cmocka_unit_test(settings_outside_their_range_are_refused_by_name),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/all", tests, NULL, NULL);
}
