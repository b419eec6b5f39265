/* tensor.c — the table of storage types, shapes, and conversion of any type to float. */
#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/kernels.h"
#include "tensor/quant/quant.h"

const struct dtype_info dtype_info[DT_COUNT] = {
    [DT_F32] = { "F32", 1, 4, true, 0 },   [DT_F16] = { "F16", 1, 2, true, 0 },   [DT_BF16] = { "BF16", 1, 2, true, 0 },
    [DT_F64] = { "F64", 1, 8, false, 0 },  [DT_I8] = { "I8", 1, 1, false, 0 },    [DT_U8] = { "U8", 1, 1, false, 0 },
    [DT_I16] = { "I16", 1, 2, false, 0 },  [DT_I32] = { "I32", 1, 4, false, 0 },  [DT_I64] = { "I64", 1, 8, false, 0 },
    [DT_BOOL] = { "BOOL", 1, 1, false, 0 }, [DT_F8_E4M3] = { "F8_E4M3", 1, 1, false, 0 },
    [DT_F8_E5M2] = { "F8_E5M2", 1, 1, false, 0 }, [DT_F8_E8M0] = { "F8_E8M0", 1, 1, false, 0 },
    [DT_U16] = { "U16", 1, 2, false, 0 },         [DT_U32] = { "U32", 1, 4, false, 0 },
    [DT_U64] = { "U64", 1, 8, false, 0 },
    [DT_Q4_0] = { "Q4_0", 32, 18, false, 32 },        [DT_Q4_1] = { "Q4_1", 32, 20, false, 32 },
    [DT_Q5_0] = { "Q5_0", 32, 22, false, 32 },        [DT_Q5_1] = { "Q5_1", 32, 24, false, 32 },
    [DT_Q8_0] = { "Q8_0", 32, 34, false, 32 },        [DT_Q8_1] = { "Q8_1", 32, 36, false, 0 },
    [DT_Q2_K] = { "Q2_K", 256, 84, false, 256 },       [DT_Q3_K] = { "Q3_K", 256, 110, false, 256 },
    [DT_Q4_K] = { "Q4_K", 256, 144, false, 256 },      [DT_Q5_K] = { "Q5_K", 256, 176, false, 256 },
    [DT_Q6_K] = { "Q6_K", 256, 210, false, 256 },      [DT_Q8_K] = { "Q8_K", 256, 292, false, 0 },
    [DT_IQ1_S] = { "IQ1_S", 256, 50, false, 256 },     [DT_IQ1_M] = { "IQ1_M", 256, 56, false, 256 },
    [DT_IQ2_XXS] = { "IQ2_XXS", 256, 66, false, 256 }, [DT_IQ2_XS] = { "IQ2_XS", 256, 74, false, 256 },
    [DT_IQ2_S] = { "IQ2_S", 256, 82, false, 256 },     [DT_IQ3_XXS] = { "IQ3_XXS", 256, 98, false, 256 },
    [DT_IQ3_S] = { "IQ3_S", 256, 110, false, 256 },    [DT_IQ4_NL] = { "IQ4_NL", 32, 18, false, 32 },
    [DT_IQ4_XS] = { "IQ4_XS", 256, 136, false, 256 },  [DT_TQ1_0] = { "TQ1_0", 256, 54, false, 256 },
    [DT_TQ2_0] = { "TQ2_0", 256, 66, false, 256 },     [DT_MXFP4] = { "MXFP4", 32, 17, false, 32 },
    [DT_NVFP4] = { "NVFP4", 64, 36, false, 0 },      [DT_Q1_0] = { "Q1_0", 128, 18, false, 32 },
    [DT_Q2_0] = { "Q2_0", 64, 18, false, 32 },
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

bool shape_fits(const int64_t *dim, int32_t n_dims)
{
    int64_t product = 1;
    for (int32_t i = 0; i < n_dims; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(product, COE_MAX(dim[i], 1), &product)) return false;
    return true;
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
    case DT_U16: return (float)ELEMENT(uint16_t);
    case DT_U32: return (float)ELEMENT(uint32_t);
    case DT_U64: return (float)ELEMENT(uint64_t);
    case DT_F8_E5M2: return f16_to_f32((uint16_t)(ELEMENT(uint8_t) << 8)); /* the upper half of an F16 */
    case DT_F8_E8M0: return f8_e8m0_to_f32(ELEMENT(uint8_t));
    default: return f8_e4m3_to_f32(ELEMENT(uint8_t));
    }
}

void widen(float *dst, const void *src, enum dtype t, int64_t n)
{
    if (dtype_info[t].is_float) {
        kern->widen(dst, src, t, n);
        return;
    }
    if (dtype_info[t].block > 1) {
        dtype_decode_row(dst, src, t, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) dst[i] = widen_one(src, t, i);
}

void narrow(void *dst, enum dtype t, const float *src, int64_t n) { kern->narrow(dst, t, src, n); }
