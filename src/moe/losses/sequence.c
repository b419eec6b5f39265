/* sequence.c — load balancing inside each sequence: per sequence b f_be = c_be E / (S k), P_be the mean score over its
 * tokens, L = mean_b Σ_e f_be P_be; balance gives 1. Summed over layers and chain iterations.
 *
 * Paper: DeepSeek-V2, 2024 (`seq_aux`; card: routing.md 2); the loss of Chain-of-Experts. */
#include "moe/losses/balance.h"

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        const double norm = (double)r->route.n_experts / r->spec->router.top_k;
        for (int32_t b = 0; b < c->batch->n_seq; b++) {
            const struct token_range part = { r, c->batch->off[b], c->batch->off[b + 1] };
            if (part.end > part.first) COE_TRY(balance_set(c, &part, 1, norm, NULL, 1.0 / c->batch->n_seq, value));
        }
    }
    return COE_OK;
}

static const struct loss_part sequence_loss = { .apply = apply };
COE_PART(loss, sequence, .summary = "balance inside every sequence; balance gives 1", .paper = "DeepSeek-V2, 2024",
         .card = "routing.md 12a", .unit = "sequence", .impl = &sequence_loss)
