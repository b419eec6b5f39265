/* losses.h — one loss of tests on one routing record: its value, its gradient by z, and that gradient against central
 * differences of a formula in double precision. */
#ifndef COE_TESTS_LOSSES_H
#define COE_TESTS_LOSSES_H

#include "support/routes.h"

struct loss_value {
    double loss;
    const float *dz; /* [n, E]; NULL where none was made */
    struct route_record *record;
};

/* Loss `kind` with coefficient 1 and setting param[0] = setting of the route of z [n, E]. */
static inline struct loss_value loss_apply(const char *kind, double setting, const struct moe_spec *spec,
                                           const float *z, int64_t n, const uint8_t *counted)
{
    struct moe_spec *s = test_alloc(sizeof *s);
    *s = *spec;
    s->loss[0] = (struct loss_spec){ kind, 1 };
    part_defaults(part_find("loss", kind), s->loss_param[0]);
    s->loss_param[0][0] = setting;
    s->n_losses = 1;
    struct nn *c = routes_training(0);
    struct route_record *r = routes_of(s, c, z, n, NULL);
    const struct loss_call call = { .c = c, .records = &r, .n_records = 1, .counted = counted, .scale = 1 };
    struct loss_value v = { .record = r };
    assert_ok(moe_losses(&call, &v.loss, NULL));
    v.dz = r->dz;
    return v;
}

/* chosen [n, E] of the route */
static inline const bool *loss_choice(const struct route *r)
{
    bool *chosen = test_alloc((size_t)r->n_tokens * (size_t)r->n_experts * sizeof *chosen);
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t i = r->tok_off[t]; i < r->tok_off[t + 1]; i++) chosen[t * r->n_experts + r->expert[i]] = true;
    return chosen;
}

/* p [n, E] = softmax of rows of z */
static inline double *loss_softmax(const double *z, int64_t n, int32_t experts)
{
    double *p = test_alloc((size_t)(n * experts) * sizeof *p);
    for (int64_t t = 0; t < n; t++) {
        double all = 0;
        for (int32_t e = 0; e < experts; e++) all += exp(z[t * experts + e]);
        for (int32_t e = 0; e < experts; e++) p[t * experts + e] = exp(z[t * experts + e]) / all;
    }
    return p;
}

/* The loss of logits z with the choice held. */
typedef double loss_formula(const double *z, const bool *chosen, int64_t n, const struct moe_spec *spec);

static inline void assert_loss_gradient(const char *kind, double setting, const struct moe_spec *spec,
                                        loss_formula *formula)
{
    enum { T = 7 };
    const int64_t cells = (int64_t)T * spec->n_experts;
    const float *z = random_floats(21, cells, 1.2);
    const struct loss_value v = loss_apply(kind, setting, spec, z, T, NULL);
    const bool *chosen = loss_choice(&v.record->route);
    double *x = test_alloc((size_t)cells * sizeof *x);
    for (int64_t i = 0; i < cells; i++) x[i] = (double)z[i];
    assert_near(kind, v.loss, formula(x, chosen, T, spec), 1e-6);
    for (int64_t i = 0; i < cells; i++) {
        const double here = x[i], h = 1e-5;
        x[i] = here + h;
        const double up = formula(x, chosen, T, spec);
        x[i] = here - h;
        const double down = formula(x, chosen, T, spec);
        x[i] = here;
        assert_near(kind, (double)v.dz[i], (up - down) / (2 * h), 1e-6);
    }
}

#endif
