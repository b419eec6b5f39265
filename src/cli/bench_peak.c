/* bench_peak.c — arithmetic peaks: independent chains in registers, as wide as the CPU has them. What is measured is
 * the machine, whatever level of kernels runs on it. */
#include "cli/bench.h"

#define CHAINS 12 /* four cycles of latency, two units: eight would do, twelve leave room */
#define STEPS 2000000

typedef double peak_loop(void); /* operations done */
struct peak {
    const char *name;
    peak_loop *loop;
};

static volatile float float_sink;
static volatile int int_sink;

/* Says that a value may have changed: no product of constants leaves the loop. */
#define FRESH(x) __asm__ volatile("" : "+x"(x))

#define FOR_CHAINS(j) _Pragma("GCC unroll 12") for (int j = 0; j < CHAINS; j++)

#if defined(__x86_64__)
#include <immintrin.h>

#define FMA_LOOP(name, isa, vector, set1, fmadd)                                                                       \
    __attribute__((target(isa))) static double name(void)                                                             \
    {                                                                                                                  \
        vector acc[CHAINS], f = set1(0.999f);                                                                          \
        FOR_CHAINS(j) acc[j] = set1((float)j);                                                                         \
        for (int i = 0; i < STEPS; i++) FOR_CHAINS(j) acc[j] = fmadd(acc[j], f, f);                                    \
        float sum = 0;                                                                                                 \
        FOR_CHAINS(j) sum += acc[j][0];                                                                                \
        float_sink = sum;                                                                                              \
        return (double)STEPS * CHAINS * 2 * (sizeof f / sizeof(float));                                                \
    }
FMA_LOOP(fma_512, "avx512f,fma", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
FMA_LOOP(fma_256, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)

/* Sums of four products of bytes. `step` computes acc from itself, a and b. */
#define INT8_LOOP(name, isa, vector, set1, zero, step)                                                                 \
    __attribute__((target(isa))) static double name(void)                                                             \
    {                                                                                                                  \
        vector acc[CHAINS], a = set1(3), b = set1(1);                                                                  \
        FOR_CHAINS(j) acc[j] = zero();                                                                                 \
        for (int i = 0; i < STEPS; i++)                                                                                \
            FOR_CHAINS(j)                                                                                              \
            {                                                                                                          \
                FRESH(a);                                                                                              \
                acc[j] = step(acc[j], a, b);                                                                           \
            }                                                                                                          \
        int sum = 0;                                                                                                   \
        FOR_CHAINS(j) sum += (int)acc[j][0];                                                                           \
        int_sink = sum;                                                                                                \
        return (double)STEPS * CHAINS * 2 * sizeof a;                                                                  \
    }
#define OLD_512(acc, a, b)                                                                                             \
    _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)))
#define OLD_256(acc, a, b)                                                                                             \
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
INT8_LOOP(vnni_512, "avx512f,avx512vnni", __m512i, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_dpbusd_epi32)
INT8_LOOP(vnni_256, "avx2,avxvnni", __m256i, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_dpbusd_avx_epi32)
INT8_LOOP(maddubs_512, "avx512f,avx512bw", __m512i, _mm512_set1_epi8, _mm512_setzero_si512, OLD_512)
INT8_LOOP(maddubs_256, "avx2", __m256i, _mm256_set1_epi8, _mm256_setzero_si256, OLD_256)

__attribute__((target("avx512f,avx512bf16"))) static double dpbf16_512(void)
{
    __m512 acc[CHAINS], one = _mm512_set1_ps(1);
    const __m512bh a = _mm512_cvtne2ps_pbh(one, one);
    FOR_CHAINS(j) acc[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < STEPS; i++)
        FOR_CHAINS(j)
        {
            acc[j] = _mm512_dpbf16_ps(acc[j], a, a);
            FRESH(acc[j]);
        }
    float sum = 0;
    FOR_CHAINS(j) sum += acc[j][0];
    float_sink = sum;
    return (double)STEPS * CHAINS * 2 * 32;
}
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static double fma_neon(void)
{
    float32x4_t acc[CHAINS], f = vdupq_n_f32(0.999f);
    FOR_CHAINS(j) acc[j] = vdupq_n_f32((float)j);
    for (int i = 0; i < STEPS; i++) FOR_CHAINS(j) acc[j] = vfmaq_f32(f, acc[j], f);
    float sum = 0;
    FOR_CHAINS(j) sum += vgetq_lane_f32(acc[j], 0);
    float_sink = sum;
    return (double)STEPS * CHAINS * 2 * 4;
}
#endif

/* Vectors of sixteen bytes, a product and a sum: what every machine has. */
static double fma_plain(void)
{
    typedef float vector __attribute__((vector_size(16)));
    vector acc[CHAINS];
    const vector f = { 0.999f, 0.999f, 0.999f, 0.999f };
    FOR_CHAINS(j) acc[j] = f * (float)j;
    for (int i = 0; i < STEPS; i++) FOR_CHAINS(j) acc[j] = acc[j] * f + f;
    float sum = 0;
    FOR_CHAINS(j) sum += acc[j][0];
    float_sink = sum;
    return (double)STEPS * CHAINS * 2 * 4;
}

static double int_plain(void)
{
    typedef int16_t vector __attribute__((vector_size(16)));
    vector acc[CHAINS];
    const vector f = { 3, 5, 7, 9, 11, 13, 15, 17 };
    FOR_CHAINS(j) acc[j] = f * (int16_t)(j + 1);
    for (int i = 0; i < STEPS; i++) FOR_CHAINS(j) acc[j] = acc[j] * f + f;
    int sum = 0;
    FOR_CHAINS(j) sum += acc[j][0];
    int_sink = sum;
    return (double)STEPS * CHAINS * 2 * 8;
}

static struct peak find(enum limit l)
{
#if defined(__x86_64__)
    const bool wide = __builtin_cpu_supports("avx512f");
    if (l == LIMIT_FP32 && wide) return (struct peak){ "fma, 512 bits", fma_512 };
    if (l == LIMIT_FP32 && __builtin_cpu_supports("fma")) return (struct peak){ "fma, 256 bits", fma_256 };
    if (l == LIMIT_INT8 && wide && __builtin_cpu_supports("avx512vnni"))
        return (struct peak){ "vpdpbusd, 512 bits", vnni_512 };
    if (l == LIMIT_INT8 && wide && __builtin_cpu_supports("avx512bw"))
        return (struct peak){ "vpmaddubsw, 512 bits", maddubs_512 };
    if (l == LIMIT_INT8 && __builtin_cpu_supports("avxvnni")) return (struct peak){ "vpdpbusd, 256 bits", vnni_256 };
    if (l == LIMIT_INT8 && __builtin_cpu_supports("avx2")) return (struct peak){ "vpmaddubsw, 256 bits", maddubs_256 };
    if (l == LIMIT_BF16 && wide && __builtin_cpu_supports("avx512bf16"))
        return (struct peak){ "vdpbf16ps, 512 bits", dpbf16_512 };
#endif
#if defined(__aarch64__)
    if (l == LIMIT_FP32) return (struct peak){ "fmla, 128 bits", fma_neon };
#endif
    if (l == LIMIT_FP32) return (struct peak){ "product and sum, 128 bits", fma_plain };
    if (l == LIMIT_INT8) return (struct peak){ "16-bit product and sum, 128 bits", int_plain };
    return (struct peak){ NULL, NULL };
}

const char *peak_name(enum limit l) { return find(l).name; }

double peak_rate(enum limit l, int threads)
{
    peak_loop *loop = find(l).loop;
    if (!loop) return 0;
    double ops = 0;
    const double start = coe_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : ops)
    for (int i = 0; i < threads; i++) ops += loop();
    return ops / (coe_now() - start) / 1e9;
}
