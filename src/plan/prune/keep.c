/* keep.c — see keep.h. Chain layers: the sums were added over iterations before the score divides (one pool of experts,
 * so one decision), and the expert leaves every iteration's router. */
#include "plan/prune/keep.h"

#include <math.h>
#include <stdlib.h>

struct scored {
    double score;
    int32_t id;
};

/* Highest score first; equal scores by id, so that a plan never depends on qsort. */
static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const int32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int32_t keep_count(double ratio, int32_t n, int32_t n_group)
{
    const int32_t in_group = n / n_group, k = (int32_t)(ratio * in_group + 0.5);
    return n_group * COE_MAX(COE_MIN(k, in_group), 1);
}

coe_status keep_best(struct arena *scratch, const double *score, int32_t n, int32_t n_group, int32_t *keep,
                     int32_t n_keep)
{
    const int32_t in_group = n / n_group, k = n_keep / n_group;
    const struct arena_mark mark = arena_save(scratch);
    struct scored *s = arena_push(scratch, (size_t)in_group * sizeof *s);
    if (!s) return COE_E_NOMEM;
    for (int32_t g = 0; g < n_group; g++) {
        for (int32_t i = 0; i < in_group; i++) {
            const double x = score[g * in_group + i];
            s[i] = (struct scored){ isnan(x) ? -INFINITY : x, g * in_group + i };
        }
        qsort(s, (size_t)in_group, sizeof *s, by_score);
        for (int32_t i = 0; i < k; i++) keep[g * k + i] = s[i].id;
        qsort(keep + g * k, (size_t)k, sizeof *keep, by_id);
    }
    arena_rewind(scratch, mark);
    return COE_OK;
}

static coe_status keep_layer(const struct plan_in *in, struct plan *out, int32_t i, int32_t l, score_fn *score)
{
    const struct moe_spec *spec = &in->model->spec.layer[l].moe;
    const int32_t n = spec->n_experts, n_keep = keep_count(in->keep, n, spec->router.n_group);
    struct expert_sums *sums = in->trace ? arena_push(in->arena, (size_t)n * sizeof *sums) : NULL;
    double *value = arena_push(in->arena, (size_t)n * sizeof *value);
    int32_t *keep = arena_push(in->arena, (size_t)n_keep * sizeof *keep);
    if (!value || !keep || (in->trace && !sums)) return COE_E_NOMEM;
    if (in->trace) trace_expert_sums(in->trace, -1, i, -1, sums);
    score(in, l, sums, n, value);
    COE_TRY(keep_best(in->arena, value, n, spec->router.n_group, keep, n_keep));
    return plan_keep(out, i, l, n, keep, n_keep);
}

coe_status keep_by_score(const struct plan_in *in, struct plan *out, score_fn *score)
{
    const struct spec *spec = &in->model->spec;
    for (int32_t l = 0, i = 0; l < spec->n_layers; l++) {
        if (!spec->layer[l].is_moe) continue;
        const struct arena_mark mark = arena_save(in->arena);
        coe_status s = keep_layer(in, out, i++, l, score);
        arena_rewind(in->arena, mark);
        if (s) return s;
    }
    return COE_OK;
}
