/* reap.c — prune the experts whose routed output matters least.
 *
 * Paper: REAP the Experts: Why Pruning Prevails for One-Shot MoE Compression, 2025 (arXiv 2510.13999; card: compress.md
 * part 4). An expert matters as much as what it adds to the residual stream when it is chosen: router score times the
 * length of its output, averaged over the tokens routed to it, so that rare but strong experts stay.
 *
 *     S[e] = 1/T[e] * sum over tokens t routed to e of  w[t,e] * ||f_e(x_t)||
 *
 * w is the score p before renormalisation, or q = p / (sum of p over the chosen) when the model renormalises
 * (weight=auto, as the authors' program does); weight=gate takes what really multiplied the output (q times the route
 * scale, say). With reduce=sum frequent experts gain: better where one domain is all that counts.
 *
 * Reads  trace: T[e] and the weighted norm sums, added over the iterations of a chain before dividing.   Writes plan:
 * keep lists. Ties keep the lower expert id. An expert never routed has S = 0. */
#include "plan/prune/keep.h"

enum { WEIGHT_AUTO, WEIGHT_SCORE, WEIGHT_RENORM, WEIGHT_GATE };
enum { REDUCE_MEAN, REDUCE_SUM };
static const char *const weight[] = { "auto", "score", "renorm", "gate", NULL };
static const char *const reduce[] = { "mean", "sum", NULL };
static const struct plan_param params[] = {
    { .name = "weight",
      .choices = weight,
      .help = "of an output: auto (score, renormalised if the model does), score, renorm, gate" },
    { .name = "reduce", .choices = reduce, .help = "mean over the tokens routed to the expert, or their sum" },
    { .name = NULL },
};

static double weighted_norm(const struct expert_sums *s, int what)
{
    return what == WEIGHT_SCORE ? s->score_norm : what == WEIGHT_RENORM ? s->renorm_norm : s->gate_norm;
}

static void score(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *out)
{
    int what = plan_choice(in, "weight");
    const bool mean = plan_choice(in, "reduce") == REDUCE_MEAN;
    if (what == WEIGHT_AUTO) what = in->model->spec.layer[l].moe.router.renormalize ? WEIGHT_RENORM : WEIGHT_SCORE;
    for (int32_t e = 0; e < n; e++) {
        const double sum = weighted_norm(&sums[e], what);
        out[e] = !sums[e].count ? 0 : mean ? sum / (double)sums[e].count : sum;
    }
}

static coe_status plan(const struct plan_in *in, struct plan *out) { return keep_by_score(in, out, score); }

static const struct planner reap = { .needs_trace = true, .needs_unpruned = true, .params = params, .plan = plan };
COE_PART(planner, reap, .summary = "prune the experts with the smallest mean of router score times output norm",
         .paper = "REAP, 2025", .card = "compress.md part 4", .impl = &reap)
