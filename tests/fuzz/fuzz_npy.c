/* One .npy file: an accepted array has as many bytes as its shape says. */
#include <stdlib.h>

#include "ckpt/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct npy a;
    if (npy_parse(&a, bytes, n, "fuzz")) return 0;
    struct tensor t = { .name = "a", .type = a.type, .n_dims = a.n_dims };
    for (int32_t i = 0; i < a.n_dims; i++) t.dim[i] = a.dim[i];
    if (tensor_bytes(&t) >= n) abort();
    npy_free(&a);
    return 0;
}
