/* One plan file: accepted keep lists are ascending ids of their layers, and the plan written again is the same plan. */
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct plan *p, *again;
    char a[17], b[17];
    if (plan_parse(&p, (const char *)bytes, n, "fuzz")) return 0;
    for (int32_t i = 0; i < p->n_layers; i++)
        for (int32_t j = 0; j < p->layer[i].n_keep; j++) {
            const int32_t id = p->layer[i].keep[j];
            if (id < 0 || id >= p->layer[i].n_experts || (j && id <= p->layer[i].keep[j - 1])) abort();
        }
    json_t *doc = plan_json(p);
    char *text = json_dumps(doc, JSON_REAL_PRECISION(17));
    if (!text || plan_parse(&again, text, strlen(text), "again")) abort();
    if (plan_fingerprint(p, a) || plan_fingerprint(again, b) || strcmp(a, b)) abort();
    plan_free(again);
    free(text);
    json_decref(doc);
    plan_free(p);
    return 0;
}
