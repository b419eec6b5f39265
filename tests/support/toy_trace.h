/* toy_trace.h — traces written by hand, and what a planner makes of them. */
#ifndef COE_TESTS_TOY_TRACE_H
#define COE_TESTS_TOY_TRACE_H

#include "support/arrays.h"

#include "plan/plan.h"
#include "trace/trace_in.h"

/* One domain "toy", one layer of n experts and c iterations; every sum zero. trace_free it. */
struct trace *toy_trace(int32_t n, int32_t iterations);
/* Values of a column in one iteration: as many doubles as experts. */
void toy_set(struct trace *t, enum trace_column c, int32_t iteration, const double *values);

/* Runs a planner on the one layer; params is {"name=value", …, NULL} or NULL (defaults). keep must have room for all
 * experts. Returns how many stay. */
int32_t toy_plan(int32_t *keep, const char *planner, const struct trace *t, double ratio, uint64_t seed,
                 int32_t n_group, bool renormalize, const char *const *params);
/* Fails the test, showing both lists, unless the planner keeps exactly the n ids. */
void assert_keeps(const char *planner, const struct trace *t, double ratio, const char *const *params,
                  const int32_t *ids, int32_t n);

#endif
