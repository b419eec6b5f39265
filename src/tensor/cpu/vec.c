/* vec.c — elementwise kernels, conversions, single dot products and the optimiser's update. */
#include "tensor/cpu/fmath.h"

#define LOOP16 for (int64_t i = 0; i < n; i += 16)
#define AT(p) v16_load_upto((p) + i, n - i)
#define PUT(p, v) v16_store_upto((p) + i, (v), n - i)

static float dot(const float *x, const float *y, int64_t n)
{
    v16 s = v16_zero();
    LOOP16 s = v16_fma(AT(x), AT(y), s);
    return v16_sum(s);
}

static void widen_kernel(float *dst, const void *src, enum dtype t, int64_t n)
{
    if (t == DT_F32) {
        if (n > 0) memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    LOOP16
    {
        v16 v = n - i >= 16 ? v16_load_as(src, t, i) : v16_load_part_as(src, t, i, n - i);
        PUT(dst, v);
    }
}

static void narrow_f16(uint16_t *dst, const float *src, int64_t n)
{
    LOOP16
    {
        uint16_t part[16];
        v16_store_f16(part, AT(src));
        memcpy(dst + i, part, (size_t)COE_MIN(n - i, 16) * sizeof part[0]);
    }
}

static void narrow_kernel(void *dst, enum dtype t, const float *src, int64_t n)
{
    if (t == DT_F32) {
        if (n > 0) memcpy(dst, src, (size_t)n * sizeof *src);
    } else if (t == DT_F16) {
        narrow_f16(dst, src, n);
    } else {
        uint16_t *d = dst;
        for (int64_t i = 0; i < n; i++) d[i] = f32_to_bf16(src[i]);
    }
}

static void add(float *y, const float *x, int64_t n)
{
    LOOP16 PUT(y, v16_add(AT(y), AT(x)));
}
static void sum(float *y, const float *a, const float *b, int64_t n)
{
    LOOP16 PUT(y, v16_add(AT(a), AT(b)));
}
static void scale(float *y, const float *x, float s, int64_t n)
{
    LOOP16 PUT(y, v16_mul(AT(x), v16_set1(s)));
}
static void mul(float *y, const float *a, const float *b, int64_t n)
{
    LOOP16 PUT(y, v16_mul(AT(a), AT(b)));
}
static void fma_row(float *y, float w, const float *x, int64_t n)
{
    LOOP16 PUT(y, v16_fma(v16_set1(w), AT(x), AT(y)));
}
static void exp_row(float *y, const float *x, float minus, int64_t n)
{
    LOOP16 PUT(y, v16_exp(v16_sub(AT(x), v16_set1(minus))));
}
static void sigmoid_row(float *y, const float *x, int64_t n)
{
    LOOP16 PUT(y, v16_sigmoid(AT(x)));
}
static void tanh_row(float *y, const float *x, int64_t n)
{
    LOOP16 PUT(y, v16_tanh(AT(x)));
}

static float exp_one(float x) { return v16_first(v16_exp(v16_set1(x))); }
static float log_one(float x) { return v16_first(v16_log(v16_set1(x))); }
static float tanh_one(float x) { return v16_first(v16_tanh(v16_set1(x))); }
static float sigmoid_one(float x) { return v16_first(v16_sigmoid(v16_set1(x))); }

/* m = beta1 m + (1-beta1) g;  v = beta2 v + (1-beta2) g^2;  w -= lr (m/c1 / (sqrt(v/c2) + eps) + wd w) */
static void adamw(float *w, float *m, float *v, const float *g, int64_t n, const struct adamw_args *a)
{
    const v16 beta1 = v16_set1(a->beta1), rest1 = v16_set1(1.0f - a->beta1);
    const v16 beta2 = v16_set1(a->beta2), rest2 = v16_set1(1.0f - a->beta2);
    const v16 unbias1 = v16_set1(1.0f / a->correction1), unbias2 = v16_set1(1.0f / a->correction2);
    const v16 eps = v16_set1(a->eps), decay = v16_set1(a->weight_decay), step = v16_set1(-a->lr);
    const v16 grad_scale = v16_set1(a->grad_scale);
    LOOP16
    {
        v16 grad = v16_mul(AT(g), grad_scale);
        v16 mi = v16_fma(rest1, grad, v16_mul(beta1, AT(m)));
        v16 vi = v16_fma(v16_mul(rest2, grad), grad, v16_mul(beta2, AT(v)));
        v16 root = v16_add(v16_sqrt(v16_mul(vi, unbias2)), eps);
        v16 wi = AT(w), change = v16_fma(decay, wi, v16_div(v16_mul(mi, unbias1), root));
        PUT(m, mi);
        PUT(v, vi);
        PUT(w, v16_fma(step, change, wi));
    }
}

/* Each block: sixteen double sums, element i into sum i mod 16, added as the tree; squares of floats are exact in
 * double. */
static double sumsq(const float *x, int64_t n)
{
    double total = 0.0;
    for (int64_t start = 0; start < n; start += 1024) {
        const float *p = x + start;
        int64_t count = COE_MIN(n - start, 1024), i = 0;
        double s[16] = { 0 };
        for (; i + 16 <= count; i += 16)
            for (int l = 0; l < 16; l++) s[l] += (double)p[i + l] * (double)p[i + l];
        for (int l = 0; i + l < count; l++) s[l] += (double)p[i + l] * (double)p[i + l];
        for (int half = 8; half; half /= 2)
            for (int l = 0; l < half; l++) s[l] += s[l + half];
        total += s[0];
    }
    return total;
}

static void rope_halves(float *x, const float *cos, const float *sin, int64_t n, float sign)
{
    LOOP16
    {
        v16 a = AT(x), b = AT(x + n), c = AT(cos), s = v16_mul(AT(sin), v16_set1(sign));
        v16 first = v16_sub(v16_mul(a, c), v16_mul(b, s)), second = v16_add(v16_mul(b, c), v16_mul(a, s));
        PUT(x, first);
        PUT(x + n, second);
    }
}
static void rope(float *x, const float *cos, const float *sin, int64_t half, bool interleaved, bool back)
{
    const float sign = back ? -1.0f : 1.0f;
    if (!interleaved) {
        rope_halves(x, cos, sin, half, sign);
        return;
    }
    for (int64_t j = 0; j < half; j++) {
        float a = x[2 * j], b = x[2 * j + 1], c = cos[j], s = sin[j] * sign;
        x[2 * j] = a * c - b * s;
        x[2 * j + 1] = b * c + a * s;
    }
}

void LEVEL_FN(fill_vec)(struct kernels *k)
{
    k->dot = dot;
    k->widen = widen_kernel;
    k->narrow = narrow_kernel;
    k->add = add;
    k->sum = sum;
    k->scale = scale;
    k->mul = mul;
    k->fma_row = fma_row;
    k->exp = exp_row;
    k->sigmoid = sigmoid_row;
    k->tanh = tanh_row;
    k->exp1 = exp_one;
    k->log1 = log_one;
    k->tanh1 = tanh_one;
    k->sigmoid1 = sigmoid_one;
    k->adamw = adamw;
    k->sumsq = sumsq;
    k->rope = rope;
}
