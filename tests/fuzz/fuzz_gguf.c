/* One GGUF file: accepted tensors and values lie inside the bytes given, metadata can be walked, small tensors decoded.
 */
#include <stdlib.h>

#include "ckpt/gguf.h"
#include "ckpt/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void inside(const uint8_t *p, uint64_t length, const uint8_t *bytes, size_t n)
{
    if (p < bytes || p > bytes + n || length > (uint64_t)(bytes + n - p)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static float y[4096];
    struct gguf g;
    struct tensor_list l;
    if (gguf_parse(&g, &l, bytes, n, "fuzz")) return 0;
    for (size_t i = 0; i < g.n; i++) {
        const struct gguf_value *v = &g.at[i];
        inside(v->at, (uint64_t)(v->end - v->at), bytes, n);
        struct gguf_text t;
        for (const uint8_t *at = v->at; gguf_next_text(v, &at, &t);) inside((const uint8_t *)t.at, t.n, bytes, n);
    }
    for (size_t i = 0; i < l.n; i++) {
        inside(l.at[i].data, tensor_bytes(&l.at[i]), bytes, n);
        if (dtype_info[l.at[i].type].block > 1 && tensor_count(&l.at[i]) <= 4096)
            widen(y, l.at[i].data, l.at[i].type, tensor_count(&l.at[i]));
    }
    json_decref(gguf_json(&g, 16));
    tensor_list_free(&l);
    gguf_free(&g);
    return 0;
}
