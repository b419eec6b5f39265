/* bench_limits.c — see bench.h. The loops are as plain as the limit allows: independent chains, as wide as the
 * registers of the kernels in use. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/kernels.h"

#define READ_BYTES ((size_t)512 << 20)
#define FMA_STEPS 4000000
#define CHAINS 12 /* four cycles of latency, two units: eight would do, twelve leave room */

void rates_add(struct rates *r, double rate)
{
    if (r->n < BENCH_RUNS) r->at[r->n++] = rate;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rates_median(struct rates *r)
{
    if (!r->n) return 0;
    qsort(r->at, (size_t)r->n, sizeof r->at[0], by_value);
    return r->n % 2 ? r->at[r->n / 2] : (r->at[r->n / 2 - 1] + r->at[r->n / 2]) / 2;
}

double rates_best(struct rates *r)
{
    (void)rates_median(r); /* sorts */
    return r->n ? r->at[r->n - 1] : 0;
}

json_t *rates_json(struct rates *r)
{
    const double median = rates_median(r);
    return json_pack("{s:f, s:f, s:f}", "median", median, "min", r->at[0], "max", r->n ? r->at[r->n - 1] : 0.0);
}

const char *rates_text(struct rates *r, char text[64])
{
    const double median = rates_median(r);
    snprintf(text, 64, "%.1f (%.1f to %.1f)", median, r->at[0], r->n ? r->at[r->n - 1] : 0.0);
    return text;
}

/* ---- reading ---- */

/* Sums 64-bit words in sixteen chains; GCC makes vectors of them at any level. */
static uint64_t sum_words(const uint64_t *p, size_t n)
{
    uint64_t s[16] = { 0 }, sum = 0;
    for (size_t i = 0; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) s[k] += p[i + (size_t)k];
    for (int k = 0; k < 16; k++) sum += s[k];
    return sum;
}

static volatile uint64_t read_sink;
static volatile float fma_sink;

static double read_once(const uint64_t *p, int threads)
{
    const size_t words = READ_BYTES / sizeof *p, part = words / (size_t)threads / 16 * 16;
    uint64_t sum = 0;
    const double start = coe_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int i = 0; i < threads; i++) sum += sum_words(p + part * (size_t)i, part);
    read_sink = sum;
    return (double)(part * sizeof *p * (size_t)threads) / (coe_now() - start) / 1e9;
}

/* ---- arithmetic ---- */

typedef double fma_loop(void); /* floating-point operations done */

#if defined(__x86_64__)
#include <immintrin.h>
#define FMA_LOOP(name, isa, vector, set1, fmadd)                                                                       \
    __attribute__((target(isa))) static double name(void)                                                             \
    {                                                                                                                  \
        vector acc[CHAINS], f = set1(0.999f);                                                                          \
        for (int j = 0; j < CHAINS; j++) acc[j] = set1((float)j);                                                      \
        for (int i = 0; i < FMA_STEPS; i++)                                                                            \
            _Pragma("GCC unroll 12") for (int j = 0; j < CHAINS; j++) acc[j] = fmadd(acc[j], f, f);                    \
        float sink = 0;                                                                                                \
        for (int j = 0; j < CHAINS; j++) sink += acc[j][0];                                                            \
        fma_sink = sink;                                                                                               \
        return (double)FMA_STEPS * CHAINS * 2 * (sizeof f / sizeof(float));                                            \
    }
FMA_LOOP(fma_avx512, "avx512f,fma", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
FMA_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)
#endif

/* A product and a sum in four-wide vectors: what a build without wider registers has. */
static double fma_portable(void)
{
    typedef float vector __attribute__((vector_size(16)));
    vector acc[CHAINS];
    const vector f = { 0.999f, 0.999f, 0.999f, 0.999f };
    for (int j = 0; j < CHAINS; j++) acc[j] = f * (float)j;
    for (int i = 0; i < FMA_STEPS; i++)
        for (int j = 0; j < CHAINS; j++) acc[j] = acc[j] * f + f;
    float sink = 0;
    for (int j = 0; j < CHAINS; j++) sink += acc[j][0];
    fma_sink = sink;
    return (double)FMA_STEPS * CHAINS * 2 * 4;
}

static fma_loop *fma_of_level(void)
{
#if defined(__x86_64__)
    if (!strcmp(kern->name, "avx2")) return fma_avx2;
    if (strcmp(kern->name, "portable")) return fma_avx512;
#endif
    return fma_portable;
}

static double fma_once(int threads)
{
    fma_loop *loop = fma_of_level();
    double flops = 0;
    const double start = coe_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : flops)
    for (int i = 0; i < threads; i++) flops += loop();
    return flops / (coe_now() - start) / 1e9;
}

/* ---- both ---- */

coe_status limits_measure(struct limits *l, int runs)
{
    *l = (struct limits){ .threads = coe_threads() };
    COE_TRY(kernels_init());
    uint64_t *p = mem_alloc("bench", READ_BYTES);
    if (!p) return COE_E_NOMEM;
    memset(p, 1, READ_BYTES);
    for (int i = 0; i < runs && !coe_interrupted(); i++) {
        rates_add(&l->read1, read_once(p, 1));
        rates_add(&l->read, read_once(p, l->threads));
        rates_add(&l->fma1, fma_once(1));
        rates_add(&l->fma, fma_once(l->threads));
    }
    mem_free(p);
    return coe_interrupted() ? coe_fail(COE_E_FAILED, "interrupted") : COE_OK;
}

void limits_print(struct limits *l)
{
    char one[64], all[64], head[32];
    snprintf(head, sizeof head, "%d thread%s", l->threads, l->threads == 1 ? "" : "s");
    printf("%-30s %-26s %s\n", "limits of this machine", "1 thread", head);
    printf("  %-28s %-26s %s\n", "memory read, GB/s", rates_text(&l->read1, one), rates_text(&l->read, all));
    printf("  FP32 multiply-add, %-7s   %-26s %s\n", kern->name, rates_text(&l->fma1, one), rates_text(&l->fma, all));
}

json_t *limits_json(struct limits *l)
{
    return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o}", "threads", l->threads, "isa", kern->name, "read_gbs_1",
                     rates_json(&l->read1), "read_gbs", rates_json(&l->read), "fp32_gflops_1", rates_json(&l->fma1),
                     "fp32_gflops", rates_json(&l->fma));
}
