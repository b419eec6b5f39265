/* ckpt.h — checkpoints: named tensors in a Hugging Face directory, read by mmap, written back atomically.
 *
 * Enters here: file formats of weights and arrays (safetensors, its sharded index, .npy; GGUF). Knows tensors and
 * files, not what a tensor means. Reading order: ckpt.h, reader.h, safetensors.c, dir.c,
 * write.c, work.h (writing that is gone on with), npy.c; gguf.h.
 *
 * Opening maps files and reads headers only: no memory beyond the names, whatever the model's size. Every header value
 * is checked (offsets, overlaps, shapes against bytes, duplicates, UTF-8) before it is believed. */
#ifndef COE_CKPT_H
#define COE_CKPT_H

#include "base/json.h"
#include "tensor/tensor.h"

struct ckpt;

/* `path`: a directory with config.json and model.safetensors or model.safetensors.index.json + shards, or one
 * .safetensors file (then there is no config), or a GGUF file (any one of a split model; metadata: gguf.h).
 * COE_E_INPUT names file, tensor and value at fault. */
coe_status ckpt_open(struct ckpt **out, const char *path);
void ckpt_close(struct ckpt *c);
const char *ckpt_path(const struct ckpt *c);
/* Path of file i of those that hold the tensors (shards, parts of a split model), borrowed; NULL behind the last. */
const char *ckpt_file(const struct ckpt *c, size_t i);
/* config.json, borrowed; NULL for a lone file. */
const json_t *ckpt_config(const struct ckpt *c);
size_t ckpt_count(const struct ckpt *c);
/* Tensors in ascending order of name; data points into the mapping, at any address (foreign files need not align): read
 * it with widen() or memcpy. */
const struct tensor *ckpt_at(const struct ckpt *c, size_t i);
/* NULL when there is none. O(log n). */
const struct tensor *ckpt_find(const struct ckpt *c, const char *name);
/* Total bytes of tensor data. */
uint64_t ckpt_bytes(const struct ckpt *c);
/* xxh3 over names, types, shapes and data (sampled: whole tensors up to 64 KB, else 16 KB each from start, middle and
 * end; of more than 1024 tensors 4 KB each): 16 hex digits + NUL. The fingerprint that traces and plans carry. */
coe_status ckpt_fingerprint(const struct ckpt *c, char hex[17]);
/* The __metadata__ strings of a safetensors file as a new reference, an empty object when it has none. */
coe_status safetensors_metadata(json_t **out, const char *path);
/* Lets the kernel drop (or fetch) the pages behind a tensor. */
void ckpt_release_pages(const struct tensor *t);

/* One tensor to be written. `fill` (if set) is called while writing for [first, first+count) elements at a time, in
 * order, and puts them into `out` (at most 1 MB): whole rows of the last dimension where a row fits, else whole blocks
 * of the type. Without fill tensor.data is written as it is. */
typedef coe_status ckpt_fill_fn(void *user, const struct tensor *t, int64_t first, int64_t count, void *out);
struct ckpt_item {
    struct tensor t;
    ckpt_fill_fn *fill;
    void *user;
};
/* One safetensors file, written beside the target and renamed. The header is padded so that the data starts
 * page-aligned (4096). Readers refuse holes between tensors, so items are laid down by falling element size, in the
 * order given among equals: each tensor is aligned to its own elements. metadata may be NULL. Memory: one 1 MB buffer
 * and the header. */
coe_status safetensors_write(const char *path, const struct ckpt_item *items, size_t n, const char *const metadata[][2],
                             size_t n_metadata);
/* Long writing that another run of the same command can go on with. The caller hashes into `key` all that the result
 * depends on: the source, the options, the program. */
struct ckpt_resume {
    char key[17];    /* in: 16 hex digits */
    uint64_t *count; /* in and out: a sum that the fill functions keep, found again with what they filled; or NULL */
    uint64_t step;   /* bytes of a GGUF file that a kill may cost at most, beside one tensor; 0: 16 MB */
};

/* A whole directory: config.json, model.safetensors or shards of at most shard_bytes (0: 5 GB) with index; files that
 * belong to a model (tokenizer.json, …) and exist in from_dir (may be NULL) are copied. Built in DIR.part~PID and
 * renamed; with `resume` in DIR.part-KEY, where finished shards stay after a failure, a kill or Ctrl-C, and renamed. */
coe_status ckpt_write_dir(const char *dir, const json_t *config, const struct ckpt_item *items, size_t n,
                          uint64_t shard_bytes, const char *from_dir, const struct ckpt_resume *resume);

/* .npy, little endian, C order. Read: versions 1 to 3, f4 f8 f2 i4 i8 i2 i1 u1 b1, a copy of the data. Written:
 * version 1. COE_E_INPUT names the file and what is wrong with it. */
struct npy {
    enum dtype type;
    int32_t n_dims;
    int64_t dim[MAX_DIMS];
    void *data; /* owned */
};
coe_status npy_read(struct npy *out, const char *path);
void npy_free(struct npy *a);
coe_status npy_write(const char *path, enum dtype type, int32_t n_dims, const int64_t *dim, const void *data);

#endif
