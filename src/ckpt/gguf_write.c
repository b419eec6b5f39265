/* gguf_write.c — writes GGUF version 3. See gguf.c for the layout. */
#include <string.h>

#include "gguf.h"
#include "reader.h"
#include "tensor/quant/quant.h"

static void add_u32(struct str *s, uint32_t x)
{
    char p[4] = { (char)x, (char)(x >> 8), (char)(x >> 16), (char)(x >> 24) };
    str_add(s, p, sizeof p);
}

static void add_u64(struct str *s, uint64_t x)
{
    add_u32(s, (uint32_t)x);
    add_u32(s, (uint32_t)(x >> 32));
}

static void add_text(struct str *s, const char *text, size_t n)
{
    add_u64(s, n);
    str_add(s, text, n);
}

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void begin(struct gguf_out *o, const char *key, enum gguf_type type)
{
    add_text(&o->text, key, strlen(key));
    add_u32(&o->text, type);
    o->n++;
}

static void begin_array(struct gguf_out *o, const char *key, enum gguf_type item, uint64_t n)
{
    begin(o, key, GGUF_ARRAY);
    add_u32(&o->text, item);
    add_u64(&o->text, n);
}

void gguf_add_u16(struct gguf_out *o, const char *key, uint16_t x)
{
    begin(o, key, GGUF_U16);
    str_addc(&o->text, (char)x);
    str_addc(&o->text, (char)(x >> 8));
}

void gguf_add_i32(struct gguf_out *o, const char *key, int32_t x)
{
    begin(o, key, GGUF_I32);
    add_u32(&o->text, (uint32_t)x);
}

void gguf_add_u32(struct gguf_out *o, const char *key, uint32_t x)
{
    begin(o, key, GGUF_U32);
    add_u32(&o->text, x);
}

void gguf_add_u64(struct gguf_out *o, const char *key, uint64_t x)
{
    begin(o, key, GGUF_U64);
    add_u64(&o->text, x);
}

void gguf_add_f32(struct gguf_out *o, const char *key, float x)
{
    begin(o, key, GGUF_F32);
    add_u32(&o->text, float_bits(x));
}

void gguf_add_bool(struct gguf_out *o, const char *key, bool x)
{
    begin(o, key, GGUF_BOOL);
    str_addc(&o->text, (char)x);
}

void gguf_add_str(struct gguf_out *o, const char *key, const char *text, size_t n)
{
    begin(o, key, GGUF_STRING);
    add_text(&o->text, text, n);
}

void gguf_add_bytes(struct gguf_out *o, const char *key, const char *bytes, size_t n)
{
    begin_array(o, key, GGUF_U8, n);
    str_add(&o->text, bytes, n);
}

void gguf_add_strs(struct gguf_out *o, const char *key, const struct str *text, size_t n)
{
    begin_array(o, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) add_text(&o->text, text[i].at ? text[i].at : "", text[i].n);
}

void gguf_add_i32s(struct gguf_out *o, const char *key, const int32_t *x, size_t n)
{
    begin_array(o, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++) add_u32(&o->text, (uint32_t)x[i]);
}

void gguf_add_bools(struct gguf_out *o, const char *key, const int32_t *x, size_t n)
{
    begin_array(o, key, GGUF_BOOL, n);
    for (size_t i = 0; i < n; i++) str_addc(&o->text, x[i] != 0);
}

void gguf_add_f32s(struct gguf_out *o, const char *key, const float *x, size_t n)
{
    begin_array(o, key, GGUF_F32, n);
    for (size_t i = 0; i < n; i++) add_u32(&o->text, float_bits(x[i]));
}

void gguf_add_value(struct gguf_out *o, const struct gguf_value *v)
{
    add_text(&o->text, v->key.at, v->key.n);
    add_u32(&o->text, v->array ? GGUF_ARRAY : v->type);
    if (v->array) add_u32(&o->text, v->type);
    if (v->array) add_u64(&o->text, v->count);
    str_add(&o->text, (const char *)v->at, (size_t)(v->end - v->at));
    o->n++;
}

void gguf_out_free(struct gguf_out *o)
{
    str_free(&o->text);
    o->n = 0;
}

uint64_t gguf_padding(uint64_t at) { return (GGUF_ALIGNMENT - at % GGUF_ALIGNMENT) % GGUF_ALIGNMENT; }

static coe_status add_tensor(struct str *s, const struct tensor *t, uint64_t offset, const char *path)
{
    const int32_t id = dtype_ggml_id(t->type), block = dtype_info[t->type].block;
    if (id < 0)
        return coe_fail(COE_E_USAGE, "%s: tensor %s: GGUF has no type for %s", path, t->name, dtype_info[t->type].name);
    char text[96];
    if (block > 1 && (!t->n_dims || t->dim[t->n_dims - 1] % block))
        return coe_fail(COE_E_USAGE, "%s: tensor %s is %s: %s needs rows of a multiple of %d", path, t->name,
                        tensor_shape_text(t, text), dtype_info[t->type].name, block);
    add_text(s, t->name, strlen(t->name));
    add_u32(s, (uint32_t)t->n_dims);
    for (int32_t i = t->n_dims - 1; i >= 0; i--) add_u64(s, (uint64_t)t->dim[i]);
    add_u32(s, (uint32_t)id);
    add_u64(s, offset);
    return COE_OK;
}

coe_status gguf_header(struct str *s, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n,
                       const char *path)
{
    COE_TRY(str_check(&metadata->text));
    str_add(s, "GGUF\x03\0\0\0", 8);
    add_u64(s, n);
    add_u64(s, metadata->n);
    str_add(s, metadata->text.at, metadata->text.n);
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        COE_TRY(add_tensor(s, &items[i].t, offset, path));
        offset += tensor_bytes(&items[i].t);
        offset += gguf_padding(offset);
    }
    while (gguf_padding(s->n) && !s->oom) str_addc(s, 0);
    return str_check(s);
}

coe_status gguf_put_tensor(struct file_out *f, const struct ckpt_item *item, void *buffer)
{
    static const char zeros[GGUF_ALIGNMENT] = { 0 };
    COE_TRY(ckpt_put_tensor(f, item, buffer));
    return file_put(f, zeros, (size_t)gguf_padding(f->bytes)); /* the data begin aligned, so the file's count serves */
}

coe_status gguf_write(const char *path, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n)
{
    struct str header = { 0 };
    struct file_out f = { 0 };
    void *buffer = mem_alloc("writing", CKPT_BUFFER);
    coe_status s = buffer ? gguf_header(&header, metadata, items, n, path) : COE_E_NOMEM;
    if (!s) s = file_begin(&f, path);
    if (s) goto out;
    s = file_put(&f, header.at, header.n);
    for (size_t i = 0; i < n && !s; i++) s = gguf_put_tensor(&f, &items[i], buffer);
    if (s) file_abort(&f);
    else s = file_commit(&f);
out:
    str_free(&header);
    mem_free(buffer);
    return s;
}
