/* Golden: every GGUF model of fixtures/gguf (folders with ids.npy): logits against llama.cpp's, and those of the
 * widened weights against the same in F32 arithmetic; limits in the README there. */
#include "support/golden.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/model.h"

#define F32_TOL 2e-4   /* of the range of the reference's logits */
#define EXACT_TOL 1e-5 /* packed weights, the same arithmetic: 3e-6 measured */
#define ROUNDED_TOL 2e-2

static struct coe_model *model; /* closed by the next file when a check fails */

static void close_model(void)
{
    if (model) model_close(model);
    model = NULL;
}

static const float *logits_of(const char *path, bool wide, const int32_t *ids, int64_t n)
{
    const int32_t off[] = { 0, (int32_t)n };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward pass = { .batch = &batch };
    struct nn c = { .arena = test_arena() };
    close_model();
    assert_ok(wide ? model_open_wide(&model, path) : model_open(&model, path));
    const struct val *y = model_forward(model, &c, ids, n, &pass);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

/* stem: "…/q8_0" */
static void compare(const char *stem, const char *kind, const float *got, double tol)
{
    char path[1300];
    snprintf(path, sizeof path, "%s.%s.npy", stem, kind);
    if (access(path, R_OK)) return;
    const struct array want = npy_array(path);
    assert_close(path, got, want.f, want.n, tol * range_of(want.f, want.n), 0);
}

static void file(const struct golden_folder *f, const char *name)
{
    char stem[1200];
    const char *path = golden_path(f, "%s", name);
    const struct array ids = npy_array(golden_path(f, "ids.npy"));
    snprintf(stem, sizeof stem, "%.*s", (int)(strlen(path) - strlen(".gguf")), path);
    const bool whole = !strcmp(name, "f32.gguf");
    compare(stem, "logits", logits_of(path, false, ids.i, ids.n), whole ? F32_TOL : ROUNDED_TOL);
    compare(stem, "exact", logits_of(path, true, ids.i, ids.n), EXACT_TOL);
    close_model();
}

static void folder(const struct golden_folder *f)
{
    DIR *d = opendir(f->path);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n > 5 && !strcmp(e->d_name + n - 5, ".gguf")) file(f, e->d_name);
    }
    closedir(d);
}

static golden_fn *choose(struct golden_folder *f) { return access(golden_path(f, "ids.npy"), R_OK) ? NULL : folder; }

int main(void)
{
    const int failed = kernels_init() || golden_run("golden/gguf_models", "gguf", choose);
    close_model();
    return failed;
}
