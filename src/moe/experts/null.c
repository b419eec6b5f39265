/* null.c — an expert that returns nothing: E(x) = 0.
 *
 * Papers: AdaMoE, 2024; the zero experts of MoE++, 2024; the skip of Duo-LLM, 2024 (cards: routing.md 4, 5, 18).
 * Choices of it are dropped from the route before anything is run (capacity.c): it has no rows, no work, no weights. */
#include "moe/moe.h"

static const struct expert_part null = { .null = true, .idle = true };
COE_PART(expert, null, .summary = "returns nothing and is no work", .paper = "AdaMoE, 2024", .card = "routing.md 4",
         .unit = "token", .impl = &null)
