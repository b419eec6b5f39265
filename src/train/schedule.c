/* schedule.c — the learning rate over a run. */
#include <math.h>

#include "train/train.h"

double schedule_lr(const struct recipe *r, int64_t step)
{
    if (step < r->warmup) return r->lr * (double)(step + 1) / (double)r->warmup;
    if (r->schedule == SCHEDULE_CONSTANT) return r->lr;
    const double span = (double)(r->steps - r->warmup), done = span > 1 ? (double)(step - r->warmup) / (span - 1) : 1;
    const double share = done >= 1                        ? 0
                         : r->schedule == SCHEDULE_LINEAR ? 1 - done
                                                          : 0.5 * (1 + cos(3.14159265358979323846 * done));
    return r->min_lr + (r->lr - r->min_lr) * share;
}
