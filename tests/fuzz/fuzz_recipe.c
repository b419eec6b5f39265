/* Any bytes as a training recipe. */
#include <stdlib.h>

#include "base/log.h"
#include "train/train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct recipe r;
    log_set_level(0);
    if (recipe_read_text(&r, (const char *)data, n, "fuzz.yaml")) return 0;
    for (int64_t step = 0; step < 3; step++) (void)schedule_lr(&r, r.steps * step / 3);
    recipe_free(&r);
    return 0;
}
