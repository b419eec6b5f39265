/* eval_routes.h — `coe eval routes`. */
#ifndef COE_CLI_EVAL_ROUTES_H
#define COE_CLI_EVAL_ROUTES_H

#include "cli/cli.h"
#include "plan/measure.h"

/* Windows as the command line says. */
coe_status eval_routes(struct cli *c, struct measure_opts o);

#endif
