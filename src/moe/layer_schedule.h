/* layer_schedule.h — numbers of experts over the layers of a network. */
#ifndef COE_LAYER_SCHEDULE_H
#define COE_LAYER_SCHEDULE_H

#include "base/base.h"

enum layer_shape {
    LAYERS_UNIFORM,
    LAYERS_DESCENDING,
    LAYERS_ASCENDING,
    LAYERS_PYRAMID,
    LAYERS_INVERSE_PYRAMID,
    LAYERS_WAVE,
    LAYER_SHAPE_COUNT
};
extern const char *const layer_shape_name[LAYER_SHAPE_COUNT];

struct layer_schedule {
    enum layer_shape shape;
    double min, max, cycles; /* cycles: of a wave */
};
/* out [n] ≥ 1: the numbers of layers 0 … n-1. budget: their sum, at least n; 0: whatever the shape gives. exact [n] is
 * scratch. */
void layer_schedule(const struct layer_schedule *s, int32_t n, int64_t budget, double *exact, int32_t *out);

#endif
