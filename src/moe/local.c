/* local.c — the executor for experts whose weights are in memory (or mapped). */
#include "moe/experts/ffn.h"

static coe_status run(struct executor *self, struct nn *c, struct expert_call *call)
{
    (void)self;
    return experts_ffn(c, call);
}

struct executor executor_local = { .name = "local", .run = run };
