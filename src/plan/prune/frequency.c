/* frequency.c — prune the experts that are chosen least.
 *
 * Baseline (card: compress.md part 4, "Frequency, gate-sum, random"). What a choice counts:
 *
 *     by=count   S[e] = T[e]              1: tokens routed to e
 *     by=auto    S[e] = sum of p or q     "gate sum" of the REAP tool: q when the model renormalises, else p
 *     by=score   S[e] = sum of p[t,e]     router score before any renormalisation
 *     by=renorm  S[e] = sum of q[t,e]     q = p over its sum on the chosen
 *     by=gate    S[e] = sum of g[t,e]     the weight that multiplied the output (q times the route scale, say)
 *
 * Reads  trace: counts and gate sums, added over the iterations of a chain.   Writes plan: keep lists.
 * Ties keep the lower expert id. An expert never routed has S = 0.
 * Known limit: a busy expert need not matter; half of the experts pruned by count costs generation far more than
 * multiple choice. It is here to be beaten. */
#include "plan/prune/keep.h"

enum { BY_COUNT, BY_AUTO, BY_SCORE, BY_RENORM, BY_GATE };
static const char *const by[] = { "count", "auto", "score", "renorm", "gate", NULL };
static const struct plan_param params[] = {
    { .name = "by",
      .choices = by,
      .help = "what a choice counts: 1, its score (as the model weights it), its final weight" },
    { .name = NULL },
};

static double use(const struct expert_sums *s, int what)
{
    switch (what) {
    case BY_COUNT: return (double)s->count;
    case BY_SCORE: return s->score;
    case BY_RENORM: return s->renorm;
    default: return s->gate;
    }
}

static void score(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *out)
{
    int what = plan_choice(in, "by");
    if (what == BY_AUTO) what = in->model->spec.layer[l].moe.router.renormalize ? BY_RENORM : BY_SCORE;
    for (int32_t e = 0; e < n; e++) out[e] = use(&sums[e], what);
}

static coe_status plan(const struct plan_in *in, struct plan *out) { return keep_by_score(in, out, score); }

static const struct planner frequency = { .needs_trace = true, .needs_unpruned = true, .params = params, .plan = plan };
COE_PART(planner, frequency, .summary = "prune the experts that are chosen least",
         .paper = "baseline: expert usage counts", .card = "compress.md part 4", .impl = &frequency)
