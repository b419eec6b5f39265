/* eval_oracle.h — `coe eval oracle`. */
#ifndef COE_CLI_EVAL_ORACLE_H
#define COE_CLI_EVAL_ORACLE_H

#include "cli/cli.h"

coe_status eval_oracle(struct cli *c);

#endif
