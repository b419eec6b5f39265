/* device.c — load balancing between the D groups of experts that stand for devices: with f_e = c_e E / (T k) of the
 * expert-level loss, f'_j its mean over group j and P'_j the sum of P_e over it, L = Σ_j f'_j P'_j; balance gives 1,
 * and experts of one group need not balance. Summed over layers and chain iterations.
 *
 * Paper: DeepSeekMoE, 2024 (card: routing.md 2). Groups are those of the spec (`groups`); with all of them kept they
 * limit nothing and serve this loss only. Published coefficient 0.05. */
#include "moe/losses/balance.h"

static bool load(const struct loss_call *c, const struct token_range *all, double *f)
{
    const struct moe_spec *m = all->r->spec;
    const int32_t n = all->r->route.n_experts, groups = m->router.n_group, size = n / groups;
    const int64_t tokens = balance_counts(c, all, f);
    for (int32_t g = 0; g < groups && tokens; g++) {
        double mean = 0;
        for (int32_t i = 0; i < size; i++) mean += f[g * size + i] / size;
        for (int32_t i = 0; i < size; i++) f[g * size + i] = mean * n / ((double)m->router.top_k * (double)tokens);
    }
    return true;
}

static coe_status apply(const struct loss_call *c, double *value) { return balance_records(c, load, value); }

static coe_status check(const struct moe_spec *m, const char *where)
{
    return balance_needs_groups(m, "device", where);
}

static const struct loss_part device_loss = { .apply = apply, .check = check };
COE_PART(loss, device, .summary = "balance between groups of experts, not inside them; balance gives 1",
         .paper = "DeepSeekMoE, 2024", .card = "routing.md 2", .unit = "block", .impl = &device_loss)
