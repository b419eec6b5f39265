/* arrays.c — see arrays.h. */
#include "support/arrays.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct arena arena;

static void free_arena(void) { arena_free(&arena); }

struct arena *test_arena(void)
{
    static bool registered;
    if (!registered) atexit(free_arena);
    registered = true;
    return &arena;
}

void *test_alloc(size_t bytes)
{
    void *p = arena_push_zero(test_arena(), bytes ? bytes : 1);
    if (!p) fail_msg("%s", coe_error());
    return p;
}

static bool is_whole(enum dtype t)
{
    return t == DT_I8 || t == DT_U8 || t == DT_I16 || t == DT_I32 || t == DT_I64 || t == DT_BOOL;
}

static struct array array_of(enum dtype type, int32_t n_dims, const int64_t *dim, const void *data)
{
    struct array a = { .n_dims = n_dims, .n = 1 };
    for (int32_t d = 0; d < n_dims; d++) a.n *= a.dim[d] = dim[d];
    float *wide = test_alloc((size_t)a.n * sizeof *wide);
    widen(wide, data, type, a.n); /* ids and counts of fixtures are below 2^24: exact */
    if (!is_whole(type)) {
        a.f = wide;
        return a;
    }
    a.i = test_alloc((size_t)a.n * sizeof *a.i);
    for (int64_t i = 0; i < a.n; i++) a.i[i] = (int32_t)wide[i];
    return a;
}

struct array npy_array(const char *path)
{
    struct npy a;
    assert_ok(npy_read(&a, path));
    struct array out = array_of(a.type, a.n_dims, a.dim, a.data);
    npy_free(&a);
    return out;
}

static const char *formatted(const char *format, va_list args)
{
    static char name[300];
    vsnprintf(name, sizeof name, format, args);
    return name;
}

struct array tensor_array(const struct ckpt *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *name = formatted(format, args);
    va_end(args);
    const struct tensor *t = ckpt_find(c, name);
    if (!t) fail_msg("%s: no tensor %s", ckpt_path(c), name);
    return array_of(t->type, t->n_dims, t->dim, t->data);
}

bool has_tensor(const struct ckpt *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *name = formatted(format, args);
    va_end(args);
    return ckpt_find(c, name) != NULL;
}

double *random_doubles(uint64_t seed, int64_t n, double scale)
{
    double *x = test_alloc((size_t)n * sizeof *x);
    struct rng r = rng_make(seed, rng_stream(RNG_TEST, 0));
    for (int64_t i = 0; i < n; i++) x[i] = scale * rng_normal(&r);
    return x;
}

float *floats_of(const double *x, int64_t n)
{
    float *out = test_alloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = (float)x[i];
    return out;
}

float *random_floats(uint64_t seed, int64_t n, double scale) { return floats_of(random_doubles(seed, n, scale), n); }

struct weight *test_weight(const char *name, float *data, int64_t rows, int64_t cols)
{
    struct weight *w = test_alloc(sizeof *w);
    *w = (struct weight){ .name = name, .type = DT_F32, .rows = rows, .cols = cols, .data = data, .master = data };
    w->grad = test_alloc((size_t)(rows * cols) * sizeof(float));
    return w;
}

void assert_close(const char *what, const float *got, const float *want, int64_t n, double abs, double rel)
{
    for (int64_t i = 0; i < n; i++) {
        const double limit = abs + rel * fabs((double)want[i]), error = fabs((double)got[i] - (double)want[i]);
        if (!(error <= limit)) /* NaN is no match */
            fail_msg("%s: element %lld of %lld is %.9g, expected %.9g (off by %.3g, allowed %.3g)", what, (long long)i,
                     (long long)n, (double)got[i], (double)want[i], error, limit);
    }
}

static void check_norms(const char *what, double error, double norm, double tol)
{
    if (!(sqrt(error) <= tol * sqrt(norm)))
        fail_msg("%s: the difference has length %.4g, the expected values %.4g: %.3g of it, allowed %.3g", what,
                 sqrt(error), sqrt(norm), sqrt(error / norm), tol);
}

void assert_norm_close(const char *what, const float *got, const float *want, int64_t n, double tol)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        norm += (double)want[i] * (double)want[i];
    }
    check_norms(what, error, norm, tol);
}

void assert_norm_close_d(const char *what, const float *got, const double *want, int64_t n, double tol)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    check_norms(what, error, norm, tol);
}

void assert_near(const char *what, double got, double want, double tol)
{
    if (!(fabs(got - want) <= tol)) fail_msg("%s is %.9g, expected %.9g (allowed ± %.3g)", what, got, want, tol);
}

void assert_same_bits(const char *what, const float *got, const float *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("%s: element %lld of %lld is %.9g (%a), expected the bits of %.9g (%a)", what, (long long)i,
                     (long long)n, (double)got[i], (double)got[i], (double)want[i], (double)want[i]);
}

void assert_ids(const char *what, const int32_t *got, const int32_t *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("%s: element %lld of %lld is %d, expected %d", what, (long long)i, (long long)n, got[i], want[i]);
}

double range_of(const float *x, int64_t n)
{
    double low = n ? (double)x[0] : 0, high = low;
    for (int64_t i = 0; i < n; i++) {
        low = COE_MIN(low, (double)x[i]);
        high = COE_MAX(high, (double)x[i]);
    }
    return high - low;
}

int64_t arg_max(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}
