/* copy.c — an expert that returns its input: E(x) = x.
 *
 * Papers: MoE++, 2024; LongCat-Flash, 2025 (card: routing.md 5). A token that chooses one skips the feed-forward part
 * in proportion to its weight. No weights. */
#include "moe/experts/rows.h"

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    return experts_inputs(c, rows);
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static const struct expert_part copy = { .run = run, .idle = true };
COE_PART(expert, copy, .summary = "returns its input", .paper = "MoE++, 2024", .card = "routing.md 5", .unit = "token",
         .impl = &copy)
