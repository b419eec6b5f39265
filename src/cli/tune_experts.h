/* tune_experts.h — tune.experts of a recipe as lists of ids. */
#ifndef COE_CLI_TUNE_EXPERTS_H
#define COE_CLI_TUNE_EXPERTS_H

#include "train/train.h"

/* { plan: P } becomes what P keeps, { trace: T, top: K } the K most used experts of each layer; lists stay. COE_E_INPUT
 * for a plan or trace of another model. */
coe_status tune_experts_resolve(struct recipe *r);

#endif
