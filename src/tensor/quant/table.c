/* table.c — one row a block type. To add a type: its row in dtype_info (tensor.c), its row here, its functions. */
#include "block.h"

static const struct {
    uint32_t ggml_id; /* the type's number in GGUF files, plus one; 0: it has none */
    unpack_block_fn *unpack;
    encode_row_fn *encode;
} rows[DT_COUNT] = {
#define PLAIN(name, id) [DT_##name] = { (id) + 1, NULL, NULL }
    PLAIN(F32, 0),
    PLAIN(F16, 1),
    PLAIN(I8, 24),
    PLAIN(I16, 25),
    PLAIN(I32, 26),
    PLAIN(I64, 27),
    PLAIN(F64, 28),
    PLAIN(BF16, 30),
#undef PLAIN
    [DT_Q4_0] = { 2 + 1, unpack_q4_0, encode_q4_0 },
    [DT_Q4_1] = { 3 + 1, unpack_q4_1, encode_q4_1 },
    [DT_Q5_0] = { 6 + 1, unpack_q5_0, encode_q5_0 },
    [DT_Q5_1] = { 7 + 1, unpack_q5_1, encode_q5_1 },
    [DT_Q8_0] = { 8 + 1, unpack_q8_0, encode_q8_0 },
    [DT_Q8_1] = { 9 + 1, unpack_q8_1, NULL },
    [DT_Q2_K] = { 10 + 1, unpack_q2_k, encode_q2_k },
    [DT_Q3_K] = { 11 + 1, unpack_q3_k, encode_q3_k },
    [DT_Q4_K] = { 12 + 1, unpack_q4_k, encode_q4_k },
    [DT_Q5_K] = { 13 + 1, unpack_q5_k, encode_q5_k },
    [DT_Q6_K] = { 14 + 1, unpack_q6_k, encode_q6_k },
    [DT_Q8_K] = { 15 + 1, unpack_q8_k, NULL },
    [DT_IQ2_XXS] = { 16 + 1, unpack_iq2_xxs, NULL },
    [DT_IQ2_XS] = { 17 + 1, unpack_iq2_xs, NULL },
    [DT_IQ3_XXS] = { 18 + 1, unpack_iq3_xxs, NULL },
    [DT_IQ1_S] = { 19 + 1, unpack_iq1_s, NULL },
    [DT_IQ4_NL] = { 20 + 1, unpack_iq4_nl, encode_iq4_nl },
    [DT_IQ3_S] = { 21 + 1, unpack_iq3_s, NULL },
    [DT_IQ2_S] = { 22 + 1, unpack_iq2_s, NULL },
    [DT_IQ4_XS] = { 23 + 1, unpack_iq4_xs, encode_iq4_xs },
    [DT_IQ1_M] = { 29 + 1, unpack_iq1_m, NULL },
    [DT_TQ1_0] = { 34 + 1, unpack_tq1_0, encode_tq1_0 },
    [DT_TQ2_0] = { 35 + 1, unpack_tq2_0, encode_tq2_0 },
    [DT_MXFP4] = { 39 + 1, unpack_mxfp4, encode_mxfp4 },
    [DT_NVFP4] = { 40 + 1, NULL, encode_nvfp4 },
    [DT_Q1_0] = { 41 + 1, unpack_q1_0, encode_q1_0 },
    [DT_Q2_0] = { 42 + 1, unpack_q2_0, encode_q2_0 },
};

enum dtype dtype_of_ggml(uint32_t id)
{
    enum dtype t = 0;
    while (t < DT_COUNT && rows[t].ggml_id != id + 1) t++;
    return id == UINT32_MAX ? DT_COUNT : t;
}

int32_t dtype_ggml_id(enum dtype t) { return (int32_t)rows[t].ggml_id - 1; }

static void multiply_out(float *y, const uint8_t *b, enum dtype t)
{
    struct quant_block u;
    rows[t].unpack(&u, b);
    for (int s = 0; s < dtype_info[t].block / 16; s++) {
        const float scale = u.d * (float)u.scale[s], min = u.dmin * (float)u.min[s];
        for (int i = 16 * s; i < 16 * s + 16; i++) y[i] = scale * (float)u.code[i] - min;
    }
}

void dtype_decode_row(float *dst, const void *src, enum dtype t, int64_t n)
{
    const int64_t block = dtype_info[t].block;
    if (block == 1) {
        widen(dst, src, t, n);
        return;
    }
    assert(n % block == 0);
    const uint8_t *b = src;
    for (int64_t i = 0; i < n; i += block, b += dtype_info[t].bytes) {
        if (rows[t].unpack) multiply_out(dst + i, b, t);
        else decode_nvfp4(dst + i, b);
    }
}

unpack_block_fn *quant_unpacker(enum dtype t) { return rows[t].unpack; }

bool dtype_can_encode(enum dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16 || rows[t].encode; }

void dtype_encode_row(void *dst, enum dtype t, const float *src, int64_t n, const float *importance)
{
    assert(dtype_can_encode(t) && n % dtype_info[t].block == 0);
    if (rows[t].encode) rows[t].encode(dst, src, n, importance);
    else narrow(dst, t, src, n);
}

void fp8_decode_rows(float *dst, const void *src, const float *scale, int64_t first_row, int64_t n_rows, int64_t cols,
                     int64_t block_rows, int64_t block_cols)
{
    const uint8_t *b = src;
    const int64_t scale_cols = (cols + block_cols - 1) / block_cols;
    for (int64_t r = 0; r < n_rows; r++) {
        const float *s = scale + (first_row + r) / block_rows * scale_cols;
        for (int64_t c = 0; c < cols; c++) dst[r * cols + c] = f8_e4m3_to_f32(b[r * cols + c]) * s[c / block_cols];
    }
}
