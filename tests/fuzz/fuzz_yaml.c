/* Recipes: YAML into the JSON document type. */
#include <stdlib.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    json_t *doc = NULL;
    if (!yaml_read_text(&doc, (const char *)bytes, n, "fuzz") && !doc) abort();
    json_decref(doc);
    return 0;
}
