/* bench_q.c — speed of the products of quantised weights: of many rows as shares of this core's int8 peak, of one row
 * as shares of the speed at which memory is read, both measured in the same run.
 *
 *   bench_q [TYPE …]      COE_ISA chooses the level; one thread; with M1 in the environment one row of x only
 * Built by hand:  gcc -O2 -std=gnu11 -D_GNU_SOURCE -fopenmp -Isrc bench/kernels/bench_q.c build/libcoe.a … -lm
 * Each figure is the best of several rounds over weights that are together larger than the last-level cache. */
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/gemm.h"
#include "tensor/quant/panel.h"

#define BYTES (192ll << 20) /* of weights: six times the last-level cache of the machines we know */
#define ROUNDS 5

/* GOP/s of vpdpbusd on registers: what no kernel can pass */
__attribute__((target("avx512f,avx512vnni"))) static double int8_peak(void)
{
    double best = 0;
    for (int r = 0; r < ROUNDS; r++) {
        const double t = coe_now();
        for (int i = 0; i < 1000000; i++)
            __asm__ volatile("vpdpbusd %%zmm0, %%zmm0, %%zmm1\n vpdpbusd %%zmm0, %%zmm0, %%zmm2\n"
                             "vpdpbusd %%zmm0, %%zmm0, %%zmm3\n vpdpbusd %%zmm0, %%zmm0, %%zmm4\n"
                             "vpdpbusd %%zmm0, %%zmm0, %%zmm5\n vpdpbusd %%zmm0, %%zmm0, %%zmm6\n"
                             "vpdpbusd %%zmm0, %%zmm0, %%zmm7\n vpdpbusd %%zmm0, %%zmm0, %%zmm8\n"
                             "vpdpbusd %%zmm0, %%zmm0, %%zmm9\n vpdpbusd %%zmm0, %%zmm0, %%zmm10\n"
                             "vpdpbusd %%zmm0, %%zmm0, %%zmm11\n vpdpbusd %%zmm0, %%zmm0, %%zmm12"
                             :
                             :
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                               "xmm11", "xmm12");
        best = fmax(best, 12e6 * 128 / (coe_now() - t) / 1e9);
    }
    return best;
}

/* GB/s at which one thread reads memory; the best distance of software requests counts, too */
__attribute__((target("avx512f"))) static double memory_speed(const uint8_t *p)
{
    double best = 0;
    for (int r = 0; r < ROUNDS; r++) {
        const double t = coe_now();
        __m512i sum = _mm512_setzero_si512();
        for (int64_t i = 0; i < BYTES; i += 256) {
            if (r & 1)
                for (int line = 0; line < 4; line++) __builtin_prefetch(p + i + 4096 + 64 * line);
            for (int line = 0; line < 4; line++) sum = _mm512_or_si512(sum, _mm512_loadu_si512(p + i + 64 * line));
        }
        __asm__ volatile("" : : "v"(sum));
        best = fmax(best, (double)BYTES / (coe_now() - t) / 1e9);
    }
    return best;
}

static double peak, memory;
static uint8_t *weights;

static void shape(enum dtype t, int64_t m, int64_t n, int64_t k, bool panels)
{
    static float y[512 * 2048];
    const int64_t bytes = n * k / dtype_info[t].block * dtype_info[t].bytes, count = BYTES / bytes;
    struct codes c;
    float *x = mem_alloc("bench", (size_t)(m * k) * sizeof *x);
    void *room = mem_alloc("bench", codes_bytes(m, k, dtype_info[t].x_block));
    if (!x || !room) return;
    for (int64_t i = 0; i < m * k; i++) x[i] = rng_unitf(rng_at(1, 7, (uint64_t)i)) - 0.5f;
    codes_make(&c, room, x, k, m, k, dtype_info[t].x_block);
    double best = 1e9;
    const int64_t calls = m > 4 ? COE_MIN(count, 1 + 3000 / m) : count;
    for (int r = 0; r < ROUNDS; r++) {
        const double began = coe_now();
        for (int64_t i = 0; i < calls; i++) {
            const struct weight w = { .type = t, .rows = n, .cols = k, .data = weights + i * bytes, .panels = panels };
            kern->q_product(y, n, &c, NULL, 0, m, &w, 0, n, NULL);
        }
        best = fmin(best, (coe_now() - began) / (double)calls);
    }
    const double rate = 2.0 * (double)(m * n * k) / best / 1e9, speed = (double)bytes / best / 1e9;
    printf("%-8s %s %4lldx%-4lld %3lld rows  %7.1f GOP/s %3.0f %%   %6.2f GB/s %3.0f %%\n", dtype_info[t].name,
           panels ? "panels" : "stored", (long long)n, (long long)k, (long long)m, rate, 100 * rate / peak, speed,
           100 * speed / memory);
    mem_free(x);
    mem_free(room);
}

int main(int argc, char **argv)
{
    if (kernels_init() || !(weights = mem_alloc("bench", (size_t)BYTES))) {
        fprintf(stderr, "%s\n", coe_error());
        return 2;
    }
    for (int64_t i = 0; i < BYTES; i += 8) {
        const uint64_t r = rng_mix((uint64_t)i) & 0xBFBFBFBFBFBFBFBFu; /* no scale is infinite */
        memcpy(weights + i, &r, sizeof r);
    }
    coe_set_threads(1);
    peak = int8_peak();
    memory = memory_speed(weights);
    printf("level %s, one thread: int8 %.0f GOP/s, memory %.1f GB/s\n", kern->name, peak, memory);
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        bool wanted = argc == 1 && (t == DT_Q4_0 || t == DT_Q8_0 || t == DT_Q4_K || t == DT_Q6_K);
        for (int i = 1; i < argc; i++) wanted |= !strcmp(argv[i], dtype_info[t].name);
        if (!wanted || !dtype_info[t].x_block) continue;
        for (int64_t m = 1; m <= (getenv("M1") ? 1 : 64); m *= m == 1 ? 16 : 4) {
            if (panel_type(t)) shape(t, m, 1024, 2048, true);
            if (panel_type(t)) shape(t, m, 2048, 1024, true);
        }
        for (int64_t m = 1; m <= (getenv("M1") ? 1 : 64); m *= m == 1 ? 16 : 4) shape(t, m, 1024, 2048, false);
    }
    return 0;
}
