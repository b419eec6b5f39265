/* pick.h — what selections share: the best of a row, and the rows of each sequence. */
#ifndef COE_PICK_H
#define COE_PICK_H

#include "moe/moe.h"

#define MAX_TOP_K 1024

/* best [≤ k] ids of s [n] in descending score, equal scores by ascending id; scores of -inf are not taken. Returns how
 * many. NaN never compares higher. */
int32_t pick_best(const float *s, int32_t n, int32_t k, int32_t *best);
/* All ids of s [n] that are above -inf, in descending order. Returns how many; order needs room for n. */
int32_t pick_sorted(const float *s, int32_t n, int32_t *order);

/* Rows of sequence i of the record's batch: *from … *end-1; answers false behind the last. */
bool pick_sequence(const struct route_record *rec, int32_t i, int32_t *from, int32_t *end);
/* Position of row t of sequence i in its sequence. */
int64_t pick_position(const struct route_record *rec, int32_t i, int32_t t);

/* max_slots of selections that may take every expert, and of those that take top_k */
int64_t pick_all_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts);
int64_t pick_top_k_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts);

#endif
