/* bench_kernels.c — speed of the tensor kernels as shares of this core's FP32 peak, measured in the same run.
 *
 *   bench_kernels [dot|bf16|stream|outer|attn|train|gemm|vec]      COE_ISA and OMP_NUM_THREADS choose level and threads
 * Built by hand:  gcc -O2 -std=gnu11 -D_GNU_SOURCE -fopenmp -Isrc bench/kernels/bench_kernels.c build/libcoe.a … -lm
 * Each figure is the best of several repetitions over a working set that cycles through 16 weight matrices, as experts
 * do. */
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "nn/nn.h"
#include "tensor/gemm.h"

#define N_EXPERTS 16
#define REPEAT 7

static double now(void)
{
    struct timespec t;
    clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *fill(const char *tag, int64_t n)
{
    float *p = mem_alloc(tag, (size_t)n * sizeof *p);
    if (!p) return NULL;
    for (int64_t i = 0; i < n; i++) p[i] = rng_unitf(rng_at(1, rng_stream(RNG_TEST, 7), (uint64_t)i)) - 0.5f;
    return p;
}

/* GFLOP/s of independent fused multiply-adds in registers, as wide as the level. */
#define PEAK(name, target_, vector, ones, step)                                                                        \
    __attribute__((target(target_))) static double name(void)                                                          \
    {                                                                                                                  \
        vector acc[12], f = ones(0.999f);                                                                              \
        double best = 0;                                                                                               \
        for (int j = 0; j < 12; j++) acc[j] = ones((float)j);                                                          \
        for (int r = 0; r < 5; r++) {                                                                                  \
            double t = now();                                                                                      \
            for (int i = 0; i < 2000000; i++)                                                                          \
                _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) acc[j] = step(acc[j], f, f);                     \
            best = fmax(best, 2000000.0 * 12 * 2 * (sizeof f / 4) / (now() - t) / 1e9);                            \
        }                                                                                                              \
        float sink = 0;                                                                                                \
        for (int j = 0; j < 12; j++) sink += acc[j][0];                                                                \
        return sink == 1.0f ? 0 : best;                                                                                \
    }
PEAK(peak_avx512, "avx512f,fma", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
PEAK(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)

#define HALVES(x) ((__m512bh)_mm512_castps_si512(x))
#define STEP_BF16(acc, a, b) _mm512_dpbf16_ps((acc), HALVES(a), HALVES(b))
PEAK(half_peak_bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps, STEP_BF16) /* a step has twice the products */

static double peak(void)
{
    return strcmp(kern->name, "avx512") && strcmp(kern->name, "vnni") ? peak_avx2() : peak_avx512();
}

static double limit; /* GFLOP/s of one thread */

static void report(const char *what, const char *shape, double flops, double seconds, int threads)
{
    double rate = flops / seconds / 1e9;
    printf("%-10s %-34s %8.1f GFLOP/s  %3.0f %% of %.0f\n", what, shape, rate, 100 * rate / (limit * threads),
           limit * threads);
}

/* Best time of one call of fn(i), i counting over the experts. */
#define BEST(seconds, statement)                                                                                       \
    double seconds = 1e9;                                                                                              \
    for (int rep_ = 0; rep_ < REPEAT; rep_++) {                                                                        \
        double t_ = now();                                                                                         \
        for (int e = 0; e < N_EXPERTS; e++) { statement; }                                                             \
        seconds = fmin(seconds, (now() - t_) / N_EXPERTS);                                                         \
    }

struct shape {
    int m, n, k;
};
static const struct shape shapes[] = { { 1, 512, 512 },   { 2, 512, 512 },   { 4, 512, 512 },   { 16, 256, 256 },
                                       { 30, 256, 256 },  { 64, 256, 256 },  { 130, 256, 256 }, { 64, 512, 256 },
                                       { 64, 256, 512 },  { 64, 512, 512 },  { 64, 512, 1024 }, { 64, 1024, 2048 },
                                       { 256, 512, 512 }, { 256, 4096, 256 } };

static void dot_shapes(const float *x, const float *w, float *y)
{
    static const enum dtype types[] = { DT_F32, DT_BF16 };
    for (size_t t = 0; t < COE_COUNT(types); t++)
        for (size_t s = 0; s < COE_COUNT(shapes); s++) {
            const struct shape z = shapes[s];
            const int64_t step = (int64_t)z.n * z.k <= 1 << 20 ? (int64_t)z.n * z.k : 0;
            char text[64];
            BEST(sec, kern->dot_tile(y, z.n, x, z.k, NULL, z.m, w + e * step, types[t], z.k, z.n, z.k));
            snprintf(text, sizeof text, "%s %dx%d k=%d", dtype_info[types[t]].name, z.m, z.n, z.k);
            report("dot_tile", text, 2.0 * z.m * z.n * z.k, sec, 1);
        }
}

static void bf16_shapes(const uint16_t *x, const uint16_t *w, float *y)
{
    static const struct shape large[] = { { 16, 1024, 2048 }, { 16, 2048, 1024 }, { 64, 2048, 1024 } };
    const double fp32 = limit;
    if (strcmp(kern->bf16_unit, "fp32")) limit = 2 * half_peak_bf16();
    for (size_t s = 0; s < COE_COUNT(shapes) + COE_COUNT(large); s++) {
        const struct shape z = s < COE_COUNT(shapes) ? shapes[s] : large[s - COE_COUNT(shapes)];
        const int64_t step = (int64_t)z.n * z.k;
        char text[64];
        BEST(sec, kern->dot_bf16(y, z.n, x, z.k, NULL, z.m, w + e * step, z.k, z.n, z.k));
        snprintf(text, sizeof text, "%dx%d k=%d", z.m, z.n, z.k);
        report("dot_bf16", text, 2.0 * z.m * z.n * z.k, sec, 1);
    }
    limit = fp32;
}

__attribute__((target("avx512f"))) static long long read_all(const char *p, int64_t bytes)
{
    __m512i sum[8] = { _mm512_setzero_si512() };
    for (int64_t i = 0; i < bytes; i += 512)
        for (int j = 0; j < 8; j++) sum[j] = _mm512_add_epi64(sum[j], _mm512_load_si512(p + i + j * 64));
    for (int j = 1; j < 8; j++) sum[0] = _mm512_add_epi64(sum[0], sum[j]);
    return _mm512_reduce_add_epi64(sum[0]);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One row of x with `bytes` of weights that no cache holds, beside plain reading: medians of rounds in turn. */
static void stream(const float *x, const void *w, float *y, int64_t bytes)
{
    enum { ROUNDS = 11, KINDS = 4 };
    static const char *const name[KINDS] = { "read", "dot_tile F32", "dot_tile BF16", "dot_bf16" };
    static const int depth[] = { 512, 1024, 2048, 4096, 8192 };
    long long sink = 0;
    for (size_t d = 0; d < COE_COUNT(depth); d++) {
        const int64_t k = depth[d], n = bytes / 2 / k / 2; /* half of the memory, twice for F32 */
        double time[KINDS][ROUNDS];
        for (int r = 0; r < ROUNDS; r++)
            for (int i = 0; i < KINDS; i++) {
                const double t = now();
                if (i == 0) sink += read_all(w, n * k * 2);
                else if (i == 1) kern->dot_tile(y, n / 2, x, k, NULL, 1, w, DT_F32, k, n / 2, k);
                else if (i == 2) kern->dot_tile(y, n, x, k, NULL, 1, w, DT_BF16, k, n, k);
                else kern->dot_bf16(y, n, (const uint16_t *)(const void *)x, k, NULL, 1, w, k, n, k);
                time[i][r] = now() - t;
            }
        for (int i = 0; i < KINDS; i++) qsort(time[i], ROUNDS, sizeof time[i][0], by_size);
        for (int i = 0; i < KINDS; i++)
            printf("stream     %-14s k=%-5d %6.1f GB/s  %3.0f %% of read\n", name[i], depth[d],
                   (double)(n * k * 2) / time[i][ROUNDS / 2] / 1e9, 100 * time[0][ROUNDS / 2] / time[i][ROUNDS / 2]);
    }
    printf("%s", sink == 1 ? "\n" : "");
}

static void outer_shapes(const float *x, const float *w, float *y)
{
    for (size_t s = 0; s < COE_COUNT(shapes); s++) {
        const struct shape z = shapes[s];
        const int64_t step = (int64_t)z.n * z.k <= 1 << 20 ? (int64_t)z.n * z.k : 0;
        char text[64];
        BEST(sec, kern->outer_tile(&(struct outer_args){ y, z.n, x, z.k, 1, NULL, NULL, w + e * step, z.n, NULL, z.m,
                                                         z.n, z.k, false }));
        snprintf(text, sizeof text, "dX %dx%d k=%d", z.m, z.n, z.k);
        report("outer_tile", text, 2.0 * z.m * z.n * z.k, sec, 1);
    }
    for (size_t s = 0; s < COE_COUNT(shapes); s++) { /* dW of the same product: gradient [n, k], chain over m */
        const struct shape z = shapes[s];
        char text[64];
        BEST(sec, kern->outer_tile(
                      &(struct outer_args){ y, z.k, x, 1, z.n, NULL, NULL, w, z.k, NULL, z.n, z.k, z.m, true }));
        snprintf(text, sizeof text, "dW %dx%d k=%d", z.n, z.k, z.m);
        report("outer_tile", text, 2.0 * z.m * z.n * z.k, sec, 1);
    }
}

/* Attention of one layer over a cache of `context` positions, the last n of them asked for; the same 512 keys again and
 * again. Reports operations of what is visible and, of single tokens, bytes of the cache. */
static void attention_call(const struct attn_shape *s, int64_t context, int64_t n, float *x)
{
    const int64_t key = kv_key_bytes(s->kv, s->head_dim), value = kv_value_bytes(s->kv, s->head_dim_v), step = 512;
    struct kv_layer kv = { .capacity = context };
    struct arena arena = { 0 };
    struct nn c = { .arena = &arena };
    const int64_t pos = context - n, k_bytes = s->n_kv_heads * context / KEY_BLOCK * key,
                  v_bytes = s->n_kv_heads * context * value;
    const int32_t off[] = { 0, (int32_t)n };
    const struct attn_batch batch = { 1, off, &pos, NULL };
    char text[96];
    kv.k = mem_alloc("bench", (size_t)k_bytes);
    kv.v = mem_alloc("bench", (size_t)v_bytes);
    if (!kv.k || !kv.v) exit(4);
    for (int64_t t = 0; t < step; t++) {
        kv_store_key(kv.k, s->kv, t, x + t * s->head_dim, s->head_dim);
        kv_store_value(kv.v, s->kv, t, x + t * s->head_dim_v, s->head_dim_v);
    }
    for (int64_t at = step / KEY_BLOCK * key; at < k_bytes; at += step / KEY_BLOCK * key)
        memcpy((char *)kv.k + at, kv.k, (size_t)(step / KEY_BLOCK * key));
    for (int64_t at = step * value; at < v_bytes; at += step * value)
        memcpy((char *)kv.v + at, kv.v, (size_t)(step * value));
    BEST(sec, {
        if (e == 0) {
            const struct arena_mark mark = arena_save(&arena);
            struct val *q = nn_wrap(&c, x, n, s->n_heads * s->head_dim);
            struct val *k = nn_wrap(&c, x, n, s->n_kv_heads * s->head_dim);
            if (!nn_attention(&c, q, k, k, s, &batch, &kv)) exit(4);
            arena_rewind(&arena, mark);
        }
    });
    sec *= N_EXPERTS; /* BEST divides by calls */
    snprintf(text, sizeof text, "%s %dx%d/%d, %lld of %lld", dtype_info[s->kv].name, s->n_heads, s->head_dim,
             s->n_kv_heads, (long long)n, (long long)context);
    const double pairs = (double)n * (double)pos + 0.5 * (double)n * (double)(n + 1);
    report("attention", text, 4.0 * s->n_heads * s->head_dim * pairs, sec, omp_get_max_threads());
    if (n == 1) printf("%-10s %-34s %8.1f GB/s\n", "", "", (double)(k_bytes + v_bytes) / sec / 1e9);
    mem_free(kv.k);
    mem_free(kv.v);
    arena_free(&arena);
}

static void attention(float *x)
{
    static const enum dtype types[] = { DT_F32, DT_F16, DT_Q8_0 };
    static const int64_t contexts[] = { 512, 8192, 32768 };
    for (int kv_heads = 16; kv_heads >= 4; kv_heads /= 4)
        for (size_t t = 0; t < COE_COUNT(types); t++)
            for (size_t i = 0; i < COE_COUNT(contexts); i++)
                for (int64_t n = 1; n <= 96; n *= 96) {
                    const struct attn_shape s = { .n_heads = 16,
                                                  .n_kv_heads = kv_heads,
                                                  .head_dim = 128,
                                                  .head_dim_v = 128,
                                                  .scale = 0.1f,
                                                  .kv = types[t] };
                    attention_call(&s, contexts[i], n, x);
                }
}

/* Attention of a training step: rows of `length` tokens, whole sequences, forward and backward. Operations of what is
 * visible: two products forward, five backward. */
static void training_attention(const struct attn_shape *s, int64_t length, float *x)
{
    enum { SEQUENCES = 4 };
    struct arena arena = { 0 };
    int32_t off[SEQUENCES + 1];
    const int64_t n = SEQUENCES * length, pos0[SEQUENCES] = { 0 };
    for (int i = 0; i <= SEQUENCES; i++) off[i] = (int32_t)(i * length);
    const struct attn_batch batch = { SEQUENCES, off, pos0, NULL };
    double forward = 1e9, backward = 1e9;
    for (int r = 0; r < REPEAT; r++) {
        struct tape tape = { 0 };
        struct nn c = { .arena = &arena, .tape = &tape };
        struct val *q = nn_wrap(&c, x, n, s->n_heads * s->head_dim);
        struct val *k = nn_wrap(&c, x, n, s->n_kv_heads * s->head_dim);
        struct val *v = nn_wrap(&c, x, n, s->n_kv_heads * s->head_dim_v);
        const double began = now();
        struct val *y = nn_attention(&c, q, k, v, s, &batch, NULL);
        if (!y) exit(4);
        forward = fmin(forward, now() - began);
        if (!nn_grad(&c, q) || !nn_grad(&c, k) || !nn_grad(&c, v) || !nn_grad(&c, y)) exit(4);
        memcpy(y->grad, x, (size_t)(y->rows * y->cols) * sizeof *x);
        const double then = now();
        if (nn_backward(&c)) exit(4);
        backward = fmin(backward, now() - then);
        arena_rewind(&arena, (struct arena_mark){ 0 });
    }
    char text[96];
    const double pairs = SEQUENCES * 0.5 * (double)length * (double)(length + 1) * s->n_heads;
    snprintf(text, sizeof text, "%dx%d,%d/%d, %d of %lld", s->n_heads, s->head_dim, s->head_dim_v, s->n_kv_heads,
             SEQUENCES, (long long)length);
    report("attention", text, 2.0 * pairs * (s->head_dim + s->head_dim_v), forward, omp_get_max_threads());
    report(" backward", text, 2.0 * pairs * (3 * s->head_dim + 2 * s->head_dim_v), backward, omp_get_max_threads());
    arena_free(&arena);
}

static void training(float *x)
{
    static const struct attn_shape shapes[] = { { .n_heads = 4, .n_kv_heads = 4, .head_dim = 64, .head_dim_v = 64 },
                                                { .n_heads = 8, .n_kv_heads = 4, .head_dim = 32, .head_dim_v = 32 },
                                                { .n_heads = 8, .n_kv_heads = 4, .head_dim = 32, .head_dim_v = 16 },
                                                { .n_heads = 8, .n_kv_heads = 8, .head_dim = 16, .head_dim_v = 16 },
                                                { .n_heads = 1, .n_kv_heads = 1, .head_dim = 256, .head_dim_v = 16 } };
    for (size_t i = 0; i < COE_COUNT(shapes); i++)
        for (int64_t length = 256; length <= 512; length *= 2) {
            struct attn_shape s = shapes[i];
            s.scale = 1.0f;
            training_attention(&s, length, x);
        }
}

/* One expert layer: 16 experts, uneven loads of 64 on average, forward, dX and dW. */
static void grouped(float *x, float *w, float *y)
{
    static const int dims[][2] = { { 256, 256 }, { 256, 512 }, { 512, 256 }, { 512, 512 }, { 1024, 2048 } };
    int32_t off[N_EXPERTS + 1] = { 0 }, rows[N_EXPERTS * 128];
    for (int e = 0; e < N_EXPERTS; e++) off[e + 1] = off[e] + 34 + e * 4;
    const int total = off[N_EXPERTS], threads = omp_get_max_threads();
    for (int i = 0; i < total; i++) rows[i] = i * 37 % total;
    for (size_t s = 0; s < COE_COUNT(dims); s++) {
        const int k = dims[s][0], n = dims[s][1];
        struct weight weight[N_EXPERTS];
        const struct weight *list[N_EXPERTS];
        for (int e = 0; e < N_EXPERTS; e++) {
            float *at = w + (int64_t)e * n * k;
            weight[e] = (struct weight){ .name = "w", .type = DT_F32, .rows = n, .cols = k, .data = at, .master = at,
                                          .grad = at };
            list[e] = &weight[e];
        }
        const struct groups g = { N_EXPERTS, off };
        const double flops = 2.0 * total * n * k / N_EXPERTS;
        char text[64];
        snprintf(text, sizeof text, "%d rows, %dx%d, %d threads", total, k, n, threads);
        BEST(forward, if (e == 0) gemm_grouped_xwt(y, n, x, k, NULL, rows, g, list));
        report("grouped", text, flops, forward, threads);
        BEST(dx, if (e == 0) gemm_grouped_dx(y, k, x, n, NULL, g, list, false));
        report("grouped dX", text, flops, dx, threads);
        BEST(dw, if (e == 0) gemm_grouped_dw(list, x, n, rows, y, k, NULL, g));
        report("grouped dW", text, flops, dw, threads);
    }
}

static void rows(float *x, float *w, float *y)
{
    const int n = 4096;
    const struct adamw_args adam = { 1e-3f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 0.5f, 1.0f };
    float lse, sum = 0;
#define ROW(name, statement)                                                                                           \
    do {                                                                                                               \
        BEST(sec, for (int r_ = 0; r_ < 20; r_++) statement);                                                          \
        printf("%-16s %6.2f ns per element\n", name, sec / 20 / n * 1e9);                                              \
    } while (0)
    ROW("silu", kern->act(ACT_SILU, y, x, w, n));
    ROW("silu back", kern->act_back(ACT_SILU, y, y + n, y + 2 * n, x, w, w + n, n));
    ROW("gelu", kern->act(ACT_GELU, y, x, w, n));
    ROW("gelu back", kern->act_back(ACT_GELU, y, y + n, NULL, x, w, w + n, n));
    ROW("gelu_tanh", kern->act(ACT_GELU_TANH, y, x, w, n));
    ROW("rmsnorm", kern->rmsnorm(y, x, w, 0, n, 1e-5f));
    ROW("rmsnorm back", kern->rmsnorm_back(y, y + n, x, x + n, w, 0, 1.0f, n));
    ROW("xent", sum += kern->xent(x, n, 5, &lse));
    ROW("xent back", kern->xent_back(y, x, n, 5, lse, 1.0f, 0.0f));
    ROW("adamw", kern->adamw(y, y + n, y + 2 * n, x, n, &adam));
    ROW("sumsq", sum += (float)kern->sumsq(x, n));
    ROW("fma_row", kern->fma_row(y, 0.5f, x, n));
    ROW("rope", kern->rope(y, x, w, n / 2, false, false));
    printf("%s", sum == 1.0f ? "\n" : "");
}

int main(int argc, char **argv)
{
    if (kernels_init()) {
        fprintf(stderr, "%s\n", coe_error());
        return 2;
    }
    const char *only = argc > 1 ? argv[1] : "";
    const int64_t size = 34 << 20;
    float *x = fill("bench", size / 4), *w = fill("bench", size), *y = fill("bench", size / 4);
    if (!x || !w || !y) return 4;
    limit = peak();
    printf("level %s, one thread's limit %.1f GFLOP/s\n", kern->name, limit);
    if (!*only || !strcmp(only, "dot")) dot_shapes(x, w, y);
    if (!*only || !strcmp(only, "bf16"))
        bf16_shapes((const uint16_t *)(const void *)x, (const uint16_t *)(const void *)w, y);
    if (!*only || !strcmp(only, "stream")) stream(x, w, y, size * (int64_t)sizeof *w);
    if (!*only || !strcmp(only, "outer")) outer_shapes(x, w, y);
    if (!*only || !strcmp(only, "attn")) attention(x);
    if (!*only || !strcmp(only, "train")) training(x);
    if (!*only || !strcmp(only, "gemm")) grouped(x, w, y);
    if (!*only || !strcmp(only, "vec")) rows(x, w, y);
    return 0;
}
