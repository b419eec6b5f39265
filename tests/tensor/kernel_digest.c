/* kernel_digest.c — prints the level that COE_ISA chooses, then LEVEL.KERNEL HASH for every level of the machine it is
 * compiled for. test_neon.c runs it as an AArch64 program and compares. */
#include "tensor/digest.h"

#include <inttypes.h>
#include <stdio.h>

int main(void)
{
    static struct digest_data data;
    if (kernels_init()) {
        fprintf(stderr, "%s\n", coe_error());
        return 2;
    }
    printf("%s\n", kern->name);
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        struct digest list[DIGEST_MOST];
        const int n = digest_kernels(*k, &data, list);
        for (int i = 0; i < n; i++) printf("%s.%s %016" PRIx64 "\n", (*k)->name, list[i].name, list[i].hash);
    }
    return 0;
}
