/* lora.c — an expert of low rank: E(x) = (alpha / rank) B A x, A [rank, d], B [d, rank] from zero.
 *
 * Papers: DynMoLE, 2025; LoRA, 2021 (cards: routing.md 22, 23). Beside a shared expert it adapts what that computes:
 *     y = Shared(x) + Σ_e weight · E_e(x)
 * With selection `hybrid` and loss `tsallis` this is DynMoLE on the layer's input; at the start y = Shared(x). */
#include "moe/experts/rows.h"

enum { DOWN, UP };
enum { RANK, ALPHA };

static const struct part_param params[] = {
    { "rank", "of the product B A", NULL, 1, 65536, 8, true },
    { "alpha", "scale of the product, divided by rank", NULL, 0, 1e6, 16, false },
    { 0 },
};

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct val *u = experts_linear(c, experts_inputs(c, rows), rows->of, experts_weights(rows, DOWN));
    u = nn_scale(c, u, (float)(rows->range->param[ALPHA] / rows->range->param[RANK]));
    return experts_linear(c, u, rows->of, experts_weights(rows, UP));
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static bool down_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[RANK], *cols = at->d_model;
    return true;
}

static bool up_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->d_model, *cols = (int64_t)at->param[RANK];
    return true;
}

static const struct part_weight weights[] = {
    { .name = "lora_A.weight", .scope = PART_OF_EXPERT, .shape = down_shape },
    { .name = "lora_B.weight", .scope = PART_OF_EXPERT, .init = INIT_ZERO, .shape = up_shape },
    { 0 },
};

static const struct expert_part lora = { .run = run, .weights = weights };
COE_PART(expert, lora, .summary = "two thin matrices, beside a shared expert an adapter of it",
         .paper = "DynMoLE, 2025", .card = "routing.md 22", .unit = "token", .params = params, .impl = &lora)
