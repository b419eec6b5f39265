/* config.json of every family → spec, and the shapes of its places. */
#include <stdlib.h>

#include "model/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { MOST = 20000 }; /* places looked at: a config may ask for billions */

static coe_status look(void *user, struct place p, int64_t rows, int64_t cols)
{
    int *seen = user;
    if (rows < 1 || cols < 1 || p.layer < 0 || p.expert < 0) abort();
    return ++*seen < MOST ? COE_OK : COE_E_FAILED;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    json_t *doc = NULL;
    struct arena arena = { 0 };
    struct spec s;
    int seen = 0;
    if (json_read_text(&doc, (const char *)bytes, n, "fuzz")) return 0;
    if (!spec_read(&s, &arena, doc, "fuzz")) (void)spec_each_place(&s, look, &seen);
    json_decref(doc);
    arena_free(&arena);
    return 0;
}
