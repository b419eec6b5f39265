/* tokenizers.c — encoding and decoding speed: bench/tokenizers TOKENIZER FILE…
 *
 * Each file is cut at line ends into stretches of about 64 KB, which are encoded one after another on one thread.
 * Prints one line per file: MB per second of processor time (best of five passes), tokens, and a checksum of the ids
 * to compare with bench/tokenizers_hf.py. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "text/text.h"

#define STRETCH ((size_t)1 << 16)

static size_t stretch(const char *text, size_t n)
{
    if (n <= STRETCH) return n;
    const char *end = memchr(text + STRETCH, '\n', n - STRETCH);
    return end ? (size_t)(end - text) + 1 : n;
}

/* Processor time: the machine may be shared. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static coe_status encode_all(const struct tokenizer *t, struct ids *ids, const char *text, size_t n)
{
    coe_status s = COE_OK;
    ids->n = 0;
    for (size_t k; n && !s; text += k, n -= k) {
        k = stretch(text, n);
        s = tokenizer_encode(t, ids, text, k, false);
    }
    return s;
}

static coe_status measure(const struct tokenizer *t, const char *path)
{
    struct file_map f;
    struct ids ids = { 0 };
    struct str back = { 0 };
    double best = 1e9, decode = 1e9;
    COE_TRY(file_map_open(&f, path));
    coe_status s = COE_OK;
    for (int i = 0; i < 5 && !s; i++) {
        double from = now();
        s = encode_all(t, &ids, (const char *)f.at, (size_t)f.bytes);
        best = COE_MIN(best, now() - from);
    }
    for (int i = 0; i < 3 && !s; i++) {
        str_clear(&back);
        double from = now();
        s = tokenizer_decode(t, &back, ids.at, ids.n, false);
        decode = COE_MIN(decode, now() - from);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < ids.n; i++) sum = (sum * 31 + (uint64_t)ids.at[i]) % 1000000007u;
    if (!s)
        printf("%-24s encode %7.1f MB/s  decode %7.1f MB/s  %9zu tokens  ids %llu\n", path_base(path),
               (double)f.bytes / best / 1e6, (double)f.bytes / decode / 1e6, ids.n, (unsigned long long)sum);
    VEC_FREE(&ids);
    str_free(&back);
    file_map_close(&f);
    return s;
}

int main(int argc, char **argv)
{
    struct tokenizer *t = NULL;
    coe_status s = argc > 2 ? tokenizer_open(&t, argv[1]) : coe_fail(COE_E_USAGE, "usage: tokenizers TOKENIZER FILE…");
    for (int i = 2; i < argc && !s; i++) s = measure(t, argv[i]);
    if (s) fprintf(stderr, "%s\n", coe_error());
    tokenizer_close(t);
    return (int)s;
}
