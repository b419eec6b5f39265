/* model_files.h — models in files: running coe on them, and comparing what they compute and hold. */
#ifndef COE_TESTS_MODEL_FILES_H
#define COE_TESTS_MODEL_FILES_H

#include <stdlib.h>
#include <string.h>

#include "ckpt/gguf.h"
#include "support/arrays.h"
#include "support/process.h"

#define N_IDS 20

static inline const char *keep(char buffer[1200], const char *path)
{
    snprintf(buffer, 1200, "%s", path);
    return buffer;
}

static inline void coe(int status, const char *const *args)
{
    struct ran r = run_coe(status, NULL, args);
    ran_free(&r);
}

static inline const char *ids_file(void)
{
    static char path[1200];
    int32_t ids[N_IDS];
    const int64_t dim[] = { N_IDS };
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 11) % 200 + 1;
    assert_ok(npy_write(keep(path, temp_path("ids.npy")), DT_I32, 1, dim, ids));
    return path;
}

static inline void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    if (n_a != n_b || memcmp(x, y, n_a)) fail_msg("%s (%zu bytes) and %s (%zu bytes) differ", a, n_a, b, n_b);
    free(x);
    free(y);
}

static inline void assert_same_logits(const char *a, const char *b)
{
    char x[1200], y[1200];
    keep(x, temp_path("a.npy"));
    keep(y, temp_path("b.npy"));
    coe(0, COE_ARGS("logits", a, "--ids", ids_file(), "-o", x));
    coe(0, COE_ARGS("logits", b, "--ids", ids_file(), "-o", y));
    assert_same_file(x, y);
}

static inline bool key_is(const char *file, const char *key, const char *value)
{
    struct ckpt *c;
    struct gguf_text text = { 0 };
    assert_ok(ckpt_open(&c, file));
    assert_ok(gguf_str(ckpt_gguf(c), key, &text));
    const bool yes = text.n == strlen(value) && !memcmp(text.at, value, text.n);
    ckpt_close(c);
    return yes;
}

#endif
