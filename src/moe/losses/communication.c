/* communication.c — balance of what devices receive: f''_j = D / (M T) times the tokens that go to group j of experts
 * at all (however many of its experts they visit), P''_j the sum of P_e over it, L = Σ_j f''_j P''_j, with D groups of
 * which a token may use M. Summed over layers and chain iterations.
 *
 * Paper: DeepSeek-V2, 2024 (card: routing.md 2). Groups and M are those of the spec (`groups`, `groups_kept`).
 * Published coefficient 0.02. When every token uses M groups and all alike, it is 1. */
#include "moe/losses/balance.h"

/* sent [D] += tokens with an expert in the group; answers the tokens that count */
static int64_t count_sent(const struct loss_call *c, const struct route_record *r, int32_t size, double *sent)
{
    const struct route *rt = r->wanted.tok_off ? &r->wanted : &r->route;
    int64_t tokens = 0;
    for (int32_t t = 0; t < rt->n_tokens; t++) {
        if (!token_counts(c, t)) continue;
        tokens++;
        for (int32_t i = rt->tok_off[t]; i < rt->tok_off[t + 1]; i++) {
            bool before = false;
            for (int32_t q = rt->tok_off[t]; q < i; q++) before |= rt->expert[q] / size == rt->expert[i] / size;
            if (!before) sent[rt->expert[i] / size] += 1;
        }
    }
    return tokens;
}

static bool load(const struct loss_call *c, const struct token_range *all, double *f)
{
    const struct route_record *r = all->r;
    const int32_t n = r->route.n_experts, groups = r->spec->router.n_group, size = n / groups;
    double *sent = arena_push_zero(c->c->arena, (size_t)groups * sizeof *sent);
    if (!sent) return false;
    const int64_t tokens = count_sent(c, r, size, sent);
    for (int32_t e = 0; e < n && tokens; e++)
        f[e] = sent[e / size] * groups / ((double)r->spec->router.topk_group * (double)tokens);
    return true;
}

static coe_status apply(const struct loss_call *c, double *value) { return balance_records(c, load, value); }

static coe_status check(const struct moe_spec *m, const char *where)
{
    return balance_needs_groups(m, "communication", where);
}

static const struct loss_part communication = { .apply = apply, .check = check };
COE_PART(loss, communication, .summary = "balance of the tokens that groups of experts receive; balance gives 1",
         .paper = "DeepSeek-V2, 2024", .card = "routing.md 2", .unit = "block", .impl = &communication)
