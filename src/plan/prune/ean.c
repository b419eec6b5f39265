/* ean.c — prune the experts whose outputs are shortest.
 *
 * Paper: expert activation norm, one of the scores that REAP, 2025 compares with (card: compress.md, "The score
 * family"; MAN and MSAN of arXiv 2606.15716). The router's weight is left out:
 *
 *     S[e] = R over tokens t routed to e of  ||f_e(x_t)||^power        R: mean (default) or sum
 *
 * Reads  trace: T[e], sums of ||f|| and ||f||^2, added over the iterations of a chain before dividing.   Writes plan:
 * keep lists. Ties keep the lower expert id. An expert never routed has S = 0. */
#include "plan/prune/keep.h"

enum { REDUCE_MEAN, REDUCE_SUM };
static const char *const reduce[] = { "mean", "sum", NULL };
static const char *const power[] = { "1", "2", NULL };
static const struct plan_param params[] = {
    { .name = "reduce", .choices = reduce, .help = "mean over the tokens routed to the expert, or their sum" },
    { .name = "power", .choices = power, .help = "of the norm" },
    { .name = NULL },
};

static void score(const struct plan_in *in, int32_t l, const struct expert_sums *sums, int32_t n, double *out)
{
    (void)l;
    const bool mean = plan_choice(in, "reduce") == REDUCE_MEAN, square = plan_choice(in, "power") == 1;
    for (int32_t e = 0; e < n; e++) {
        const double sum = square ? sums[e].norm2 : sums[e].norm;
        out[e] = !sums[e].count ? 0 : mean ? sum / (double)sums[e].count : sum;
    }
}

static coe_status plan(const struct plan_in *in, struct plan *out) { return keep_by_score(in, out, score); }

static const struct planner ean = { .needs_trace = true, .needs_unpruned = true, .params = params, .plan = plan };
COE_PART(planner, ean, .summary = "prune the experts whose outputs are shortest",
         .paper = "Expert activation norm (in REAP), 2025", .card = "compress.md score family", .impl = &ean)
