/* digest.h — a number for every kernel of a level: its outputs on fixed inputs of many sizes, hashed. Levels that
 * cannot run in one process, because they belong to different machines, are compared by these numbers. Needs nothing
 * but src/base and src/tensor, so that it is easily compiled for a foreign machine. */
#ifndef COE_TESTS_TENSOR_DIGEST_H
#define COE_TESTS_TENSOR_DIGEST_H

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/gemm.h"
#include "tensor/half.h"
#include "tensor/quant/panel.h"

#define DIGEST_ROOM 8192 /* floats of an operand */
#define DIGEST_MOST 64   /* kernels */

struct digest {
    const char *name;
    uint64_t hash;
};
/* Operands x, w, g with some numbers at the ends of the range among them, and outputs y, z. */
struct digest_data {
    float x[DIGEST_ROOM], w[DIGEST_ROOM], g[DIGEST_ROOM], y[DIGEST_ROOM], z[DIGEST_ROOM];
    uint16_t half[DIGEST_ROOM];
    uint64_t hash; /* of the kernel at work */
};

static inline void digest_bits(struct digest_data *d, uint64_t bits) { d->hash = rng_mix(d->hash ^ bits) + bits; }
/* Machines differ in the payload of a NaN: all count as one. */
static inline void digest_float(struct digest_data *d, float f)
{
    digest_bits(d, f != f ? 0x7FC00000u : bits_of_float(f));
}
static inline void digest_floats(struct digest_data *d, const float *f, int64_t n)
{
    for (int64_t i = 0; i < n; i++) digest_float(d, f[i]);
}
static inline void digest_double(struct digest_data *d, double f)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    digest_bits(d, f != f ? UINT64_C(0x7FF8000000000000) : bits);
}

static inline void digest_fill(struct digest_data *d)
{
    static const float ends[] = { 0.0f,       -0.0f,     INFINITY,      -INFINITY,     NAN,    0x1p-149f, -0x1p-130f,
                                  0x1p-126f,  0x1p127f,  -0x1.8p127f,   88.7228f,      -88.8f, 65520.0f,  65519.0f,
                                  -0x1p-25f,  0x1.4p-14f, 0x1.010100p0f, -0x1.018000p5f, 13.6f,  -0.625f,   0x1p-24f };
    float *const all[] = { d->x, d->w, d->g };
    for (size_t a = 0; a < COE_COUNT(all); a++)
        for (uint64_t i = 0; i < DIGEST_ROOM; i++)
            all[a][i] = 6.0f * rng_unitf(rng_at(a, rng_stream(RNG_TEST, 9), i)) - 3.0f;
    /* the last part of every operand; products read what lies before it */
    for (size_t a = 0; a < COE_COUNT(all); a++)
        for (size_t i = 0; i < COE_COUNT(ends); i++) all[a][DIGEST_ROOM - 64 + (i * (a + 1)) % 61] = ends[i];
}

/* Runs `call` for lengths n and operands x, w, g: ordinary numbers, then the ends of the range. */
#define DIGEST_ROWS(call)                                                                                      \
    do {                                                                                                       \
        static const int64_t lengths[] = { 0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 61, 100 };                    \
        for (size_t i_ = 0; i_ < COE_COUNT(lengths); i_++)                                                     \
            for (int from_ = 0; from_ < 2; from_++) {                                                          \
                const int64_t n = from_ ? COE_MIN(lengths[i_], 61) : lengths[i_];                              \
                const int64_t at_ = from_ ? DIGEST_ROOM - 64 : 1;                                              \
                const float *const x = d->x + at_, *const w = d->w + at_, *const g = d->g + at_;               \
                float *const y = d->y + 3, *const z = d->z + 5;                                                \
                (void)x, (void)w, (void)g, (void)y, (void)z, (void)n;                                          \
                call;                                                                                          \
            }                                                                                                  \
    } while (0)
#define DIGEST_Y(call) DIGEST_ROWS((call, digest_floats(d, y, n)))
#define DIGEST_YZ(call) DIGEST_ROWS((call, digest_floats(d, y, n), digest_floats(d, z, n)))

static inline void digest_dot_tile(const struct kernels *k, struct digest_data *d)
{
    static const int32_t rows[] = { 4, 0, 4, 7, 2, 6, 1, 3, 5, 2, 2, 0, 1 };
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    for (size_t t = 0; t < COE_COUNT(types); t++)
        for (int64_t m = 1; m <= 13; m += 3)
            for (int64_t depth = 0; depth <= 115; depth += 23) {
                const void *w = d->w;
                if (types[t] != DT_F32) k->narrow(d->half, types[t], d->w, 2000), w = d->half;
                k->dot_tile(d->y, 11, d->x, 117, m > 4 ? rows : NULL, m, w, types[t], 119, 11, depth);
                digest_floats(d, d->y, m * 11);
            }
    k->dot_tile(d->y, 3, d->x + DIGEST_ROOM - 64, 20, NULL, 3, d->w + DIGEST_ROOM - 64, DT_F32, 20, 3, 20);
    digest_floats(d, d->y, 9);
}

static inline void digest_dot_bf16(const struct kernels *k, struct digest_data *d)
{
    uint16_t *const w = d->half + 4096;
    k->narrow(d->half, DT_BF16, d->x, 4096);
    k->narrow(w, DT_BF16, d->w, 4096);
    for (int64_t m = 1; m <= 13; m += 3)
        for (int64_t depth = 0; depth <= 115; depth += 23) {
            k->dot_bf16(d->y, 11, d->half, 117, NULL, m, w, 119, 11, depth);
            digest_floats(d, d->y, m * 11);
        }
}

static inline void digest_outer_tile(const struct kernels *k, struct digest_data *d)
{
    static const int32_t rows[] = { 4, 0, 4, 7, 2, 6, 1, 3, 5, 2, 2, 0, 1, 8, 9 };
    for (int64_t m = 1; m <= 15; m += 7)
        for (int64_t n = 1; n <= 85; n += 28)
            for (int64_t depth = 0; depth <= 300; depth += 100) {
                const bool gathered = depth == 100 && n == 29;
                k->outer_tile(&(struct outer_args){ .c = d->y, .ldc = 85, .a = d->x, .a_m = depth > 100 ? 1 : 103,
                                                    .a_k = depth > 100 ? 21 : 1, .mi = gathered ? rows : NULL,
                                                    .b = d->w, .ldb = depth > 100 ? 25 : n, .m = m,
                                                    .n = depth > 100 ? COE_MIN(n, 25) : n, .k = depth,
                                                    .accumulate = n == 57 });
                digest_floats(d, d->y, 15 * 85);
            }
}

enum { ATTN_TOKENS = 7, ATTN_HEADS = 2, ATTN_QUERIES = ATTN_TOKENS * ATTN_HEADS, ATTN_KEYS = 80, ATTN_DIM = 20,
       ATTN_DIM_V = 24 };

/* One call, joined with itself as if it were of the part behind. */
static inline void digest_attn_call(const struct kernels *k, struct digest_data *d, const struct attn_args *a)
{
    static const int64_t none[ATTN_TOKENS], all[ATTN_TOKENS] = { 1 + ATTN_PART, 1 + ATTN_PART, 1 + ATTN_PART, 0,
                                                                 1 + ATTN_PART, 1 + ATTN_PART, 1 + ATTN_PART };
    float max[2][ATTN_QUERIES], sum[2][ATTN_QUERIES * 16];
    const struct attn_rows rows = { d->y, ATTN_HEADS * ATTN_DIM_V + 1, max[0], sum[0] },
                           part = { d->y + 1000, ATTN_HEADS * ATTN_DIM_V, max[1], sum[1] };
    struct attn_args later = *a;
    later.lo = none, later.hi = all;
    k->attn(a, 0, &rows);
    digest_floats(d, d->y, ATTN_QUERIES * ATTN_DIM_V);
    k->attn(a, 0, &part);
    k->attn_join(&later, &rows, &part, ATTN_PART);
    k->attn_end(a, &rows);
    digest_floats(d, d->y, ATTN_QUERIES * ATTN_DIM_V);
    digest_floats(d, a->max, ATTN_QUERIES);
    digest_floats(d, a->total, ATTN_QUERIES);
}

static inline void digest_attn(const struct kernels *k, struct digest_data *d)
{
    static const enum dtype types[] = { DT_F32, DT_F16, DT_Q8_0 };
    int64_t lo[ATTN_TOKENS], hi[ATTN_TOKENS];
    float max[ATTN_QUERIES], total[ATTN_QUERIES], scratch[ATTN_BLOCK * (ATTN_DIM + ATTN_DIM_V)];
    for (int t = 0; t < ATTN_TOKENS; t++) {
        lo[t] = t % 4 == 3 ? 17 + t : 0;
        hi[t] = t == 3 ? lo[t] : ATTN_KEYS - ATTN_TOKENS + t;
    }
    for (int variant = 0; variant < 4 * (int)COE_COUNT(types); variant++) {
        const struct attn_args a = { .q = d->x, .ld_q = ATTN_HEADS * ATTN_DIM, .k = d->z, .v = d->half,
                                     .type = types[variant / 4], .lo = lo, .hi = hi, .n_tokens = ATTN_TOKENS,
                                     .heads = ATTN_HEADS, .head_dim = ATTN_DIM, .head_dim_v = ATTN_DIM_V,
                                     .scale = 0.2f, .cap = variant % 4 == 1 ? 5.0f : 0.0f,
                                     .sink = variant % 4 == 2 ? d->g : NULL, .max = max, .total = total,
                                     .ld_stat = ATTN_TOKENS, .scratch = variant % 4 == 3 ? scratch : NULL };
        for (int64_t p = 0; p < ATTN_KEYS; p++) {
            kv_store_key(d->z, a.type, p, d->w + p * ATTN_DIM, ATTN_DIM);
            kv_store_value(d->half, a.type, p, d->g + p * ATTN_DIM_V, ATTN_DIM_V);
        }
        digest_attn_call(k, d, &a);
    }
}

static inline void digest_attn_back(const struct kernels *k, struct digest_data *d)
{
    static float scratch[2 * ATTN_BLOCK * ATTN_BLOCK];
    enum { ROWS = 20, KEYS = 30, BLOCKS = (KEYS + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK };
    int64_t lo[ROWS], hi[ROWS];
    float v_blocks[BLOCKS * ATTN_DIM_V] = { 0 };
    for (int t = 0; t < ROWS; t++) lo[t] = t / 2, hi[t] = COE_MIN(t + 12, KEYS);
    for (int64_t p = 0; p < KEYS; p++) {
        kv_store_key(d->z, DT_F32, p, d->w + p * ATTN_DIM, ATTN_DIM);
        kv_store_key(v_blocks, DT_F32, p, d->g + p * ATTN_DIM_V, ATTN_DIM_V);
    }
    for (int variant = 0; variant < 2; variant++) {
        const struct attn_back_args a = { .q = d->x, .go = d->g + 1000, .k = d->w, .k_blocks = d->z,
                                          .v_blocks = v_blocks, .dq = d->y, .dk = d->y + 1000, .dv = d->y + 2000,
                                          .ld_q = ATTN_DIM, .ld_go = ATTN_DIM_V, .ld_k = ATTN_DIM,
                                          .ld_v = ATTN_DIM_V, .lo = lo, .hi = hi, .max = d->x + 2000,
                                          .total = d->x + 2100, .delta = d->x + 2200, .n = ROWS, .n_keys = KEYS,
                                          .head_dim = ATTN_DIM, .head_dim_v = ATTN_DIM_V, .scale = 0.1f,
                                          .cap = variant ? 5.0f : 0.0f, .scratch = scratch };
        for (int t = 0; t < ROWS; t++) d->x[2000 + t] = 10; /* above every score */
        k->attn_back(&a);
        digest_floats(d, d->y, 3000);
    }
}

static inline void digest_act(const struct kernels *k, struct digest_data *d)
{
    for (int a = 0; a < ACT_COUNT; a++) {
        DIGEST_Y(k->act(a, y, x, w, n));
        DIGEST_Y(k->act(a, y, x, NULL, n));
    }
}
static inline void digest_act_back(const struct kernels *k, struct digest_data *d)
{
    for (int a = 0; a < ACT_COUNT; a++) {
        DIGEST_YZ(k->act_back(a, y, z, NULL, x, w, g, n));
        DIGEST_YZ(k->act_back(a, y, NULL, z, x, NULL, g, n));
    }
}

static inline void digest_halves(const struct kernels *k, struct digest_data *d, bool widen_too)
{
    for (enum dtype t = DT_F16; t <= DT_BF16; t++)
        DIGEST_ROWS({
            k->narrow(d->half + 1, t, x, n);
            if (widen_too) k->widen(y, d->half + 1, t, n);
            for (int64_t i = 0; i < n; i++)
                if (widen_too)
                    digest_float(d, y[i]);
                else
                    digest_bits(d, x[i] != x[i] ? 1 : d->half[1 + i]);
        });
}

static inline void digest_adamw(const struct kernels *k, struct digest_data *d)
{
    const struct adamw_args a = { 1e-3f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 0.25f, 0.7f };
    float *const v = d->z + 4096;
    for (int64_t i = 0; i < 100; i++) d->y[3 + i] = d->w[i], d->z[5 + i] = d->x[i], v[i] = d->w[i] * d->w[i];
    DIGEST_YZ((k->adamw(y, z, v, g, n, &a), digest_floats(d, v, n)));
}

static inline void digest_rope(const struct kernels *k, struct digest_data *d)
{
    for (int variant = 0; variant < 4; variant++)
        DIGEST_Y((memcpy(y, x, (size_t)n * sizeof *y), k->rope(y, w, g, n / 2, variant & 1, variant & 2)));
}

static inline void digest_norms(const struct kernels *k, struct digest_data *d, bool back)
{
    float stats[2], *const dw = d->z + 4096, *const db = d->z + 5120;
    if (!back) {
        DIGEST_Y(digest_float(d, k->rmsnorm(y, x, w, 1.0f, n, 1e-5f)));
        DIGEST_Y(digest_float(d, k->rmsnorm(y, x, NULL, 0.0f, n, 1e-5f)));
        DIGEST_Y((k->layernorm(y, x, w, g, n, 1e-5f, stats), digest_floats(d, stats, 2)));
        return;
    }
    DIGEST_YZ(k->rmsnorm_back(y, z, g, x, w, 1.0f, 0.75f, n));
    stats[0] = 0.125f, stats[1] = 0.75f;
    DIGEST_YZ((k->layernorm_back(y, dw, db, g, x, w, stats, n), digest_floats(d, dw, n), digest_floats(d, db, n)));
}

static inline void digest_xent(const struct kernels *k, struct digest_data *d)
{
    float lse;
    DIGEST_ROWS(if (n > 0) {
        digest_float(d, k->xent(x, n, n / 2, &lse));
        digest_float(d, lse);
        k->xent_back(y, x, n, n / 2, lse, 0.5f, 1e-3f);
        digest_floats(d, y, n);
    });
}

static inline void digest_scalars(const struct kernels *k, struct digest_data *d)
{
    for (int64_t i = DIGEST_ROOM - 500; i < DIGEST_ROOM; i++) {
        digest_float(d, k->exp1(d->x[i]));
        digest_float(d, k->log1(d->x[i]));
        digest_float(d, k->tanh1(d->x[i]));
        digest_float(d, k->sigmoid1(d->x[i]));
    }
}

/* What is computed without the table, by compiled C alone. */
static inline void digest_tables(struct digest_data *d)
{
    for (int64_t i = 0; i < 500; i++) {
        float s, c;
        fm_sincos((double)d->x[i] * 1e4, &s, &c);
        digest_float(d, s);
        digest_float(d, c);
        digest_double(d, fm_pow(10000.0, (double)d->x[i]));
    }
}

static inline void digest_quantise(const struct kernels *k, struct digest_data *d)
{
    static int8_t q[512];
    static int16_t sum[32];
    for (int32_t block = 32; block <= 256; block += 224) {
        k->quantise(q, d->y, sum, d->x, 512, block);
        digest_floats(d, d->y, 512 / block);
        for (int i = 0; i < 512; i++) digest_float(d, q[i]);
        for (int i = 0; i < 32; i++) digest_float(d, sum[i]);
    }
}

/* Random bytes as weights: many scales are no numbers, and yet all levels agree. */
static inline void digest_q_product(const struct kernels *k, struct digest_data *d)
{
    static _Alignas(64) uint8_t memory[4096];
    enum { TOKENS = 7, ROWS = PANEL_ROWS + 3 };
    for (size_t i = 0; i < COE_COUNT(d->half); i++) d->half[i] = (uint16_t)rng_at(5, rng_stream(RNG_TEST, 9), i);
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!dtype_info[t].x_block) continue;
        struct codes c;
        const int64_t cols = dtype_info[t].block == 32 ? 288 : 256;
        codes_make(&c, memory, d->x, cols, TOKENS, cols, dtype_info[t].x_block);
        const struct weight w = { .type = t, .rows = ROWS, .cols = cols, .data = d->half, .panels = panel_type(t) };
        for (int64_t m = 1; m <= TOKENS; m += 3) {
            k->q_product(d->y, ROWS, &c, NULL, 0, m, &w, 0, ROWS, NULL);
            digest_floats(d, d->y, m * ROWS);
        }
    }
}

static inline void digest_q_pack(const struct kernels *k, struct digest_data *d)
{
    static _Alignas(64) uint8_t panel[sizeof d->half];
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!panel_type(t)) continue;
        const int64_t n_blocks = dtype_info[t].block == 32 ? 3 : 1;
        const size_t row_bytes = (size_t)n_blocks * dtype_info[t].bytes;
        k->q_pack(panel, (const uint8_t *)d->half, row_bytes, t, n_blocks, NULL);
        for (size_t i = 0; i < PANEL_ROWS * row_bytes; i++) digest_float(d, panel[i]);
    }
}

/* Fills out[] and returns how many kernels there are; of `d` everything is overwritten. */
static inline int digest_kernels(const struct kernels *k, struct digest_data *d, struct digest out[DIGEST_MOST])
{
    int count = 0;
    digest_fill(d);
#define DIGEST(kernel, ...)                                      \
    do {                                                         \
        d->hash = 0;                                             \
        memset(d->y, 0, sizeof d->y);                            \
        memset(d->z, 0, sizeof d->z);                            \
        __VA_ARGS__;                                             \
        out[count++] = (struct digest){ kernel, d->hash };       \
    } while (0)
    DIGEST("dot_tile", digest_dot_tile(k, d));
    DIGEST(!strcmp(k->bf16_unit, "fp32") ? "dot_bf16 bf16_unit" : "dot_bf16 natively", digest_dot_bf16(k, d));
    DIGEST("outer_tile", digest_outer_tile(k, d));
    DIGEST("dot", DIGEST_ROWS(digest_float(d, k->dot(x, w, n))));
    DIGEST("narrow", digest_halves(k, d, false));
    DIGEST("widen", digest_halves(k, d, true));
    DIGEST("add", DIGEST_Y(k->add(y, x, n)));
    DIGEST("sum", DIGEST_Y(k->sum(y, x, w, n)));
    DIGEST("scale", DIGEST_Y(k->scale(y, x, 0.7f, n)));
    DIGEST("mul", DIGEST_Y(k->mul(y, x, w, n)));
    DIGEST("fma_row", DIGEST_Y(k->fma_row(y, 0.7f, x, n)));
    DIGEST("exp", DIGEST_Y(k->exp(y, x, 0.3f, n)));
    DIGEST("sigmoid", DIGEST_Y(k->sigmoid(y, x, n)));
    DIGEST("tanh", DIGEST_Y(k->tanh(y, x, n)));
    DIGEST("exp1 log1 tanh1 sigmoid1", digest_scalars(k, d));
    DIGEST("act", digest_act(k, d));
    DIGEST("act_back", digest_act_back(k, d));
    DIGEST("act_clamp", DIGEST_Y(k->act_clamp(1.5f, y, x, w, n)));
    DIGEST("act_clamp_back", DIGEST_YZ(k->act_clamp_back(1.5f, y, z, NULL, x, w, g, n)));
    DIGEST("rmsnorm layernorm", digest_norms(k, d, false));
    DIGEST("rmsnorm_back layernorm_back", digest_norms(k, d, true));
    DIGEST("rope", digest_rope(k, d));
    DIGEST("xent xent_back", digest_xent(k, d));
    DIGEST("attn attn_join attn_end", digest_attn(k, d));
    DIGEST("attn_back", digest_attn_back(k, d));
    DIGEST("adamw", digest_adamw(k, d));
    DIGEST("sumsq", DIGEST_ROWS(digest_double(d, k->sumsq(x, n))));
    DIGEST("quantise", digest_quantise(k, d));
    DIGEST("q_product", digest_q_product(k, d));
    DIGEST("q_pack", digest_q_pack(k, d));
    DIGEST("sincos pow", digest_tables(d));
    return count;
}

#endif
