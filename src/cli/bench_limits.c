/* bench_limits.c — what memory, caches and arithmetic of this machine can do, and who else uses it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/bench.h"
#include "tensor/kernels.h"

#define READ_BYTES ((size_t)512 << 20)
#define CACHE_READS ((size_t)1 << 30) /* bytes read from a cache at least, by each thread */

const struct limit_info limit_info[LIMIT_COUNT] = {
    [LIMIT_READ] = { "read", "memory read, 2 MB pages", "GB/s" },
    [LIMIT_L3] = { "l3", "third-level cache read", "GB/s" },
    [LIMIT_L2] = { "l2", "second-level cache read", "GB/s" },
    [LIMIT_FP32] = { "fp32", "FP32", "GFLOP/s" },
    [LIMIT_INT8] = { "int8", "int8", "GOP/s" },
    [LIMIT_BF16] = { "bf16", "BF16", "GFLOP/s" },
};

/* ---- reading ---- */

static volatile uint64_t read_sink;

/* Sums 64-bit words in thirty-two chains; GCC makes vectors of them. Written for each width, so that a build for old
 * machines does not read with old registers; never instrumented, so that a checked build measures the machine too. */
#define NOT_CHECKED __attribute__((no_sanitize("address", "undefined")))
#define SUM_WORDS(name, attribute)                                                                                     \
    attribute NOT_CHECKED static uint64_t name(const uint64_t *p, size_t n)                                            \
    {                                                                                                                  \
        uint64_t s[32] = { 0 }, sum = 0;                                                                               \
        for (size_t i = 0; i + 32 <= n; i += 32)                                                                       \
            for (int k = 0; k < 32; k++) s[k] += p[i + (size_t)k];                                                     \
        for (int k = 0; k < 32; k++) sum += s[k];                                                                      \
        return sum;                                                                                                    \
    }
#if defined(__x86_64__)
SUM_WORDS(sum_512, __attribute__((target("avx512f,prefer-vector-width=512"))))
SUM_WORDS(sum_256, __attribute__((target("avx2"))))
#endif
SUM_WORDS(sum_plain, )

static uint64_t sum_words(const uint64_t *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return sum_512(p, n);
    if (__builtin_cpu_supports("avx2")) return sum_256(p, n);
#endif
    return sum_plain(p, n);
}

/* Each thread reads its own `bytes` so often. */
static double read_rate(const char *memory, size_t bytes, size_t times, int threads)
{
    const size_t words = bytes / sizeof(uint64_t) / 32 * 32;
    uint64_t sum = 0;
    const double start = coe_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int i = 0; i < threads; i++)
        for (size_t k = 0; k < times; k++)
            sum += sum_words((const uint64_t *)(const void *)memory + words * (size_t)i, words);
    read_sink = sum;
    return (double)(words * sizeof(uint64_t) * times * (size_t)threads) / (coe_now() - start) / 1e9;
}

/* Three quarters of the second-level cache, which a thread has alone; an eighth of the third-level one, which it shares
 * with other cores and often with other machines on the same host. 0: the system does not tell. */
static size_t cache_part(enum limit what)
{
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE), l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (what == LIMIT_L2) return l2 > 0 ? (size_t)l2 / 4 * 3 : 0;
    return l2 > 0 && l3 / 8 > l2 ? (size_t)l3 / 8 : 0;
}

static double rate_once(const struct limits *l, enum limit what, int threads)
{
    if (what >= LIMIT_FP32) return peak_rate(what, threads);
    if (what == LIMIT_READ) return read_rate(l->memory, READ_BYTES / (size_t)threads, 1, threads);
    const size_t bytes = cache_part(what);
    if (!bytes || bytes * (size_t)threads > READ_BYTES) return 0;
    return read_rate(l->memory, bytes, CACHE_READS / bytes + 1, threads);
}

/* ---- all of them ---- */

coe_status limits_open(struct limits *l, const int *threads, int n)
{
    *l = (struct limits){ .n = n };
    memcpy(l->threads, threads, (size_t)n * sizeof *threads);
    COE_TRY(kernels_init());
    l->memory = mem_alloc("bench", READ_BYTES);
    if (!l->memory) return COE_E_NOMEM;
    memset(l->memory, 1, READ_BYTES);
    return COE_OK;
}

void limits_close(struct limits *l)
{
    mem_free(l->memory);
    l->memory = NULL;
}

double limits_probe(struct limits *l, enum limit what, int i)
{
    double best = 0;
    for (int k = 0; k < 3; k++) best = COE_MAX(best, rate_once(l, what, l->threads[i]));
    if (best > 0) rates_add(&l->rate[what][i], best);
    return best;
}

coe_status limits_measure(struct limits *l, int runs)
{
    for (int run = 0; run < runs; run++)
        for (int i = 0; i < l->n; i++)
            for (enum limit what = 0; what < LIMIT_COUNT; what++) {
                if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
                (void)limits_probe(l, what, i);
            }
    return COE_OK;
}

/* Two virtual processors on one core, or neighbours at work, show as threads that add little. */
static void print_canary(struct limits *l)
{
    for (int i = 1; i < l->n && l->threads[0] == 1; i++) {
        const double one = rates_median(&l->rate[LIMIT_INT8][0]), all = rates_median(&l->rate[LIMIT_INT8][i]);
        if (one > 0 && all > 0)
            printf("\ncanary: %d threads do %.2f times the int8 operations of one%s\n", l->threads[i], all / one,
                   all < 0.9 * l->threads[i] * one ? ": they share cores, or others are at work" : "");
    }
}

void limits_print(struct limits *l)
{
    char text[64], name[64];
    printf("Limits of this machine, %s, measured beside the work; kernels: %s. Medians (least to most).\n\n| limit |",
           cpu_name(), kern->name);
    for (int i = 0; i < l->n; i++) printf(" %d thread%s |", l->threads[i], l->threads[i] == 1 ? "" : "s");
    printf("\n| --- |");
    for (int i = 0; i < l->n; i++) printf(" --- |");
    printf("\n");
    for (enum limit what = 0; what < LIMIT_COUNT; what++) {
        if (!l->rate[what][0].n) continue;
        const char *how = peak_name(what);
        snprintf(name, sizeof name, "%s%s%s", limit_info[what].name, how ? ": " : "", how ? how : "");
        printf("| %s, %s |", name, limit_info[what].unit);
        for (int i = 0; i < l->n; i++) printf(" %s |", rates_text(&l->rate[what][i], text));
        printf("\n");
    }
    print_canary(l);
}

void limits_csv(struct limits *l)
{
    printf("cpu,limit,unit,threads,median,min,max\n");
    for (enum limit what = 0; what < LIMIT_COUNT; what++)
        for (int i = 0; i < l->n; i++) {
            struct rates *r = &l->rate[what][i];
            if (!r->n) continue;
            printf("\"%s\",%s,%s,%d,%.2f,%.2f,%.2f\n", cpu_name(), limit_info[what].key, limit_info[what].unit,
                   l->threads[i], rates_median(r), rates_least(r), rates_best(r));
        }
}

json_t *limits_json(struct limits *l)
{
    json_t *all = json_array();
    for (enum limit what = 0; what < LIMIT_COUNT; what++)
        for (int i = 0; i < l->n; i++) {
            if (!l->rate[what][i].n) continue;
            json_t *one = rates_json(&l->rate[what][i]);
            json_object_set_new(one, "limit", json_string(limit_info[what].key));
            json_object_set_new(one, "unit", json_string(limit_info[what].unit));
            json_object_set_new(one, "threads", json_integer(l->threads[i]));
            json_array_append_new(all, one);
        }
    return json_pack("{s:s, s:s, s:o}", "cpu", cpu_name(), "kernels", kern->name, "readings", all);
}

/* ---- what /proc tells ---- */

const char *cpu_name(void)
{
    static char name[160];
    char line[256], model[96] = "unknown CPU";
    int family = -1, number = -1;
    FILE *f = *name ? NULL : fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f) && line[0] != '\n') { /* the first processor */
        (void)sscanf(line, "model name : %95[^\n]", model);
        (void)sscanf(line, "cpu family : %d", &family);
        (void)sscanf(line, "model : %d", &number);
    }
    if (f) fclose(f);
    if (!*name && family >= 0) snprintf(name, sizeof name, "%s (family %d model %d)", model, family, number);
    else if (!*name) snprintf(name, sizeof name, "%s", model);
    return name;
}

/* Seconds that all processors together were busy, since the machine started; -1: unknown. */
static double busy_seconds(void)
{
    double user, nice, system, idle, wait, irq, soft;
    FILE *f = fopen("/proc/stat", "r");
    const bool read = f && fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &wait, &irq,
                                  &soft) == 7;
    if (f) fclose(f);
    return read ? (user + nice + system + irq + soft) / (double)sysconf(_SC_CLK_TCK) : -1;
}

static double own_seconds(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

struct watch watch_start(void) { return (struct watch){ busy_seconds(), own_seconds(), coe_now() }; }

double watch_others(const struct watch *w)
{
    const double busy = busy_seconds(), seconds = coe_now() - w->at;
    if (busy < 0 || w->busy < 0 || seconds <= 0) return -1;
    return COE_MAX((busy - w->busy - (own_seconds() - w->own)) / seconds, 0.0);
}

uint64_t peak_resident(void)
{
    char line[256];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kb) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kb * 1024;
}
