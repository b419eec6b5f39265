/* stats.c — sums over domains and iterations, in ascending order of both. */
#include "trace/trace.h"

#include <string.h>

/* Calls with every (domain, iteration) that the two selectors let through. */
struct span {
    int32_t d0, d1, c0, c1;
};

static struct span span_of(const struct trace *t, int32_t domain, int32_t l, int32_t iteration)
{
    return (struct span){ domain < 0 ? 0 : domain, domain < 0 ? (int32_t)t->domains.n : domain + 1,
                          iteration < 0 ? 0 : iteration, iteration < 0 ? t->layer[l].n_iterations : iteration + 1 };
}

void trace_expert_sums(const struct trace *t, int32_t domain, int32_t l, int32_t iteration, struct expert_sums *out)
{
    const struct span s = span_of(t, domain, l, iteration);
    const int32_t n = t->layer[l].n_experts;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int32_t d = s.d0; d < s.d1; d++)
        for (int32_t c = s.c0; c < s.c1; c++)
            for (int32_t e = 0; e < n; e++) {
                out[e].count += trace_u64(t, TRACE_COUNT, d, l, c)[e];
                out[e].score += trace_f64(t, TRACE_SCORE, d, l, c)[e];
                out[e].renorm += trace_f64(t, TRACE_RENORM, d, l, c)[e];
                out[e].gate += trace_f64(t, TRACE_GATE, d, l, c)[e];
                out[e].norm += trace_f64(t, TRACE_NORM, d, l, c)[e];
                out[e].norm2 += trace_f64(t, TRACE_NORM2, d, l, c)[e];
                out[e].score_norm += trace_f64(t, TRACE_SCORE_NORM, d, l, c)[e];
                out[e].renorm_norm += trace_f64(t, TRACE_RENORM_NORM, d, l, c)[e];
                out[e].gate_norm += trace_f64(t, TRACE_GATE_NORM, d, l, c)[e];
                out[e].max_abs = COE_MAX(out[e].max_abs, ((float *)trace_at(t, TRACE_MAX_ABS, d, l, c))[e]);
                out[e].max_out = COE_MAX(out[e].max_out, ((float *)trace_at(t, TRACE_MAX_OUT, d, l, c))[e]);
            }
}

void trace_counts(const struct trace *t, int32_t domain, int32_t l, int32_t iteration, uint64_t *counts)
{
    const struct span s = span_of(t, domain, l, iteration);
    memset(counts, 0, (size_t)t->layer[l].n_experts * sizeof *counts);
    for (int32_t d = s.d0; d < s.d1; d++)
        for (int32_t c = s.c0; c < s.c1; c++)
            for (int32_t e = 0; e < t->layer[l].n_experts; e++) counts[e] += trace_u64(t, TRACE_COUNT, d, l, c)[e];
}

void trace_pairs(const struct trace *t, enum trace_column column, int32_t domain, int32_t l, int32_t iteration,
                 uint64_t *pairs)
{
    const struct span s = span_of(t, domain, l, iteration);
    const size_t n = (size_t)t->layer[l].n_experts * (size_t)t->layer[l].n_experts;
    memset(pairs, 0, n * sizeof *pairs);
    for (int32_t d = s.d0; d < s.d1; d++)
        for (int32_t c = s.c0; c < s.c1 && trace_count(t, column, l, c); c++)
            for (size_t i = 0; i < n; i++) pairs[i] += trace_u64(t, column, d, l, c)[i];
}
