/* bench_rates.c — medians of repeated measurements; see bench.h. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/bench.h"

void rates_add(struct rates *r, double rate)
{
    if (r->n < BENCH_RUNS) r->at[r->n++] = rate;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rates_median(struct rates *r)
{
    if (!r->n) return 0;
    qsort(r->at, (size_t)r->n, sizeof r->at[0], by_value);
    return r->n % 2 ? r->at[r->n / 2] : (r->at[r->n / 2 - 1] + r->at[r->n / 2]) / 2;
}

double rates_least(struct rates *r)
{
    (void)rates_median(r); /* sorts */
    return r->n ? r->at[0] : 0;
}

double rates_best(struct rates *r)
{
    (void)rates_median(r); /* sorts */
    return r->n ? r->at[r->n - 1] : 0;
}

json_t *rates_json(struct rates *r)
{
    return json_pack("{s:f, s:f, s:f}", "median", rates_median(r), "min", rates_least(r), "max", rates_best(r));
}

const char *rates_text(struct rates *r, char text[64])
{
    snprintf(text, 64, "%.1f (%.1f to %.1f)", rates_median(r), rates_least(r), rates_best(r));
    return text;
}
