/* One safetensors file: whatever is accepted lies inside the bytes given. */
#include <stdlib.h>

#include "ckpt/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tensor_list l;
    if (safetensors_parse(&l, bytes, n, "fuzz")) return 0;
    for (size_t i = 0; i < l.n; i++) {
        const uint8_t *p = l.at[i].data;
        if (p < bytes || tensor_bytes(&l.at[i]) > (uint64_t)(bytes + n - p)) abort();
        if (tensor_find(l.at, l.n, l.at[i].name) != &l.at[i]) abort();
    }
    tensor_list_free(&l);
    return 0;
}
