/* layer_schedule.c — how many experts each layer has, or uses, as a shape over the depth of the network.
 *
 * Paper: DynaMoE, 2026 (card: routing.md 16). With u = l / (L-1), and L = 1 taking the mean:
 *     descending  max - (max - min) u             ascending   min + (max - min) u
 *     pyramid     min + (max - min)(1 - |2u - 1|) inverse_pyramid   max - (max - min)(1 - |2u - 1|)
 *     wave        min + (max - min)(1 + sin(2π c u)) / 2            uniform   (min + max) / 2
 * then all of them times one factor so that they add up to the budget, whole numbers by largest remainder (equal ones:
 * the earlier layer first), none below 1. With a budget networks of different shape have equal parameters. */
#include "moe/layer_schedule.h"

#include <math.h>

#include "base/part.h"

const char *const layer_shape_name[LAYER_SHAPE_COUNT] = { "uniform", "descending",      "ascending",
                                                          "pyramid", "inverse_pyramid", "wave" };

static double value_at(const struct layer_schedule *s, double u)
{
    const double span = s->max - s->min, peak = 1 - fabs(2 * u - 1);
    switch (s->shape) {
    case LAYERS_DESCENDING: return s->max - span * u;
    case LAYERS_ASCENDING: return s->min + span * u;
    case LAYERS_PYRAMID: return s->min + span * peak;
    case LAYERS_INVERSE_PYRAMID: return s->max - span * peak;
    case LAYERS_WAVE: return s->min + span * (1 + sin(2 * acos(-1.0) * s->cycles * u)) / 2;
    default: return (s->min + s->max) / 2;
    }
}

/* The layer whose number lost or gained most by rounding */
static int32_t worst(const double *exact, const int32_t *out, int32_t n, bool up)
{
    int32_t at = -1;
    double most = -INFINITY;
    for (int32_t l = 0; l < n; l++) {
        const double gap = up ? exact[l] - out[l] : out[l] - exact[l];
        if ((up || out[l] > 1) && gap > most + 1e-9) most = gap, at = l;
    }
    return at;
}

void layer_schedule(const struct layer_schedule *s, int32_t n, int64_t budget, double *exact, int32_t *out)
{
    double sum = 0;
    int64_t total = 0;
    for (int32_t l = 0; l < n; l++) {
        exact[l] = n > 1 ? value_at(s, (double)l / (n - 1)) : (s->min + s->max) / 2;
        sum += exact[l];
    }
    for (int32_t l = 0; l < n; l++) {
        if (budget) exact[l] *= (double)budget / sum;
        out[l] = COE_MAX(1, (int32_t)(budget ? floor(exact[l] + 1e-9) : rint(exact[l])));
        total += out[l];
    }
    for (; budget && total != budget; total += total < budget ? 1 : -1) {
        const int32_t at = worst(exact, out, n, total < budget);
        if (at < 0) return; /* every layer is at 1 already: the caller asked for at least one each */
        out[at] += total < budget ? 1 : -1;
    }
}

COE_PART(layers, schedule, .summary = "numbers of experts over the depth: six shapes at one budget",
         .paper = "DynaMoE, 2026", .card = "routing.md 16", .unit = "token")
