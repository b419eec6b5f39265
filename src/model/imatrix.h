/* imatrix.h — importance of columns: the mean square of what each input channel of a matrix met, in llama.cpp's file.
 *
 * A GGUF file with general.type "imatrix" and, for a matrix NAME, two tensors: NAME.in_sum2 [n, cols], sums of x² for
 * each of its n matrices (experts, else 1), and NAME.counts [n, 1], how many inputs were added up. */
#ifndef COE_MODEL_IMATRIX_H
#define COE_MODEL_IMATRIX_H

#include "ckpt/ckpt.h"

struct imatrix_entry {
    const char *name; /* of the matrix as GGUF files call it: "blk.0.ffn_up_exps.weight" */
    int64_t n, cols;
    const float *sum2, *counts; /* [n, cols], [n] */
};
struct imatrix {
    struct arena arena;
    VEC(struct imatrix_entry) entry; /* ascending names */
    int64_t chunk_size, n_chunks;
    const char *dataset; /* "" when unknown */
};

/* COE_E_INPUT for a file that is no importance matrix, or whose tensors do not fit together. */
coe_status imatrix_read(struct imatrix **out, const char *path);
coe_status imatrix_write(const struct imatrix *im, const char *path);
void imatrix_free(struct imatrix *im);
/* Adds an entry (copied); call imatrix_sort once behind the last. */
coe_status imatrix_add(struct imatrix *im, const char *name, int64_t n, int64_t cols, const float *sum2,
                       const float *counts);
void imatrix_sort(struct imatrix *im);
const struct imatrix_entry *imatrix_find(const struct imatrix *im, const char *name);
/* out [cols] = mean squares of matrix i; false (out untouched) for one that met nothing: it takes no weights. */
bool imatrix_weights(const struct imatrix_entry *e, int64_t i, float *out);

#endif
