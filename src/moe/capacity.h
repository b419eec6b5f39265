/* capacity.h — the limit on how many tokens an expert takes, between selection and experts. */
#ifndef COE_CAPACITY_H
#define COE_CAPACITY_H

#include "moe/moe.h"

/* Moves the slots of rec->route that fit (limited: the spec's capacity) and are at no null expert into a new
 * rec->route; the choice before that stays in rec->wanted, with its weights if they were made already. Counts per
 * sequence: other sequences of the batch change nothing. */
coe_status capacity_drop(struct nn *c, struct route_record *rec, bool limited);
/* weigh_first: the gradients of the weights that are left, at their places in rec->wanted; 0 for the dropped. */
void capacity_back(struct route_record *rec);

#endif
