/* kv.c — writing and reading single keys and values of a cache; the layouts are in kv.h. */
#include "tensor/kv.h"

#include <string.h>

#include "tensor/half.h"
#include "tensor/quant/quant.h"

struct block {
    uint16_t scale;
    int8_t code[KV_GROUP];
};

/* Values from + 0 … of a row as one block, zeros behind its end. */
static struct block encode(const float *row, int64_t from, int64_t n)
{
    float x[KV_GROUP] = { 0 };
    struct block b;
    memcpy(x, row + from, (size_t)COE_MIN(n - from, (int64_t)KV_GROUP) * sizeof *x);
    dtype_encode_row(&b, DT_Q8_0, x, KV_GROUP, NULL);
    return b;
}

static void store_key_q8(char *to, int64_t lane, const float *key, int64_t n)
{
    for (int64_t i = 0; i < n; i += KV_GROUP) {
        const struct block b = encode(key, i, n);
        const int64_t rows = COE_MIN(n - i, (int64_t)KV_GROUP);
        memcpy(to + 2 * lane, &b.scale, 2);
        for (int64_t j = 0; j < rows; j++) to[2 * KEY_BLOCK + j * KEY_BLOCK + lane] = (char)b.code[j];
        to += 2 * KEY_BLOCK + rows * KEY_BLOCK;
    }
}

void kv_store_key(void *blocks, enum dtype t, int64_t position, const float *key, int64_t head_dim)
{
    char *to = (char *)blocks + position / KEY_BLOCK * kv_key_bytes(t, head_dim);
    const int64_t lane = position % KEY_BLOCK;
    assert(kv_type_known(t));
    if (t == DT_Q8_0)
        store_key_q8(to, lane, key, head_dim);
    else if (t == DT_F16)
        for (int64_t i = 0; i < head_dim; i++) ((uint16_t *)(void *)to)[i * KEY_BLOCK + lane] = f32_to_f16(key[i]);
    else
        for (int64_t i = 0; i < head_dim; i++) ((float *)(void *)to)[i * KEY_BLOCK + lane] = key[i];
}

void kv_store_value(void *rows, enum dtype t, int64_t position, const float *value, int64_t head_dim_v)
{
    char *to = (char *)rows + position * kv_value_bytes(t, head_dim_v);
    assert(kv_type_known(t));
    if (t != DT_Q8_0) {
        narrow(to, t, value, head_dim_v);
        return;
    }
    for (int64_t i = 0; i < head_dim_v; i += KV_GROUP, to += sizeof(struct block)) {
        const struct block b = encode(value, i, head_dim_v);
        memcpy(to, &b, sizeof b);
    }
}

static void load_key_q8(float *key, const char *from, int64_t lane, int64_t n)
{
    for (int64_t i = 0; i < n; i += KV_GROUP) {
        const int64_t rows = COE_MIN(n - i, (int64_t)KV_GROUP);
        uint16_t scale;
        memcpy(&scale, from + 2 * lane, 2);
        for (int64_t j = 0; j < rows; j++)
            key[i + j] = f16_to_f32(scale) * (float)(int8_t)from[2 * KEY_BLOCK + j * KEY_BLOCK + lane];
        from += 2 * KEY_BLOCK + rows * KEY_BLOCK;
    }
}

void kv_load_key(float *key, const void *blocks, enum dtype t, int64_t position, int64_t head_dim)
{
    const char *from = (const char *)blocks + position / KEY_BLOCK * kv_key_bytes(t, head_dim);
    const int64_t lane = position % KEY_BLOCK;
    if (t == DT_Q8_0) load_key_q8(key, from, lane, head_dim);
    for (int64_t i = 0; t == DT_F16 && i < head_dim; i++)
        key[i] = f16_to_f32(((const uint16_t *)(const void *)from)[i * KEY_BLOCK + lane]);
    for (int64_t i = 0; t == DT_F32 && i < head_dim; i++)
        key[i] = ((const float *)(const void *)from)[i * KEY_BLOCK + lane];
}

void kv_load_value(float *value, const void *rows, enum dtype t, int64_t position, int64_t head_dim_v)
{
    const char *from = (const char *)rows + position * kv_value_bytes(t, head_dim_v);
    if (t != DT_Q8_0) {
        widen(value, from, t, head_dim_v);
        return;
    }
    for (int64_t i = 0; i < head_dim_v; i += KV_GROUP, from += sizeof(struct block)) {
        float x[KV_GROUP];
        widen(x, from, DT_Q8_0, KV_GROUP);
        memcpy(value + i, x, (size_t)COE_MIN(head_dim_v - i, (int64_t)KV_GROUP) * sizeof *x);
    }
}
