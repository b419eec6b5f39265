/* gguf.h — the metadata of a GGUF file: typed values under dotted names ("llama.block_count"), and writing such files.
 *
 * Keys and values stay in the mapped file. Reading order: gguf.h, gguf.c (reading), gguf_value.c (typed
 * access), gguf_write.c, gguf_model.c (several files, resumed). A checkpoint's tensors are reached through ckpt.h under
 * the names they have in the file, with the shape reversed into row-major order: dim[n_dims - 1] is the row length, the
 * file's first dimension. */
#ifndef COE_CKPT_GGUF_H
#define COE_CKPT_GGUF_H

#include "base/gguf_meta.h"
#include "base/json.h"
#include "ckpt.h"

/* Values in ascending order of key; each lies in the mapping (gguf_meta.h of base has typed access to one). */
struct gguf {
    const char *where; /* the file's name, for messages */
    struct gguf_value *at;
    size_t n;
    uint32_t version;
    uint64_t alignment;
    struct arena names; /* of the tensors */
};

/* NULL when the checkpoint is not a GGUF file. Of a split model: the first file's. */
const struct gguf *ckpt_gguf(const struct ckpt *c);

/* NULL when there is none. */
const struct gguf_value *gguf_find(const struct gguf *g, const char *key);
/* As the getters of json.h: absent leaves *out as it is, a wrong type or range is COE_E_INPUT naming file and key. */
coe_status gguf_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out);
coe_status gguf_num(const struct gguf *g, const char *key, double *out);
coe_status gguf_bool(const struct gguf *g, const char *key, bool *out);
/* Not NUL-terminated and not checked to be UTF-8. */
coe_status gguf_str(const struct gguf *g, const char *key, struct gguf_text *out);

/* Everything as one JSON object, a new reference: arrays of more than max_items items are cut to that many; what JSON
 * cannot say (NaN, bytes that are not UTF-8) becomes null. NULL: out of memory. */
json_t *gguf_json(const struct gguf *g, size_t max_items);

/* Metadata being collected for a file to be written; out of memory is noticed by gguf_write. Free with gguf_out_free.
 */
struct gguf_out {
    struct str text;
    uint64_t n;
};
void gguf_add_u16(struct gguf_out *o, const char *key, uint16_t x);
void gguf_add_u32(struct gguf_out *o, const char *key, uint32_t x);
void gguf_add_i32(struct gguf_out *o, const char *key, int32_t x);
void gguf_add_u64(struct gguf_out *o, const char *key, uint64_t x);
void gguf_add_f32(struct gguf_out *o, const char *key, float x);
void gguf_add_bool(struct gguf_out *o, const char *key, bool x);
void gguf_add_str(struct gguf_out *o, const char *key, const char *text, size_t n);
/* An array of bytes. */
void gguf_add_bytes(struct gguf_out *o, const char *key, const char *bytes, size_t n);
void gguf_add_strs(struct gguf_out *o, const char *key, const struct str *text, size_t n);
void gguf_add_i32s(struct gguf_out *o, const char *key, const int32_t *x, size_t n);
void gguf_add_bools(struct gguf_out *o, const char *key, const int32_t *x, size_t n);
void gguf_add_f32s(struct gguf_out *o, const char *key, const float *x, size_t n);
/* Key and value of another file as they are. */
void gguf_add_value(struct gguf_out *o, const struct gguf_value *v);
void gguf_out_free(struct gguf_out *o);

/* Version 3, tensors in the order given, each at a multiple of 32 bytes; streamed through a 1 MB buffer, written beside
 * the target and renamed. Shapes are row-major as everywhere (reversed in the file). COE_E_USAGE for a type GGUF does
 * not have or a row that is not whole blocks. */
coe_status gguf_write(const char *path, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n);
/* A model, in which another run goes on after a failure, a kill or Ctrl-C: finished tensors stay in PATH.part-KEY. With
 * shard_bytes, and more tensor data than that, it becomes NAME-00001-of-0000N.gguf and so on beside each other (the
 * metadata in the first, which appears last), each with at most so many bytes of data or one tensor. */
coe_status gguf_write_model(const char *path, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n,
                            uint64_t shard_bytes, const struct ckpt_resume *resume);
/* How many bytes in how many files it would write; the same errors. `path` is for messages. */
coe_status gguf_model_size(uint64_t *bytes, size_t *n_files, const char *path, const struct gguf_out *metadata,
                           const struct ckpt_item *items, size_t n, uint64_t shard_bytes);
/* Path of file i (from 0) of n; mem_free it. */
char *gguf_file_name(const char *path, size_t i, size_t n);

#endif
