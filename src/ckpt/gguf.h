/* gguf.h — the metadata of a GGUF file: typed values under dotted names ("llama.block_count"), and writing such files.
 *
 * Values stay in the mapped file; only keys are copied. Reading order: gguf.h, gguf.c (reading), gguf_value.c (typed
 * access), gguf_write.c. A checkpoint's tensors are reached through ckpt.h under the names they have in the file, with
 * the shape reversed into row-major order: dim[n_dims - 1] is the row length, the file's first dimension. */
#ifndef COE_CKPT_GGUF_H
#define COE_CKPT_GGUF_H

#include "base/json.h"
#include "ckpt.h"

/* The numbers are the file's. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
};

struct gguf_value {
    enum gguf_type type;
    enum gguf_type item;     /* of an array's items; arrays of arrays are refused */
    uint64_t n;              /* items of an array, bytes of a string, 1 otherwise */
    const unsigned char *at; /* borrowed from the mapping: the first item, the string's first byte, the number */
    uint64_t bytes;          /* from `at` to the end of the value */
};
struct gguf_entry {
    const char *key;
    struct gguf_value value;
};
/* Entries in ascending order of key. */
struct gguf {
    const char *where; /* the file's name, for messages */
    struct gguf_entry *at;
    size_t n;
    uint32_t version;
    uint64_t alignment;
    struct arena names;
};

/* NULL when the checkpoint is not a GGUF file. Of a split model: the first file's. */
const struct gguf *ckpt_gguf(const struct ckpt *c);

/* NULL when there is none. */
const struct gguf_value *gguf_find(const struct gguf *g, const char *key);
/* As the getters of json.h: absent leaves *out as it is, a wrong type or range is COE_E_INPUT naming file and key. */
coe_status gguf_get_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out);
coe_status gguf_get_num(const struct gguf *g, const char *key, double *out);
coe_status gguf_get_bool(const struct gguf *g, const char *key, bool *out);
/* The bytes, not NUL-terminated and not checked to be UTF-8. */
coe_status gguf_get_str(const struct gguf *g, const char *key, const char **out, size_t *n);
/* Item i of an array of whole numbers or of numbers (or the value itself when it is no array and i is 0); the type was
 * checked by the caller with gguf_is_int or gguf_is_num. */
bool gguf_is_int(const struct gguf_value *v);
bool gguf_is_num(const struct gguf_value *v);
int64_t gguf_int_at(const struct gguf_value *v, uint64_t i);
double gguf_num_at(const struct gguf_value *v, uint64_t i);

/* The strings of an array one after the other:
 *     struct gguf_strings s = gguf_strings(v); const char *p; size_t n; while (gguf_next(&s, &p, &n)) … */
struct gguf_strings {
    const unsigned char *at;
    uint64_t left;
};
struct gguf_strings gguf_strings(const struct gguf_value *v);
bool gguf_next(struct gguf_strings *s, const char **text, size_t *n);

/* Everything as one JSON object, a new reference: arrays of more than max_items items are cut to that many; what JSON
 * cannot say (NaN, bytes that are not UTF-8) becomes null. NULL: out of memory. */
json_t *gguf_json(const struct gguf *g, size_t max_items);

/* Metadata being collected for a file to be written; out of memory is noticed by gguf_write. Free with gguf_out_free.
 */
struct gguf_out {
    struct str text;
    uint64_t n;
};
void gguf_add_u32(struct gguf_out *o, const char *key, uint32_t x);
void gguf_add_u64(struct gguf_out *o, const char *key, uint64_t x);
void gguf_add_f32(struct gguf_out *o, const char *key, float x);
void gguf_add_bool(struct gguf_out *o, const char *key, bool x);
void gguf_add_str(struct gguf_out *o, const char *key, const char *text, size_t n);
void gguf_add_strs(struct gguf_out *o, const char *key, const struct str *text, size_t n);
void gguf_add_i32s(struct gguf_out *o, const char *key, const int32_t *x, size_t n);
void gguf_add_f32s(struct gguf_out *o, const char *key, const float *x, size_t n);
/* A value of another file as it is. */
void gguf_add_value(struct gguf_out *o, const char *key, const struct gguf_value *v);
void gguf_out_free(struct gguf_out *o);

/* Version 3, tensors in the order given, each at a multiple of 32 bytes; streamed through a 1 MB buffer, written beside
 * the target and renamed. Shapes are row-major as everywhere (reversed in the file). COE_E_USAGE for a type GGUF does
 * not have or a row that is not whole blocks. */
coe_status gguf_write(const char *path, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n);

#endif
