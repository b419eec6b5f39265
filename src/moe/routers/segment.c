/* segment.c — one routing decision for every contiguous segment of tokens: z = W [x_1 | … | x_w] / temperature, taken
 * by all of them.
 *
 * Paper: Seg-MoE: Multi-Resolution Segment-wise MoE, 2026 (card: routing.md 17). A last segment is filled up with
 * zeros. The published router reads the segment itself, so that a token's experts depend on tokens behind it: right for
 * encoders, forecasting and blocks that are decoded together. `reads: previous` looks at the segment before instead,
 * and the first one has no preference: causal. Experts work token by token, or on whole segments (kind `segment`);
 * `shared_segment` does the same for the shared expert. */
#include "moe/segments.h"

enum { WIDTH, TEMPERATURE, READS };
static const char *const readings[] = { "own", "previous", NULL };
static const struct part_param params[] = {
    { "width", "tokens of a segment", NULL, 1, 4096, 4, true },
    { "temperature", "divides the logits", NULL, 1e-3, 1e3, 1, false },
    { "reads", "which segment decides", readings, 0, 0, 0, false },
    { 0 },
};

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    struct val *x = call->x;
    const double *param = call->spec->router.kind_param;
    const int32_t width = (int32_t)param[WIDTH];
    struct attn_batch alone;
    const struct attn_batch *batch = router_batch(call, &alone);
    int32_t *place = arena_push(c->arena, (size_t)x->rows * sizeof *place);
    int32_t *read = arena_push(c->arena, (size_t)x->rows * sizeof *read);
    if (!batch || !place || !read) return NULL;
    const int32_t n = segments_of(batch, x->rows, width, place);
    if (param[READS] > 0) segments_before(batch, x->rows, width, place, read);
    struct val *z = nn_fold(c, x, param[READS] > 0 ? read : place, n, width);
    z = nn_linear(c, z, call->w->router_part[call->iteration][0], NULL);
    return nn_spread(c, nn_scale(c, z, (float)(1 / param[TEMPERATURE])), place, x->rows, width);
}

static bool weight_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->spec->n_experts, *cols = at->d_model * (int64_t)at->param[WIDTH];
    return true;
}

static const struct part_weight weights[] = {
    { .name = "weight", .scope = PART_OF_ITERATION, .by_expert = true, .shape = weight_shape },
    { 0 },
};
static const struct router_part segment = { .logits = logits, .weights = weights, .whole = true };
COE_PART(router, segment, .summary = "one decision for each segment of tokens, from all of them",
         .paper = "Seg-MoE, 2026", .card = "routing.md 17", .unit = "segment", .params = params, .impl = &segment)
