/* optim.c — gradient norm and AdamW over many tensors. Tensors are cut into fixed pieces of 64 K elements; norms are
 * summed piece by piece in order. */
#include <math.h>

#include "nn/nn.h"

#define PIECE ((int64_t)65536)

static int64_t pieces_of(const struct weight *w) { return (weight_count(w) + PIECE - 1) / PIECE; }

double optim_grad_norm(const struct optim_param *p, size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        const struct weight *w = p[i].w;
        double sum[64];
        if (!w->grad) continue;
        for (int64_t from = 0; from < pieces_of(w); from += 64) {
            int64_t m = COE_MIN((int64_t)64, pieces_of(w) - from);
#pragma omp parallel for schedule(static) if (m > 1)
            for (int64_t j = 0; j < m; j++) {
                int64_t at = (from + j) * PIECE;
                sum[j] = kern->sumsq(w->grad + at, COE_MIN(PIECE, weight_count(w) - at));
            }
            for (int64_t j = 0; j < m; j++) total += sum[j];
        }
    }
    return sqrt(total);
}

void optim_adamw(const struct optim_param *p, size_t n, const struct adamw_args *args)
{
    struct adamw_args plain = *args;
    plain.weight_decay = 0;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++) {
        const struct weight *w = p[i].w;
        for (int64_t at = 0; w->grad && at < weight_count(w); at += PIECE)
            kern->adamw(w->master + at, p[i].m + at, p[i].v + at, w->grad + at, COE_MIN(PIECE, weight_count(w) - at),
                        p[i].decay ? args : &plain);
    }
}
