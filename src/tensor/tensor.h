/* tensor.h — storage types and views of weights.
 *
 * Enters here: types, views, kernels (kernels.h, one table per device) and the threaded drivers over them (gemm.h).
 * Knows nothing of files, text, layers. Reading order: tensor.h, kernels.h, cpu/lanes.h, cpu/gemm.c, gemm.h. */
#ifndef COE_TENSOR_H
#define COE_TENSOR_H

#include "base/mem.h"

enum dtype {
    DT_F32, DT_F16, DT_BF16, DT_F64, DT_I8, DT_U8, DT_I16, DT_I32, DT_I64, DT_BOOL, DT_F8_E4M3,
    DT_F8_E5M2, DT_F8_E8M0, DT_U16, DT_U32, DT_U64, /* carried, not computed with */
    /* block types, see quant/quant.h */
    DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0, DT_Q8_1, DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_Q8_K,
    DT_IQ1_S, DT_IQ1_M, DT_IQ2_XXS, DT_IQ2_XS, DT_IQ2_S, DT_IQ3_XXS, DT_IQ3_S, DT_IQ4_NL, DT_IQ4_XS,
    DT_TQ1_0, DT_TQ2_0, DT_MXFP4, DT_NVFP4, DT_Q1_0, DT_Q2_0,
    DT_COUNT
};

/* A row of the table of types. Quantised block types add rows with block > 1. */
struct dtype_info {
    const char *name;  /* safetensors' spelling: "F32", "BF16", … */
    int32_t block;     /* elements per block */
    int32_t bytes;     /* bytes per block */
    bool is_float;     /* kernels can read it as a weight */
    int32_t x_block;   /* of block types with products of their own (codes.h): elements of the other factor that share a
                          scale; 0: none, such weights are widened when a model is opened */
};
extern const struct dtype_info dtype_info[DT_COUNT];
/* DT_COUNT when the name is unknown. */
enum dtype dtype_by_name(const char *name);
/* Bytes of n elements; false on overflow. */
bool dtype_bytes(enum dtype t, uint64_t n, uint64_t *bytes);

#define MAX_DIMS 4

/* A named array as it lies in a file or in memory: row-major, last dimension contiguous. */
struct tensor {
    const char *name; /* for messages and for writing */
    enum dtype type;
    int32_t n_dims;
    int64_t dim[MAX_DIMS];
    const void *data; /* borrowed from a mapping or from whoever made the tensor */
};
/* Elements, 1 for a scalar. Shapes were checked against overflow when the tensor was made. */
int64_t tensor_count(const struct tensor *t);
/* Whether the elements of a shape can be counted: no product of its dimensions overflows, in whatever order they are
 * multiplied and whichever of them are zero. What every reader of foreign shapes asks before it makes a tensor. */
bool shape_fits(const int64_t *dim, int32_t n_dims);
/* "[64, 2048]" into text, returns text */
const char *tensor_shape_text(const struct tensor *t, char text[96]);

/* A parameter matrix or vector of the network, [rows, cols] (a vector: rows = 1). In training `data` is F32, owned by
 * the trainer and writable through `master`, and `grad` has the same shape; in inference, and for what is frozen while
 * other weights learn, both are NULL. */
struct low_rank;
struct weight {
    const char *name;
    enum dtype type;
    int64_t rows, cols;
    const void *data;
    bool panels; /* block types: whole panels of rows are interleaved (quant/panel.h) */
    float *master, *grad;
    struct low_rank *low_rank; /* what an adapter adds to it (low_rank.h), or NULL */
};
static inline int64_t weight_count(const struct weight *w) { return w->rows * w->cols; }

/* dst[n] float = src[n] of type t (exact; whole numbers above 2^24 and F64 are rounded); src is unaligned-safe. Of
 * block types n must be whole blocks. */
void widen(float *dst, const void *src, enum dtype t, int64_t n);
/* dst[n] of type t = src[n] float, round to nearest even; F32, F16, BF16 only. */
void narrow(void *dst, enum dtype t, const float *src, int64_t n);

#endif
