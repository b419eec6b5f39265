/* norm.c — root-mean-square and layer normalisation, cross-entropy; sums over a row as in dot. */
#include "tensor/cpu/fmath.h"

#define LOOP16 for (int64_t i = 0; i < n; i += 16)
#define AT(p) v16_load_upto((p) + i, n - i)
#define PUT(p, v) v16_store_upto((p) + i, (v), n - i)

/* w + w_add, or ones; lanes behind the end do not matter. */
LANES v16 gain_at(const float *w, float w_add, int64_t i, int64_t n)
{
    return w ? v16_add(AT(w), v16_set1(w_add)) : v16_set1(1.0f);
}

static float rmsnorm(float *y, const float *x, const float *w, float w_add, int64_t n, float eps)
{
    v16 s = v16_zero();
    LOOP16
    {
        v16 v = AT(x);
        s = v16_fma(v, v, s);
    }
    float r = 1.0f / sqrtf(v16_sum(s) / (float)n + eps);
    LOOP16 PUT(y, v16_mul(v16_mul(AT(x), v16_set1(r)), gain_at(w, w_add, i, n)));
    return r;
}

/* With t = dy g: dx += r t - x r^3/n sum(t x), dw += dy x r */
static void rmsnorm_back(float *dx, float *dw, const float *dy, const float *x, const float *w, float w_add, float r,
                         int64_t n)
{
    v16 s = v16_zero();
    LOOP16 s = v16_fma(v16_mul(AT(dy), gain_at(w, w_add, i, n)), AT(x), s);
    const v16 c = v16_set1(-(v16_sum(s) / (float)n) * r * r * r), rr = v16_set1(r);
    LOOP16
    {
        v16 d = AT(dy), v = AT(x), t = v16_mul(d, gain_at(w, w_add, i, n));
        PUT(dx, v16_fma(c, v, v16_fma(rr, t, AT(dx))));
        if (dw) PUT(dw, v16_fma(d, v16_mul(v, rr), AT(dw)));
    }
}

static void layernorm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps, float stats[2])
{
    v16 s = v16_zero();
    LOOP16 s = v16_add(s, AT(x));
    const float mean = v16_sum(s) / (float)n;
    const v16 m = v16_set1(mean);
    s = v16_zero();
    LOOP16
    {
        v16 d = v16_keep(v16_sub(AT(x), m), n - i);
        s = v16_fma(d, d, s);
    }
    const float r = 1.0f / sqrtf(v16_sum(s) / (float)n + eps);
    LOOP16
    {
        v16 v = v16_mul(v16_mul(v16_sub(AT(x), m), v16_set1(r)), gain_at(w, 0.0f, i, n));
        PUT(y, b ? v16_add(v, AT(b)) : v);
    }
    stats[0] = mean;
    stats[1] = r;
}

/* With t = dy w, h = (x - mean) r: dx += r (t - mean(t) - h mean(t h)), dw += dy h, db += dy */
static void layernorm_back(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w,
                           const float stats[2], int64_t n)
{
    const v16 m = v16_set1(stats[0]), r = v16_set1(stats[1]);
    v16 st = v16_zero(), sth = v16_zero();
    LOOP16
    {
        v16 t = v16_mul(AT(dy), gain_at(w, 0.0f, i, n)), h = v16_mul(v16_sub(AT(x), m), r);
        st = v16_add(st, t);
        sth = v16_fma(t, h, sth);
    }
    const v16 mean_t = v16_set1(v16_sum(st) / (float)n), minus_th = v16_set1(-v16_sum(sth) / (float)n);
    LOOP16
    {
        v16 d = AT(dy), t = v16_mul(d, gain_at(w, 0.0f, i, n)), h = v16_mul(v16_sub(AT(x), m), r);
        PUT(dx, v16_fma(r, v16_fma(h, minus_th, v16_sub(t, mean_t)), AT(dx)));
        if (dw) PUT(dw, v16_fma(d, h, AT(dw)));
        if (db) PUT(db, v16_add(AT(db), d));
    }
}

static float largest(const float *x, int64_t n)
{
    v16 top = v16_set1(-INFINITY);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) top = v16_max(v16_load(x + i), top);
    if (i < n) top = v16_max(v16_select(v16_lanes(0, (int)(n - i)), AT(x), v16_set1(-INFINITY)), top);
    return v16_top(top);
}

static float xent(const float *x, int64_t n, int64_t target, float *lse)
{
    const float top = largest(x, n);
    v16 s = v16_zero();
    LOOP16 s = v16_add(s, v16_keep(v16_exp(v16_sub(AT(x), v16_set1(top))), n - i));
    const float log_sum = v16_first(v16_log(v16_set1(v16_sum(s))));
    *lse = top + log_sum;
    return (top - x[target]) + log_sum; /* small for a sure prediction: keeps the digits that *lse has lost */
}

static void xent_back(float *dx, const float *x, int64_t n, int64_t target, float lse, float scale, float z_scale)
{
    const v16 factor = v16_set1(scale + z_scale), minus = v16_set1(lse);
    const float p = v16_first(v16_exp(v16_sub(v16_set1(x[target]), minus))); /* before dx overwrites x */
    LOOP16 PUT(dx, v16_mul(v16_exp(v16_sub(AT(x), minus)), factor));
    dx[target] = fmaf(z_scale, p, scale * (p - 1.0f));
}

void LEVEL_FN(fill_norm)(struct kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->rmsnorm_back = rmsnorm_back;
    k->layernorm = layernorm;
    k->layernorm_back = layernorm_back;
    k->xent = xent;
    k->xent_back = xent_back;
}
