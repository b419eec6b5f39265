/* keep.h — choosing which experts stay, shared by the planners that score experts one by one. */
#ifndef COE_KEEP_H
#define COE_KEEP_H

#include "plan/plan.h"

/* Experts that stay of n at the ratio: to the nearest, at least one; with groups the same number in each. */
int32_t keep_count(double ratio, int32_t n, int32_t n_group);
/* keep [n_keep] = ids of the highest scores [n], ascending; equal scores: the lower id stays. NaN counts as lowest.
 * With groups of consecutive ids, n_keep/n_group of each. COE_E_NOMEM. */
coe_status keep_best(struct arena *scratch, const double *score, int32_t n, int32_t n_group, int32_t *keep,
                     int32_t n_keep);

/* What a planner thinks of the n experts of layer l of the model; sums [n] over domains and iterations, or NULL for a
 * planner without a trace. */
typedef void score_fn(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *score);
/* A whole plan from a score: every MoE layer of the model keeps its best. */
coe_status keep_by_score(const struct plan_in *in, struct plan *out, score_fn *score);

#endif
