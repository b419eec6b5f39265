/* entropy.c — mean entropy of the router's probabilities: L = 1/T Σ_t -Σ_e p_te log p_te,
 * dz_te = -p_te (log p_te + H_t) / T. Summed over layers and chain iterations. Keeps a router that may take more
 * experts (top-p) from flattening its probabilities to get them.
 *
 * Paper: Harder Tasks Need More Experts, 2024, the dynamic loss (card: routing.md 3). Typical coefficient 1e-4. */
#include "moe/losses/tsallis.h"

static coe_status apply(const struct loss_call *c, double *value) { return tsallis_apply(c, 1, false, value); }

static coe_status check(const struct moe_spec *m, const char *where)
{
    return balance_needs_softmax(m, "entropy", where);
}

static const struct loss_part entropy_loss = { .apply = apply, .check = check };
COE_PART(loss, entropy, .summary = "mean entropy of the router's probabilities",
         .paper = "Harder Tasks Need More Experts, 2024", .card = "routing.md 3", .unit = "token",
         .impl = &entropy_loss)
