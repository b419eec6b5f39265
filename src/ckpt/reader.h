/* reader.h — inside src/ckpt: what the readers of one file give to dir.c. All of them work on bytes in memory, so that
 * fuzz targets and tests need no file. `where` is the file's name for messages. */
#ifndef COE_CKPT_READER_H
#define COE_CKPT_READER_H

#include "base/file.h"
#include "ckpt.h"

/* The tensors of one file in ascending order of name. `names` is the one block that holds all names; `data` of each
 * tensor points into the bytes that were parsed. */
struct tensor_list {
    struct tensor *at;
    size_t n;
    char *names;
};
void tensor_list_free(struct tensor_list *l);
/* Puts the list in order of name; COE_E_INPUT when a name is there twice. */
coe_status tensor_list_sort(struct tensor_list *l, const char *where);
/* NULL when there is none. `sorted` is in ascending order of name. */
const struct tensor *tensor_find(const struct tensor *sorted, size_t n, const char *name);
/* Bytes of a tensor whose shape was checked when it was read. */
uint64_t tensor_bytes(const struct tensor *t);

/* Everything is checked against n, nothing is read behind it, and no more is allocated than the header's text
 * justifies. */
coe_status safetensors_parse(struct tensor_list *out, const unsigned char *bytes, uint64_t n, const char *where);
/* `where` is borrowed for as long as g lives. */
struct gguf;
struct gguf_out;
coe_status gguf_parse(struct gguf *g, struct tensor_list *out, const unsigned char *bytes, uint64_t n,
                      const char *where);
void gguf_free(struct gguf *g);
/* out->data is a copy. */
coe_status npy_parse(struct npy *out, const unsigned char *bytes, uint64_t n, const char *where);
/* The file that `text`, the JSON of an index, names for each tensor: *map is a new reference to {tensor: file}, every
 * file a plain name without a path. */
coe_status shard_index_parse(json_t **map, const char *text, size_t n, const char *where);

/* madvise() over all mapped files. */
void ckpt_advise(const struct ckpt *c, int advice);

#define CKPT_BUFFER ((size_t)1 << 20)
#define GGUF_ALIGNMENT 32u
/* The end of a shard that begins with item `first`: before the one that would make its data larger than `limit`; one
 * item at least. */
size_t ckpt_shard_end(const struct ckpt_item *items, size_t n, size_t first, uint64_t limit);
/* All before the data of a file, padded. */
coe_status gguf_header(struct str *s, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n,
                       const char *path);
/* Zeros that follow `at` bytes of data. */
uint64_t gguf_padding(uint64_t at);
/* One tensor and the zeros behind it. */
coe_status gguf_put_tensor(struct file_out *f, const struct ckpt_item *item, void *buffer);
/* Writes one item to f through a buffer of CKPT_BUFFER bytes. */
coe_status ckpt_put_tensor(struct file_out *f, const struct ckpt_item *item, void *buffer);

/* Little-endian numbers at any address. */
static inline uint32_t load_u16(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t load_u32(const unsigned char *p) { return load_u16(p) | load_u16(p + 2) << 16; }
static inline uint64_t load_u64(const unsigned char *p) { return load_u32(p) | (uint64_t)load_u32(p + 4) << 32; }
static inline void store_u64(unsigned char *p, uint64_t x)
{
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(x >> 8 * i);
}

#endif
