/* plan_in.h — inside src/plan: what plan.c shares with json.c and planner.c. */
#ifndef COE_PLAN_IN_H
#define COE_PLAN_IN_H

#include "plan/plan.h"

/* An empty plan with `path` for messages; NULL when memory is out. */
struct plan *plan_alloc(const char *path);

#endif
