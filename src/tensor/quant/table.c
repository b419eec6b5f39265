/* table.c — one row a block type. To add a type: its row in dtype_info (tensor.c), its row here, its functions. */
#include "block.h"

static const struct {
    uint32_t ggml_id; /* the type's number in GGUF files, plus one; 0: it has none */
    decode_block_fn *decode;
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
    [DT_Q4_0] = { 2 + 1, decode_q4_0, encode_q4_0 },
    [DT_Q4_1] = { 3 + 1, decode_q4_1, encode_q4_1 },
    [DT_Q5_0] = { 6 + 1, decode_q5_0, encode_q5_0 },
    [DT_Q5_1] = { 7 + 1, decode_q5_1, encode_q5_1 },
    [DT_Q8_0] = { 8 + 1, decode_q8_0, encode_q8_0 },
    [DT_Q8_1] = { 9 + 1, decode_q8_1, NULL },
    [DT_Q2_K] = { 10 + 1, decode_q2_k, encode_q2_k },
    [DT_Q3_K] = { 11 + 1, decode_q3_k, encode_q3_k },
    [DT_Q4_K] = { 12 + 1, decode_q4_k, encode_q4_k },
    [DT_Q5_K] = { 13 + 1, decode_q5_k, encode_q5_k },
    [DT_Q6_K] = { 14 + 1, decode_q6_k, encode_q6_k },
    [DT_Q8_K] = { 15 + 1, decode_q8_k, NULL },
    [DT_IQ2_XXS] = { 16 + 1, decode_iq2_xxs, NULL },
    [DT_IQ2_XS] = { 17 + 1, decode_iq2_xs, NULL },
    [DT_IQ3_XXS] = { 18 + 1, decode_iq3_xxs, NULL },
    [DT_IQ1_S] = { 19 + 1, decode_iq1_s, NULL },
    [DT_IQ4_NL] = { 20 + 1, decode_iq4_nl, encode_iq4_nl },
    [DT_IQ3_S] = { 21 + 1, decode_iq3_s, NULL },
    [DT_IQ2_S] = { 22 + 1, decode_iq2_s, NULL },
    [DT_IQ4_XS] = { 23 + 1, decode_iq4_xs, encode_iq4_xs },
    [DT_IQ1_M] = { 29 + 1, decode_iq1_m, NULL },
    [DT_TQ1_0] = { 34 + 1, decode_tq1_0, encode_tq1_0 },
    [DT_TQ2_0] = { 35 + 1, decode_tq2_0, encode_tq2_0 },
    [DT_MXFP4] = { 39 + 1, decode_mxfp4, encode_mxfp4 },
    [DT_NVFP4] = { 40 + 1, decode_nvfp4, encode_nvfp4 },
    [DT_Q1_0] = { 41 + 1, decode_q1_0, encode_q1_0 },
    [DT_Q2_0] = { 42 + 1, decode_q2_0, encode_q2_0 },
};

enum dtype dtype_of_ggml(uint32_t id)
{
    enum dtype t = 0;
    while (t < DT_COUNT && rows[t].ggml_id != id + 1) t++;
    return id == UINT32_MAX ? DT_COUNT : t;
}

int32_t dtype_ggml_id(enum dtype t) { return (int32_t)rows[t].ggml_id - 1; }

void dtype_decode_row(float *dst, const void *src, enum dtype t, int64_t n)
{
    if (!rows[t].decode) {
        widen(dst, src, t, n);
        return;
    }
    const int64_t block = dtype_info[t].block;
    assert(n % block == 0);
    const uint8_t *b = src;
    for (int64_t i = 0; i < n; i += block, b += dtype_info[t].bytes) rows[t].decode(dst + i, b);
}

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
