/* tensor.c — the table of storage types, shapes, and conversion of any type to float. */
#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/kernels.h"

const struct dtype_info dtype_info[DT_COUNT] = {
    [DT_F32] = { "F32", 1, 4, true },   [DT_F16] = { "F16", 1, 2, true },   [DT_BF16] = { "BF16", 1, 2, true },
    [DT_F64] = { "F64", 1, 8, false },  [DT_I8] = { "I8", 1, 1, false },    [DT_U8] = { "U8", 1, 1, false },
    [DT_I16] = { "I16", 1, 2, false },  [DT_I32] = { "I32", 1, 4, false },  [DT_I64] = { "I64", 1, 8, false },
    [DT_BOOL] = { "BOOL", 1, 1, false }, [DT_F8_E4M3] = { "F8_E4M3", 1, 1, false },
};

enum dtype dtype_by_name(const char *name)
{
    enum dtype t = 0;
    while (t < DT_COUNT && strcmp(dtype_info[t].name, name)) t++;
    return t;
}

bool dtype_bytes(enum dtype t, uint64_t n, uint64_t *bytes)
{
    const uint64_t block = (uint64_t)dtype_info[t].block;
    return n % block == 0 && !__builtin_mul_overflow(n / block, (uint64_t)dtype_info[t].bytes, bytes);
}

int64_t tensor_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int32_t i = 0; i < t->n_dims; i++) n *= t->dim[i];
    return n;
}

const char *tensor_shape_text(const struct tensor *t, char text[96])
{
    size_t at = (size_t)snprintf(text, 96, "[");
    for (int32_t i = 0; i < t->n_dims; i++) /* four numbers of 20 characters at most */
        at += (size_t)snprintf(text + at, 96 - at, "%s%" PRId64, i ? ", " : "", t->dim[i]);
    snprintf(text + at, 96 - at, "]");
    return text;
}

/* Element i of src, read by its bytes: files align nothing. */
#define ELEMENT(type) ({                                                                                               \
    type element_;                                                                                                     \
    memcpy(&element_, (const char *)src + (size_t)i * sizeof element_, sizeof element_);                               \
    element_;                                                                                                          \
})

static float widen_one(const void *src, enum dtype t, int64_t i)
{
    switch (t) {
    case DT_F64: return (float)ELEMENT(double);
    case DT_I8: return (float)ELEMENT(int8_t);
    case DT_U8: return (float)ELEMENT(uint8_t);
    case DT_I16: return (float)ELEMENT(int16_t);
    case DT_I32: return (float)ELEMENT(int32_t);
    case DT_I64: return (float)ELEMENT(int64_t);
    case DT_BOOL: return ELEMENT(uint8_t) ? 1.0f : 0.0f;
    default: return f8_e4m3_to_f32(ELEMENT(uint8_t));
    }
}

void widen(float *dst, const void *src, enum dtype t, int64_t n)
{
    if (dtype_info[t].is_float) {
        kern->widen(dst, src, t, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) dst[i] = widen_one(src, t, i);
}

void narrow(void *dst, enum dtype t, const float *src, int64_t n) { kern->narrow(dst, t, src, n); }
