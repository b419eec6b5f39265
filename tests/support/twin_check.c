/* twin_check.c — gradients of the FP64 twin against central differences (twin.h). */
#include "support/twin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int64_t size_of(const struct tv *v) { return v->rows * v->cols; }

static void check_direction(const char *what, double *x, const double *g, const double *v, int64_t n,
                            double (*value)(void *user), void *user)
{
    const double h = 1e-5;
    double want = 0, length = 0;
    double *kept = test_alloc((size_t)n * sizeof *kept);
    memcpy(kept, x, (size_t)n * sizeof *kept);
    for (int64_t i = 0; i < n; i++) want += g[i] * v[i], length += v[i] * v[i];
    length = sqrt(length);
    for (int64_t i = 0; i < n; i++) x[i] = kept[i] + h * v[i] / length;
    const double above = value(user);
    for (int64_t i = 0; i < n; i++) x[i] = kept[i] - h * v[i] / length;
    const double below = value(user), got = (above - below) / (2 * h);
    memcpy(x, kept, (size_t)n * sizeof *kept);
    want /= length;
    if (!(fabs(got - want) <= 1e-6 * (1 + fabs(want))))
        fail_msg("%s: central difference %.10g, the twin's gradient along it %.10g", what, got, want);
}

void assert_derivative(const char *what, double *x, const double *g, int64_t n, int probes, uint64_t seed,
                       double (*value)(void *user), void *user)
{
    struct rng r = rng_make(seed, rng_stream(RNG_TEST, 2));
    double *v = test_alloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = rng_normal(&r);
    check_direction(what, x, g, v, n, value, user);
    for (int p = 0; p < probes; p++) {
        const int64_t at = probes >= n ? p % n : (int64_t)rng_below(&r, (uint64_t)n);
        memset(v, 0, (size_t)n * sizeof *v);
        v[at] = 1;
        check_direction(what, x, g, v, n, value, user);
    }
}

/* One array of all elements, so that a direction can run through them together: values are copied out before each
 * evaluation. */
struct together {
    const struct gradient_set *set;
    double *x;
    double (*value)(void *user);
    void *user;
};

static int64_t flat_size(const struct gradient_set *s)
{
    int64_t n = 0;
    for (int32_t i = 0; i < s->n_arrays; i++) n += s->skip[i] ? 0 : size_of(s->leaf[i]);
    return n;
}

static void move(const struct gradient_set *s, double *flat, bool gradients, bool out)
{
    for (int32_t i = 0; i < s->n_arrays; i++) {
        if (s->skip[i]) continue;
        double *mine = gradients ? s->leaf[i]->g : s->x[i];
        memcpy(out ? mine : flat, out ? flat : mine, (size_t)size_of(s->leaf[i]) * sizeof *flat);
        flat += size_of(s->leaf[i]);
    }
}

static double value_together(void *user)
{
    const struct together *t = user;
    move(t->set, t->x, false, true);
    return t->value(t->user);
}

void assert_derivatives(const char *what, const struct gradient_set *s, int alone, uint64_t seed,
                        double (*value)(void *user), void *user)
{
    char text[300];
    struct rng r = rng_make(seed, rng_stream(RNG_TEST, 3));
    const int64_t n = flat_size(s);
    double *x = test_alloc((size_t)n * sizeof *x), *g = test_alloc((size_t)n * sizeof *g);
    struct together t = { s, x, value, user };
    move(s, x, false, false);
    move(s, g, true, false);
    snprintf(text, sizeof text, "%s: all together", what);
    assert_derivative(text, x, g, n, 0, seed, value_together, &t);
    move(s, x, false, true);
    for (int i = 0; i < alone; i++) {
        const int32_t one = (int32_t)rng_below(&r, (uint64_t)s->n_arrays);
        if (s->skip[one]) continue;
        snprintf(text, sizeof text, "%s: %s", what, s->name[one]);
        assert_derivative(text, s->x[one], s->leaf[one]->g, size_of(s->leaf[one]), 0, seed, value, user);
    }
}
