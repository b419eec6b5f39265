/* One importance matrix: accepted sums are finite, none is negative, and every entry gives its weights or none. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(const struct imatrix_entry *e)
{
    float w[4096];
    for (int64_t i = 0; i < e->n && e->cols <= 4096; i++)
        if (imatrix_weights(e, i, w))
            for (int64_t j = 0; j < e->cols; j++)
                if (!(w[j] >= 0)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    struct imatrix *im;
    const int fd = memfd_create("imatrix", MFD_CLOEXEC);
    if (fd < 0) return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, bytes, n) == (ssize_t)n && !imatrix_read(&im, path)) {
        for (size_t i = 0; i < im->entry.n; i++) {
            check(&im->entry.at[i]);
            if (!imatrix_find(im, im->entry.at[i].name)) abort();
        }
        imatrix_free(im);
    }
    close(fd);
    return 0;
}
