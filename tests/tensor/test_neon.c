/* The NEON level: the digests of an AArch64 program under an emulator against those of this machine's definition. */
#include "tensor/levels.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "tensor/digest.h"

/* The program that `make tests` puts beside this one where it can; skips the test where it could not. */
static const char *foreign_program(void)
{
    static char path[PATH_MAX + 64];
    char self[PATH_MAX] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(path, sizeof path, "%s/kernel_digest.aarch64", dirname(self));
    if (access(path, X_OK) || system("command -v qemu-aarch64 >/dev/null")) skip();
    return path;
}

static FILE *run_foreign(const char *isa)
{
    char command[PATH_MAX + 256];
    snprintf(command, sizeof command, "COE_ISA=%s qemu-aarch64 '%s' 2>&1", isa, foreign_program());
    FILE *f = popen(command, "r");
    assert_non_null(f);
    return f;
}

/* Reads "LEVEL.KERNEL HASH", false at the end. */
static bool next_line(FILE *f, char level[32], char kernel[96], uint64_t *hash)
{
    char line[160];
    if (!fgets(line, sizeof line, f)) return false;
    char *dot = strchr(line, '.'), *space = strrchr(line, ' ');
    if (!dot || !space || space < dot) fail_msg("not a digest: %s", line);
    snprintf(level, 32, "%.*s", (int)(dot - line), line);
    snprintf(kernel, 96, "%.*s", (int)(space - dot - 1), dot + 1);
    *hash = strtoull(space, NULL, 16);
    return true;
}

static void both_levels_of_aarch64_give_the_bits_of_the_definition(void **state)
{
    (void)state;
    static struct digest_data data;
    struct digest here[DIGEST_MOST];
    const int n = digest_kernels(PORTABLE, &data, here);
    char level[32], kernel[96], chosen[32];
    uint64_t hash;
    int n_portable = 0, n_neon = 0;
    FILE *f = run_foreign("neon");
    assert_non_null(fgets(chosen, sizeof chosen, f));
    assert_string_equal(chosen, "neon\n");
    while (next_line(f, level, kernel, &hash)) {
        const int i = !strcmp(level, "neon") ? n_neon++ : n_portable++;
        assert_true(i < n);
        assert_string_equal(kernel, here[i].name);
        if (hash != here[i].hash) fail_msg("%s of level %s differs from this machine's portable one", kernel, level);
    }
    assert_int_equal(pclose(f), 0);
    assert_int_equal(n_portable, n);
    assert_int_equal(n_neon, n);
}

static void aarch64_refuses_the_levels_of_other_machines(void **state)
{
    (void)state;
    char message[256];
    FILE *f = run_foreign("avx2");
    assert_non_null(fgets(message, sizeof message, f));
    assert_string_equal(message, "COE_ISA=avx2: this CPU does not have it; its best level is neon\n");
    assert_int_not_equal(pclose(f), 0);
}

/* A digest that forgets a kernel, or sees no difference, would prove nothing. */
static void the_digest_covers_the_table_and_notices_one_bit(void **state)
{
    (void)state;
    static struct digest_data data;
    struct digest one[DIGEST_MOST], other[DIGEST_MOST];
    size_t names = 0;
    const int n = digest_kernels(PORTABLE, &data, one);
    for (int i = 0; i < n; i++)
        for (const char *p = one[i].name; p; p = strchr(p + 1, ' ')) names++;
    /* less the level's name; sincos and pow are no members of the table */
    if (names - 2 != sizeof(struct kernels) / sizeof(void *) - 1)
        fail_msg("tests/tensor/digest.h has %zu kernels, the table %zu", names - 2,
                 sizeof(struct kernels) / sizeof(void *) - 1);
    FOR_OTHER_LEVELS(k)
    {
        assert_int_equal(digest_kernels(*k, &data, other), n);
        for (int i = 0; i < n; i++)
            if (other[i].hash != one[i].hash && strcmp(other[i].name, "dot_bf16 natively"))
                fail_msg("%s of level %s has another digest", one[i].name, (*k)->name);
    }
    const uint64_t whole = (data.hash = 0, digest_floats(&data, data.x, 100), data.hash);
    data.x[57] = nextafterf(data.x[57], 0);
    assert_true((data.hash = 0, digest_floats(&data, data.x, 100), data.hash) != whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_levels_of_aarch64_give_the_bits_of_the_definition),
        cmocka_unit_test(aarch64_refuses_the_levels_of_other_machines),
        cmocka_unit_test(the_digest_covers_the_table_and_notices_one_bit),
    };
    return cmocka_run_group_tests_name("tensor/neon", tests, NULL, NULL);
}
