/* balance.h — the arithmetic that all f·P losses share: L = norm · Σ_e f_e P_e over a set of (record, token) pairs,
 * with f a constant and P the mean score, and its gradient through the softmax (or normalised sigmoid). */
#ifndef COE_LOSSES_BALANCE_H
#define COE_LOSSES_BALANCE_H

#include "moe/moe.h"

/* A set of tokens of one record: first … end-1. */
struct token_range {
    struct route_record *r;
    int64_t first, end;
};
static inline bool token_counts(const struct loss_call *c, int64_t t) { return !c->counted || c->counted[t]; }

/* Adds assignments of the range into counts [E]; returns its tokens that count. */
int64_t balance_counts(const struct loss_call *c, const struct token_range *t, double *counts);
/* Adds Σ_t q_t into sums [E], q the score normalised to sum 1 (softmax: as it is). */
void balance_scores(const struct loss_call *c, const struct token_range *t, double *sums);
/* dz_t += factor · (∂/∂z) Σ_e f_e q_te for every token of the range that counts. */
coe_status balance_gradient(const struct loss_call *c, const struct token_range *t, const double *f, double factor);
/* The whole of one set: value and gradient of norm · Σ_e (counts_e / tokens) · (Σ q_e / tokens). f may be given (global
 * batch), else it is counts/tokens of the set. */
coe_status balance_set(const struct loss_call *c, const struct token_range *set, int32_t n, double norm,
                       const double *f, double weight, double *value);

/* For losses with loads of their own: over the records, value and gradient of Σ_e f_e P_e. `load` fills f [E], zeroed,
 * which is a constant of the gradient; false without memory. */
typedef bool balance_load_fn(const struct loss_call *c, const struct token_range *all, double *f);
coe_status balance_records(const struct loss_call *c, balance_load_fn *load, double *value);

/* Checks of specs: COE_E_INPUT unless experts stand in groups, unless scores are probabilities. */
coe_status balance_needs_groups(const struct moe_spec *m, const char *loss, const char *where);
coe_status balance_needs_softmax(const struct moe_spec *m, const char *loss, const char *where);

#endif
