/* quantize.h — an opened model as one GGUF file, its matrices in any type that can be encoded.
 *
 *     struct quantize_opts o = quantize_default();
 *     o.type = DT_Q4_K; o.by_class[CLASS_ATTENTION] = DT_Q8_0;
 *     struct quantize_report r;
 *     COE_TRY(model_quantize(m, "out.gguf", &o, &r)); */
#ifndef COE_MODEL_QUANTIZE_H
#define COE_MODEL_QUANTIZE_H

#include "model/imatrix.h"
#include "model/model.h"

struct expert_type {
    int32_t layer, expert; /* -1: all */
    enum dtype type;
};

struct quantize_opts {
    enum dtype type;                  /* of matrices; DT_COUNT: as stored, blocks too */
    enum dtype by_class[CLASS_COUNT]; /* DT_COUNT: `type` */
    const struct expert_type *expert; /* later rows win */
    size_t n_expert;
    const struct imatrix *imatrix; /* NULL: every column counts the same */
    uint64_t shard_bytes;          /* more tensor data than that become several files; 0: one file */
};
struct quantize_opts quantize_default(void);

struct quantize_report {
    const char *arch;             /* general.architecture */
    char why_coe[160];            /* why it is "coe"; "" when it is not */
    size_t n_tensors, n_weighted; /* written; of these encoded with importance */
    uint64_t bytes_before, bytes; /* of tensor data */
    uint64_t file_bytes;          /* of the file, to the byte; of all files when there are several */
    size_t n_files;
    uint64_t by_type[DT_COUNT]; /* tensor bytes of each type */
    uint64_t overflowed;        /* finite values that F16 cannot hold and that became infinite */
    /* so many tensors whose rows are not whole blocks of what was asked; `cols` of the first of them */
    struct fallback {
        enum dtype asked, got;
        size_t n;
        int64_t cols;
    } fallback[8];
    size_t n_fallbacks;
};

/* Writes `path` as a whole (NULL: only fills the report); after a failure, a kill or Ctrl-C the same call goes on at
 * the tensors that were finished (gguf_write_model). Routers, norms, biases and other vectors are F32; the head
 * takes Q6_K when `type` is smaller and no class says otherwise; rows that are not whole blocks take the next larger
 * type with blocks of 32, at last F16. Memory: a buffer and a row for each thread. COE_E_USAGE for a type that cannot
 * be encoded, COE_E_INPUT for an importance matrix of another model. */
coe_status model_quantize(const struct coe_model *m, const char *path, const struct quantize_opts *o,
                          struct quantize_report *r);

#endif
