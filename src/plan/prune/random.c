/* random.c — prune experts by lot: the floor that every method must beat.
 *
 * Baseline (card: compress.md part 4, "Frequency, gate-sum, random"). Each expert draws a number that is a function of
 * (seed, layer, expert); the highest stay.
 *
 * Reads  nothing.   Writes plan: keep lists. */
#include "base/rng.h"
#include "plan/prune/keep.h"

static void score(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *out)
{
    (void)sums;
    for (int32_t e = 0; e < n; e++) out[e] = rng_unit(rng_at(in->seed, rng_stream(RNG_PLAN, (uint64_t)l), (uint64_t)e));
}

static coe_status plan(const struct plan_in *in, struct plan *out) { return keep_by_score(in, out, score); }

static const struct planner part = { .needs_seed = true, .plan = plan };
COE_PART(planner, random, .summary = "prune experts by lot, the floor every method must beat",
         .paper = "baseline: random choice", .card = "compress.md part 4", .impl = &part)
