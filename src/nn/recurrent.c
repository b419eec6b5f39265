/* recurrent.c — layers whose memory is a state of fixed size: the causal convolution and the gated delta rule.
 *
 * Paper: Gated Delta Networks, 2024; definitions in nn.h. A state holds what the tokens before the next position left
 * behind: convolution  [K-1, cols], the last inputs, oldest first delta rule   [n_v, d_k, d_v] behind it Both are
 * evaluated as the recurrence, also over a prompt, so a token's bits never depend on how the prompt was cut. */
#include <math.h>
#include <string.h>

#include "nn/nn.h"

bool nn_forward_only(const struct nn *c, const char *what)
{
    if (c->tape) coe_fail(COE_E_USAGE, "%s has no backward pass: this model can be run, not trained", what);
    return c->tape != NULL;
}

/* The kept state of sequence i, or zeros in the arena. */
static float *state_of(struct nn *c, struct kv_layer *kv, int32_t i, int64_t offset, int64_t n)
{
    return kv ? kv[i].state + offset : arena_push_zero(c->arena, (size_t)n * sizeof(float));
}

/* One strip of columns of one sequence; threads own strips. */
static void conv_strip(const struct val *x, struct val *y, const float *w, const float *b, int64_t taps, int64_t first,
                       int64_t end, const float *state, int64_t j, int64_t n)
{
    for (int64_t t = first; t < end; t++) {
        float *out = y->data + t * y->cols;
        for (int64_t col = j; col < j + n; col++) {
            float sum = b ? b[col] : 0;
            for (int64_t i = 0; i < taps; i++) {
                const int64_t back = taps - 1 - i, at = t - first - back;
                const float *row = at >= 0 ? x->data + (first + at) * x->cols : state + (at + taps - 1) * x->cols;
                sum = fmaf(w[col * taps + i], row[col], sum);
            }
            out[col] = sum;
        }
    }
}

/* The last K-1 inputs, of the old state where the sequence was shorter. */
static void conv_keep(const struct val *x, int64_t first, int64_t end, float *state, int64_t keep)
{
    const int64_t n = end - first;
    const size_t row = (size_t)x->cols * sizeof(float);
    if (n < keep) memmove(state, state + n * x->cols, (size_t)(keep - n) * row);
    const int64_t take = COE_MIN(n, keep);
    memcpy(state + (keep - take) * x->cols, x->data + (end - take) * x->cols, (size_t)take * row);
}

struct val *nn_conv(struct nn *c, struct val *x, const struct weight *w, const struct weight *b,
                    const struct attn_batch *batch, struct kv_layer *kv)
{
    enum { STRIP = 64 };
    if (!x || nn_forward_only(c, "a convolution")) return NULL;
    const int64_t taps = w->cols, cols = x->cols;
    struct val *y = nn_val(c, x->rows, cols);
    float *wide = arena_push(c->arena, (size_t)(cols * taps) * sizeof(float));
    if (!y || !wide) return NULL;
    widen(wide, w->data, w->type, cols * taps);
    for (int32_t i = 0; i < batch->n_seq; i++) {
        const int64_t first = batch->off[i], end = batch->off[i + 1];
        float *state = state_of(c, kv, i, 0, nn_conv_state(cols, (int32_t)taps) + 1);
        if (!state) return NULL;
#pragma omp parallel for schedule(static)
        for (int64_t j = 0; j < cols; j += STRIP)
            conv_strip(x, y, wide, b ? b->data : NULL, taps, first, end, state, j, COE_MIN((int64_t)STRIP, cols - j));
        conv_keep(x, first, end, state, taps - 1);
    }
    return y;
}

/* y = x / |x| * scale as the reference has it: x * rsqrt(Σ x² + 1e-6) */
static void unit(float *y, const float *x, int64_t n, float scale)
{
    kern->scale(y, x, scale / sqrtf(kern->dot(x, x, n) + 1e-6f), n);
}

/* ln(1 + e^x) */
static float softplus(float x) { return x > 20 ? x : fm_log(1 + fm_exp(x)); }

struct delta {
    const struct delta_shape *s;
    const struct val *x, *ba;
    struct val *y;
    const float *a, *dt;
};

/* One token through one value head; S [d_k, d_v]; scratch [2*d_k + d_v] */
static void delta_token(const struct delta *d, int64_t t, int32_t h, float *state, float *scratch)
{
    const struct delta_shape *s = d->s;
    const int64_t dk = s->d_k, dv = s->d_v, kh = h / (s->n_v / s->n_k);
    const float *row = d->x->data + t * d->x->cols, *ba = d->ba->data + t * d->ba->cols;
    float *q = scratch, *k = q + dk, *delta = k + dk, *out = d->y->data + t * d->y->cols + h * dv;
    const float *v = row + 2 * s->n_k * dk + h * dv;
    unit(q, row + kh * dk, dk, 1 / sqrtf((float)dk));
    unit(k, row + (s->n_k + kh) * dk, dk, 1);
    const float a = s->negative_a ? d->a[h] : -fm_exp(d->a[h]);
    const float keep = fm_exp(a * softplus(ba[s->n_v + h] + d->dt[h])), beta = fm_sigmoid(ba[h]);
    kern->scale(state, state, keep, dk * dv);
    memset(delta, 0, (size_t)dv * sizeof(float));
    for (int64_t i = 0; i < dk; i++) kern->fma_row(delta, k[i], state + i * dv, dv);
    for (int64_t j = 0; j < dv; j++) delta[j] = beta * (v[j] - delta[j]);
    memset(out, 0, (size_t)dv * sizeof(float));
    for (int64_t i = 0; i < dk; i++) {
        kern->fma_row(state + i * dv, k[i], delta, dv);
        kern->fma_row(out, q[i], state + i * dv, dv);
    }
}

struct val *nn_delta(struct nn *c, struct val *x, struct val *ba, const struct weight *a, const struct weight *dt,
                     const struct delta_shape *s, const struct attn_batch *batch, struct kv_layer *kv,
                     int64_t state_offset)
{
    if (!x || !ba || nn_forward_only(c, "the gated delta rule")) return NULL;
    const int64_t head = (int64_t)s->d_k * s->d_v, width = 2 * s->d_k + s->d_v;
    struct val *y = nn_val(c, x->rows, (int64_t)s->n_v * s->d_v);
    float *scratch = arena_push(c->arena, (size_t)(width * s->n_v) * sizeof(float));
    if (!y || !scratch) return NULL;
    const struct delta d = { s, x, ba, y, a->data, dt->data };
    for (int32_t i = 0; i < batch->n_seq; i++) {
        float *state = state_of(c, kv, i, state_offset, s->n_v * head);
        if (!state) return NULL;
#pragma omp parallel for schedule(static)
        for (int32_t h = 0; h < s->n_v; h++)
            for (int64_t t = batch->off[i]; t < batch->off[i + 1]; t++)
                delta_token(&d, t, h, state + h * head, scratch + h * width);
    }
    return y;
}
