/* search.c — see search.h. Sums are taken in ascending order and products from left to right as in the reference:
 * another order gives other bytes. */
#include "search.h"

#include <string.h>

#define TINY 1e-15f /* the reference calls groups below this zero */
#define MAX_GROUP 32

float largest(const float *x, int n)
{
    float top = 0.0f, best = 0.0f;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > top) {
            top = fabsf(x[i]);
            best = x[i];
        }
    return best;
}

/* Error of scale * q + lo. */
static float affine_error(const uint8_t *q, const float *x, const float *w, int n, float scale, float lo, bool absolute)
{
    float error = 0.0f;
    for (int i = 0; i < n; i++) {
        float diff = scale * (float)q[i] + lo - x[i];
        error += w[i] * (absolute ? fabsf(diff) : diff * diff);
    }
    return error;
}

/* Least squares for scale and lo given the codes; false when they do not determine them. */
static bool affine_fit(float *scale, float *lo, const uint8_t *q, const float *x, const float *w, int n)
{
    float sum_w = 0.0f, sum_x = 0.0f, sum_q = 0.0f, sum_qq = 0.0f, sum_xq = 0.0f;
    for (int i = 0; i < n; i++) {
        const float l = (float)q[i];
        sum_w += w[i];
        sum_x += w[i] * x[i];
        sum_q += w[i] * l;
        sum_qq += w[i] * l * l;
        sum_xq += w[i] * l * x[i];
    }
    const float det = sum_w * sum_qq - sum_q * sum_q;
    if (!(det > 0.0f)) return false;
    *scale = (sum_w * sum_xq - sum_x * sum_q) / det;
    *lo = (sum_qq * sum_x - sum_q * sum_xq) / det;
    if (*lo > 0.0f) {
        *lo = 0.0f;
        *scale = sum_xq / sum_qq;
    }
    return true;
}

static void affine_codes(uint8_t *q, const float *x, int n, float inverse, float lo, int top)
{
    for (int i = 0; i < n; i++) q[i] = (uint8_t)clamp_int(nint(inverse * (x[i] - lo)), 0, top);
}

float search_affine(float *min, uint8_t *q, const float *x, const float *w, int n, int top, struct affine_try how)
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < lo) lo = x[i];
        if (x[i] > hi) hi = x[i];
    }
    if (lo > 0.0f) lo = 0.0f;
    *min = -lo;
    memset(q, 0, (size_t)n);
    if (!(hi > lo)) return 0.0f;
    uint8_t trial[MAX_GROUP];
    float inverse = (float)top / (hi - lo), scale = 1.0f / inverse;
    affine_codes(q, x, n, inverse, lo, top);
    float best = affine_error(q, x, w, n, scale, lo, how.absolute);
    for (int k = 0; k <= how.steps; k++) {
        /* lo is the best so far, hi the largest value: the reference mixes them so, and its bytes depend on it */
        inverse = (how.r0 + how.step * (float)k + (float)top) / (hi - lo);
        affine_codes(trial, x, n, inverse, lo, top);
        float new_scale, new_lo;
        if (!affine_fit(&new_scale, &new_lo, trial, x, w, n)) continue;
        const float error = affine_error(trial, x, w, n, new_scale, new_lo, how.absolute);
        if (error < best) {
            memcpy(q, trial, (size_t)n);
            best = error;
            scale = new_scale;
            lo = new_lo;
        }
    }
    *min = -lo;
    return scale;
}

/* Codes under an inverse scale with their sums of w x l and w l l, l = code - half. */
static void signed_codes(uint8_t *q, float *sum_xq, float *sum_qq, const float *x, const float *w, int n, int half,
                         float inverse)
{
    *sum_xq = *sum_qq = 0.0f;
    for (int i = 0; i < n; i++) {
        const int l = clamp_int(nint(inverse * x[i]), -half, half - 1);
        const float weight = w ? w[i] : x[i] * x[i], code = (float)l;
        q[i] = (uint8_t)(l + half);
        *sum_xq += weight * x[i] * code;
        *sum_qq += weight * code * code;
    }
}

float search_signed(uint8_t *q, const float *x, const float *w, int n, int half)
{
    const float max = largest(x, n);
    if (fabsf(max) < TINY) {
        memset(q, 0, (size_t)n);
        return 0.0f;
    }
    uint8_t trial[MAX_GROUP];
    float xq, qq;
    signed_codes(q, &xq, &qq, x, w, n, half, -(float)half / max);
    float scale = qq > 0.0f ? xq / qq : 0.0f, best = scale * xq;
    for (int k = -9; k <= 9; k++) {
        if (!k) continue;
        signed_codes(trial, &xq, &qq, x, w, n, half, -((float)half + 0.1f * (float)k) / max);
        if (qq > 0.0f && xq * xq > best * qq) {
            memcpy(q, trial, (size_t)n);
            scale = xq / qq;
            best = scale * xq;
        }
    }
    return scale;
}

/* One round of coordinate descent over codes lo … hi; code i is q[i] - shift. Whether anything changed. */
static bool descend(uint8_t *q, float *sum_xq, float *sum_qq, const float *x, const float *w, int n, int lo, int hi,
                    int shift)
{
    bool changed = false;
    for (int i = 0; i < n; i++) {
        const float weight = w ? w[i] : x[i] * x[i], code = (float)(q[i] - shift);
        float xq = *sum_xq - weight * x[i] * code, qq = *sum_qq - weight * code * code;
        if (!(xq > 0.0f) || (w && !(qq > 0.0f))) continue;
        const int l = clamp_int(nint(x[i] * qq / xq), lo, hi);
        if (l == q[i] - shift) continue;
        xq += weight * x[i] * (float)l;
        qq += weight * (float)l * (float)l;
        if (qq > 0.0f && xq * xq * *sum_qq > *sum_xq * *sum_xq * qq) {
            q[i] = (uint8_t)(l + shift);
            *sum_xq = xq;
            *sum_qq = qq;
            changed = true;
        }
    }
    return changed;
}

float search_descent(uint8_t *q, const float *x, int n, int half)
{
    const float max = largest(x, n);
    if (fabsf(max) < TINY) {
        memset(q, 0, (size_t)n);
        return 0.0f;
    }
    float xq, qq;
    signed_codes(q, &xq, &qq, x, NULL, n, half, -(float)half / max);
    for (int round = 0; round < 5; round++)
        if (!descend(q, &xq, &qq, x, NULL, n, -half, half - 1, half)) break;
    return qq > 0.0f ? xq / qq : 0.0f;
}

float search_positive(uint8_t *q, const float *x, const float *w, int n, int top)
{
    float max = 0.0f;
    for (int i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    for (int i = 0; i < n; i++) q[i] = 0;
    if (max < TINY) return 0.0f;
    float inverse = (float)top / max, best = 0.0f;
    for (int k = -5; k <= 4; k++) { /* the plain scale first, then eight beside it */
        if (!k) continue;
        const float trial = k == -5 ? inverse : (0.1f * (float)k + (float)top) / max, scale = 1.0f / trial;
        float error = 0.0f;
        for (int i = 0; i < n; i++) {
            const float diff = x[i] - scale * (float)COE_MIN(nint(trial * x[i]), top);
            error += w[i] * diff * diff;
        }
        if (k == -5 || error < best) {
            best = error;
            inverse = trial;
        }
    }
    float xq = 0.0f, qq = 0.0f;
    for (int i = 0; i < n; i++) {
        const int l = clamp_int(nint(inverse * x[i]), 0, top);
        q[i] = (uint8_t)l;
        xq += w[i] * x[i] * (float)l;
        qq += w[i] * (float)l * (float)l;
    }
    for (int round = 0; round < 5; round++)
        if (!descend(q, &xq, &qq, x, w, n, 0, top, 0)) break;
    return qq > 0.0f ? xq / qq : 0.0f;
}
