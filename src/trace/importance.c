/* importance.c — a trace's input energies as an importance matrix under the names of GGUF files. */
#include "model/imatrix.h"
#include "trace/trace.h"

#include <string.h>

/* out [E, cols] = sums of a column over domains and iterations */
static void sum_column(const struct trace *t, enum trace_column c, int32_t l, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t d = 0; d < t->domains.n; d++)
            for (int32_t it = 0; it < t->layer[l].n_iterations; it++) sum += trace_f64(t, c, (int32_t)d, l, it)[i];
        out[i] = (float)sum;
    }
}

static coe_status add_layer(struct imatrix *im, const struct trace *t, int32_t l)
{
    static const struct {
        const char *name;
        enum trace_column column;
    } matrices[] = { { "ffn_gate_exps", TRACE_INPUT2 },
                     { "ffn_up_exps", TRACE_INPUT2 },
                     { "ffn_down_exps", TRACE_HIDDEN2 } };
    const size_t e = (size_t)t->layer[l].n_experts;
    uint64_t *visits = arena_push(&im->arena, e * sizeof *visits);
    float *counts = arena_push(&im->arena, e * sizeof *counts);
    if (!visits || !counts) return COE_E_NOMEM;
    trace_counts(t, -1, l, -1, visits);
    for (size_t i = 0; i < e; i++) counts[i] = (float)visits[i];
    for (size_t i = 0; i < COE_COUNT(matrices); i++) {
        char name[64];
        const size_t n = trace_count(t, matrices[i].column, l, 0);
        float *sums = arena_push(&im->arena, n * sizeof *sums);
        if (!sums) return COE_E_NOMEM;
        sum_column(t, matrices[i].column, l, sums, n);
        snprintf(name, sizeof name, "blk.%d.%s.weight", t->layer[l].layer, matrices[i].name);
        COE_TRY(imatrix_add(im, name, (int64_t)e, (int64_t)(n / e), sums, counts));
    }
    return COE_OK;
}

coe_status trace_imatrix(struct imatrix **out, const struct trace *t)
{
    *out = NULL;
    if (!t->importance)
        return coe_fail(COE_E_INPUT, "%s: has no importance; record with `coe trace --imatrix`", t->path);
    struct imatrix *im = mem_zalloc("importance", sizeof *im);
    if (!im) return COE_E_NOMEM;
    im->dataset = t->domains.n && t->domains.at[0].files.n ? t->domains.at[0].files.at[0].path : "";
    im->dataset = arena_strdup(&im->arena, im->dataset);
    im->chunk_size = t->window;
    im->n_chunks = (int64_t)(trace_tokens(t) / (uint64_t)COE_MAX(t->window, 1)) + 1;
    coe_status s = im->dataset ? COE_OK : COE_E_NOMEM;
    for (int32_t l = 0; l < t->n_layers && !s; l++) s = add_layer(im, t, l);
    if (!s) imatrix_sort(im);
    if (s) imatrix_free(im);
    else *out = im;
    return s;
}
