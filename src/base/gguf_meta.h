/* gguf_meta.h — the key/value part at the head of a GGUF file (versions 2 and 3, little-endian), read in place.
 *
 *     struct gguf_meta m; struct gguf_value v; bool more;
 *     COE_TRY(gguf_meta_begin(&m, bytes, n, path));
 *     while (!(s = gguf_meta_next(&m, &v, &more)) && more) …
 * Behind the last key, m.at is where the tensor descriptions begin. */
#ifndef COE_GGUF_META_H
#define COE_GGUF_META_H

#include "base.h"

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
    GGUF_N_TYPES
};

struct gguf_text { /* not NUL-terminated, lies in the file */
    const char *at;
    size_t n;
};

struct gguf_value {
    struct gguf_text key;
    enum gguf_type type; /* of the elements when `array` */
    bool array;
    uint64_t count;                /* elements; 1 without array */
    const unsigned char *at, *end; /* the elements */
};

struct gguf_meta {
    const unsigned char *at, *end;
    const char *where;
    uint32_t version;
    uint64_t n_tensors, n_keys, done;
};

/* COE_E_INPUT for anything but such a file; `where` is borrowed. */
coe_status gguf_meta_begin(struct gguf_meta *m, const void *bytes, size_t n, const char *where);
coe_status gguf_meta_next(struct gguf_meta *m, struct gguf_value *out, bool *more);

bool gguf_key_is(const struct gguf_value *v, const char *key);
/* One number of any integer or boolean type; COE_E_INPUT otherwise or outside lo … hi. */
coe_status gguf_get_int(const struct gguf_value *v, const char *where, int64_t lo, int64_t hi, int64_t *out);
coe_status gguf_get_bool(const struct gguf_value *v, const char *where, bool *out);
coe_status gguf_get_float(const struct gguf_value *v, const char *where, double *out);
coe_status gguf_get_text(const struct gguf_value *v, const char *where, struct gguf_text *out);
/* The next string of an array of strings; *at starts as v->at. False behind the last. */
bool gguf_next_text(const struct gguf_value *v, const unsigned char **at, struct gguf_text *out);
/* Element i of an array of numbers, i < count. */
int64_t gguf_int_at(const struct gguf_value *v, uint64_t i);
double gguf_float_at(const struct gguf_value *v, uint64_t i);

#endif
