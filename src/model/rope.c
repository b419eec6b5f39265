/* rope.c — rotary frequencies of the published scalings, and tables of cos and sin.
 *
 * Angles are formed as the reference does: inv_freq and position × inv_freq rounded to float; sine and cosine then
 * exact to float. YaRN: card routing.md 2 and F8. */
#include <math.h>

#include "model/spec.h"

static double yarn_correction(double rotations, const struct rope_spec *r)
{
    return r->n_rot * log((double)r->original_positions / (rotations * 2 * 3.14159265358979323846)) /
           (2 * log(r->theta));
}

static void yarn(const struct rope_spec *r, float *inv_freq, float *factor)
{
    double low = yarn_correction(r->beta_fast, r), high = yarn_correction(r->beta_slow, r);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, r->n_rot - 1);
    if (low == high) high += 0.001;
    for (int32_t j = 0; j < r->n_rot / 2; j++) {
        double ramp = fmin(fmax((j - low) / (high - low), 0), 1), base = pow(r->theta, -2.0 * j / r->n_rot);
        inv_freq[j] = (float)(base / r->factor * ramp + base * (1 - ramp));
    }
    if (r->attention_factor > 0) *factor = (float)r->attention_factor;
    else if (r->mscale > 0 && r->mscale_all_dim > 0)
        *factor = (float)((0.1 * r->mscale * log(r->factor) + 1) / (0.1 * r->mscale_all_dim * log(r->factor) + 1));
    else *factor = r->factor > 1 ? (float)(0.1 * log(r->factor) + 1) : 1.0f;
}

static double llama3(const struct rope_spec *r, double base)
{
    const double wavelength = 2 * 3.14159265358979323846 / base, old = (double)r->original_positions;
    if (wavelength > old / r->low_freq) return base / r->factor;
    if (wavelength < old / r->high_freq) return base;
    double smooth = (old / wavelength - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - smooth) * base / r->factor + smooth * base;
}

struct rope_spec rope_far(const struct rope_spec *r)
{
    struct rope_spec far = *r;
    far.divide = r->far_divide;
    far.attention_factor = r->far_attention_factor;
    return far;
}

void rope_frequencies(const struct rope_spec *r, float *inv_freq, float *factor)
{
    *factor = r->attention_factor > 0 ? (float)r->attention_factor : 1.0f;
    if (r->kind == ROPE_YARN) {
        yarn(r, inv_freq, factor);
        return;
    }
    for (int32_t j = 0; j < r->n_rot / 2; j++) {
        double base = pow(r->theta, -2.0 * j / r->n_rot);
        if (r->kind == ROPE_LINEAR) base /= r->factor;
        if (r->kind == ROPE_LONG && r->divide) base /= r->divide[j];
        if (r->kind == ROPE_LLAMA3) base = llama3(r, base);
        inv_freq[j] = (float)base;
    }
}

void rope_fill(const float *inv_freq, float factor, int32_t half, const int64_t *position, int64_t n, float *cos,
               float *sin)
{
    COE_SPREAD(
        n > 16, for (int64_t t = 0; t < n; t++), for (int32_t j = 0; j < half; j++) {
            float angle = (float)position[t] * inv_freq[j], s, c;
            fm_sincos((double)angle, &s, &c);
            cos[t * half + j] = c * factor;
            sin[t * half + j] = s * factor;
        });
}
