/* bench.h — parts of `coe bench`: bench.c (the verb, models), bench_limits.c (what the machine can do), bench_train.c.
 */
#ifndef COE_CLI_BENCH_H
#define COE_CLI_BENCH_H

#include "cli/cli.h"

#define BENCH_RUNS 64 /* most repetitions */

/* Rates of several runs of the same thing. */
struct rates {
    double at[BENCH_RUNS];
    int n;
};
void rates_add(struct rates *r, double rate);
/* Sorts; all 0 when there are none. */
double rates_median(struct rates *r);
/* The best run: what a limit is, since nothing can be faster by accident. */
double rates_best(struct rates *r);
/* {"median", "min", "max"}, a new reference. */
json_t *rates_json(struct rates *r);
/* "1234.5 (1200.1 to 1250.3)" */
const char *rates_text(struct rates *r, char text[64]);

/* What memory and arithmetic of this machine can do at most, with all threads and with one. */
struct limits {
    int threads;
    struct rates read1, read;   /* GB/s, reading 512 MB in 2 MB pages */
    struct rates fma1, fma; /* FP32 GFLOP/s of fused multiply-adds in registers, at the level of the kernels in use */
};
/* COE_E_NOMEM when the buffer does not fit the budget. */
coe_status limits_measure(struct limits *l, int runs);
void limits_print(struct limits *l);
json_t *limits_json(struct limits *l);

/* Training steps of a recipe's model on made-up text. */
coe_status bench_train(struct cli *c, struct limits *l);

#endif
