/* Damaged files: everything that COE_FIXTURES/hostile/expect.txt lists (file, TAB, flaw) is refused with one line that
 * names the file, with memory in proportion to the file and within five seconds; ok.gguf and ok.safetensors are read.
 * A safetensors file is tried alone and as model.safetensors of a directory with the config.json beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/ckpt.h"
#include "support/support.h"

#define MEMORY_FACTOR 16 /* of the file's size, and 64 KB for what every open costs */

static char why[2300];

static bool complain(const char *name, const char *what, const char *detail)
{
    snprintf(why, sizeof why, "%s: %s: %s", name, what, detail);
    return false;
}

/* Opens as far as a model is opened: flaws that only a model's reader sees count as well. */
static coe_status open_all(const char *path)
{
    struct ckpt *c;
    coe_model *m = NULL;
    coe_status s = ckpt_open(&c, path);
    ckpt_close(c);
    if (!s) s = coe_model_open(&m, path, NULL);
    if (!s) coe_model_close(m);
    return s;
}

static bool refused(const char *path, size_t n, const char *flaw)
{
    const char *name = path_base(path);
    const double started = coe_now();
    mem_reset_peak();
    const uint64_t before = mem_peak();
    const coe_status s = open_all(path);
    if (s != COE_E_INPUT) return complain(name, s ? coe_error() : "accepted, although", flaw);
    if (!strstr(coe_error(), name)) return complain(name, "the message does not name the file", coe_error());
    if (strchr(coe_error(), '\n')) return complain(name, "the message has several lines", coe_error());
    if (mem_peak() - before > MEMORY_FACTOR * (uint64_t)n + 65536)
        return complain(name, "too much memory", coe_error());
    if (coe_now() - started > 5) return complain(name, "too slow", coe_error());
    return true;
}

static bool readable(const char *path)
{
    struct ckpt *c;
    if (ckpt_open(&c, path)) return complain(path_base(path), "the file without a flaw is refused", coe_error());
    ckpt_close(c);
    return true;
}

/* hostile/FILE as model.safetensors beside hostile/config.json; the directory's path. */
static const char *as_directory(const char *file)
{
    static char dir[1024], to[1100];
    snprintf(dir, sizeof dir, "%s", temp_path("model"));
    assert_ok(dir_make(dir));
    snprintf(to, sizeof to, "%s/config.json", dir);
    assert_ok(file_copy(fixture("hostile/config.json"), to));
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    assert_ok(file_copy(file, to));
    return dir;
}

static bool refused_in_directory(const char *file, const char *flaw)
{
    const char *dir = as_directory(file);
    if (open_all(dir) != COE_E_INPUT) return complain(path_base(file), "accepted in a directory, although", flaw);
    if (!strstr(coe_error(), "model.safetensors"))
        return complain(path_base(file), "the message does not name model.safetensors", coe_error());
    return true;
}

static bool is_safetensors(const char *name)
{
    const size_t n = strlen(name);
    return n > 12 && !strcmp(name + n - 12, ".safetensors");
}

static int report(const char *name, bool ok)
{
    if (!ok) printf("# %s\n", why);
    printf("hostile/%s: %s\n", name, ok ? "passed" : "failed");
    return !ok;
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    need_fixture("hostile/expect.txt");
    char line[1024], path[2100];
    int failed = report("ok.gguf", readable(fixture("hostile/ok.gguf")));
    failed += report("ok.safetensors", readable(as_directory(fixture("hostile/ok.safetensors"))));
    FILE *f = fopen(fixture("hostile/expect.txt"), "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *flaw = strchr(line, '\t');
        size_t n;
        if (!flaw) continue;
        *flaw++ = 0;
        flaw[strcspn(flaw, "\n")] = 0;
        snprintf(path, sizeof path, "%s/%s", fixture("hostile"), line);
        free(slurp(path, &n));
        bool ok = refused(path, n, flaw);
        if (ok && is_safetensors(line)) ok = refused_in_directory(path, flaw);
        failed += report(line, ok);
    }
    fclose(f);
    fflush(stdout);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(damaged_files_are_refused) };
    return cmocka_run_group_tests_name("golden/hostile", tests, NULL, NULL);
}
