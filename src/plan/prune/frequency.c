/* frequency.c — prune the experts that are chosen least.
 *
 * Baseline (card: compress.md part 4, "Frequency, gate-sum, random"). Three weights of a choice:
 *
 *     by=count   S[e] = T[e]                    tokens routed to e
 *     by=gate    S[e] = sum of g[t,e]           "gate sum": the weight that multiplied the output
 *     by=score   S[e] = sum of p[t,e]           router score before any renormalisation
 *     by=renorm  S[e] = sum of q[t,e]           q = p over its sum on the chosen
 *
 * Reads  trace: counts and gate sums, added over the iterations of a chain.   Writes plan: keep lists.
 * Ties keep the lower expert id. An expert never routed has S = 0.
 * Known limit: a busy expert need not matter; half of the experts pruned by count costs generation far more than
 * multiple choice. It is here to be beaten. */
#include "plan/prune/keep.h"

enum { BY_COUNT, BY_GATE, BY_SCORE, BY_RENORM };
static const char *const by[] = { "count", "gate", "score", "renorm", NULL };
static const struct plan_param params[] = {
    { .name = "by",
      .choices = by,
      .help = "what a choice counts: 1, its final weight, its score, its renormalised score" },
    { .name = NULL },
};

static void score(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *out)
{
    (void)l;
    const int what = plan_choice(in, "by");
    for (int32_t e = 0; e < n; e++)
        out[e] = what == BY_COUNT   ? (double)sums[e].count
                 : what == BY_GATE  ? sums[e].gate
                 : what == BY_SCORE ? sums[e].score
                                    : sums[e].renorm;
}

static coe_status plan(const struct plan_in *in, struct plan *out) { return keep_by_score(in, out, score); }

static const struct planner frequency = { .needs_trace = true, .needs_unpruned = true, .params = params, .plan = plan };
COE_PART(planner, frequency, .summary = "prune the experts that are chosen least",
         .paper = "baseline: expert usage counts", .card = "compress.md part 4", .impl = &frequency)
