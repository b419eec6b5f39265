/* segments.c — see segments.h. */
#include "moe/segments.h"

int32_t segments_of(const struct attn_batch *b, int64_t n, int32_t width, int32_t *place)
{
    int32_t segments = 0;
    for (int32_t i = 0; i < (b ? b->n_seq : 1); i++) {
        const int64_t from = b ? b->off[i] : 0, end = b ? b->off[i + 1] : n, pos0 = b && b->pos0 ? b->pos0[i] : 0;
        for (int64_t t = from; t < end; t++) {
            const int64_t at = (pos0 + t - from) % width;
            if (t == from || !at) segments++;
            place[t] = (segments - 1) * width + (int32_t)at;
        }
    }
    return segments;
}

void segments_before(const struct attn_batch *b, int64_t n, int32_t width, const int32_t *place, int32_t *before)
{
    for (int32_t i = 0; i < (b ? b->n_seq : 1); i++) {
        const int64_t from = b ? b->off[i] : 0, end = b ? b->off[i + 1] : n;
        for (int64_t t = from; t < end; t++)
            before[t] = place[t] / width < place[end - 1] / width ? place[t] + width : -1;
    }
}
