/* Block types against the reference implementation: every folder of COE_FIXTURES/gguf that holds sets TYPE.*.bin and
 * .npy (see the README there) is walked, every type in it is reported.
 *
 * Decoding agrees to a relative 1e-6. Encoding without weights gives the same bytes for the types that are rounding
 * rules; for the others, and with weights, the same bytes or no larger (weighted) error on every row. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/ckpt.h"
#include "support/support.h"
#include "tensor/kernels.h"
#include "tensor/quant/quant.h"

struct block_case {
    const char *dir, *name; /* gguf/blocks, Q4_0 */
    enum dtype type;
    int compared; /* files that there was something to compare with */
};

static const char *part(const struct block_case *c, const char *suffix)
{
    static char buffer[4][600];
    static int next;
    char *out = buffer[next++ % 4];
    snprintf(out, sizeof buffer[0], "%s/%s.%s", c->dir, c->name, suffix);
    return out;
}

static bool is_rounding_rule(enum dtype t)
{
    static const enum dtype searched[] = { DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_NL, DT_IQ4_XS };
    for (size_t i = 0; i < COE_COUNT(searched); i++)
        if (t == searched[i]) return false;
    return true;
}

static int64_t count(const struct npy *a)
{
    int64_t n = 1;
    for (int32_t i = 0; i < a->n_dims; i++) n *= a->dim[i];
    return n;
}

static bool complain(const struct block_case *c, const char *what, const char *detail)
{
    printf("# %s/%s: %s%s%s\n", c->dir, c->name, what, *detail ? ": " : "", detail);
    return false;
}

/* The bytes of c.bytes decode to the values of c.values; true when either is absent. */
static bool decodes(struct block_case *c, const char *bytes, const char *values)
{
    if (!fixture_exists(part(c, bytes)) || !fixture_exists(part(c, values))) return true;
    struct npy want;
    size_t n_bytes;
    c->compared++;
    uint64_t need = 0;
    if (npy_read(&want, fixture(part(c, values)))) return complain(c, values, coe_error());
    unsigned char *b = slurp(fixture(part(c, bytes)), &n_bytes);
    const int64_t n = count(&want);
    bool ok = want.type == DT_F32 && dtype_bytes(c->type, (uint64_t)n, &need) && need == n_bytes;
    if (!ok) complain(c, bytes, "size does not fit its values");
    float *got = malloc((size_t)n * sizeof *got);
    if (ok) dtype_decode_row(got, b, c->type, n);
    for (int64_t i = 0; i < n && ok; i++) {
        const float x = ((const float *)want.data)[i];
        if (isnan(x) ? isnan(got[i]) : x == got[i] || fabsf(got[i] - x) <= 1e-6f * fabsf(x)) continue;
        char detail[120];
        snprintf(detail, sizeof detail, "value %lld is %.9g, expected %.9g", (long long)i, (double)got[i], (double)x);
        ok = complain(c, bytes, detail);
    }
    free(got);
    free(b);
    npy_free(&want);
    return ok;
}

static double row_error(const unsigned char *b, enum dtype t, const float *x, const float *w, int64_t n)
{
    float *y = malloc((size_t)n * sizeof *y);
    double sum = 0;
    dtype_decode_row(y, b, t, n);
    for (int64_t i = 0; i < n; i++) {
        const double diff = (double)x[i] - (double)y[i];
        sum += (w ? (double)w[i] : 1.0) * diff * diff;
    }
    free(y);
    return sum;
}

static bool row_encodes(const struct block_case *c, const unsigned char *want, size_t n_bytes, const float *x,
                        const float *w, int64_t n, int64_t row)
{
    unsigned char *got = malloc(n_bytes);
    dtype_encode_row(got, c->type, x, n, w);
    bool same = !memcmp(got, want, n_bytes), ok = same;
    char detail[160];
    const double ours = row_error(got, c->type, x, w, n), theirs = row_error(want, c->type, x, w, n);
    if (!ok && (w || !is_rounding_rule(c->type))) ok = ours <= theirs;
    snprintf(detail, sizeof detail, "row %lld%s: error %g, the reference has %g", (long long)row,
             w ? " with weights" : "", ours, theirs);
    free(got);
    return ok ? true : complain(c, "bytes differ", detail);
}

static bool encodes(struct block_case *c, const char *bytes, const char *weights)
{
    if (!dtype_can_encode(c->type) || !fixture_exists(part(c, bytes))) return true;
    struct npy src = { 0 }, w = { 0 };
    size_t n_bytes;
    c->compared++;
    if (npy_read(&src, fixture(part(c, "src.npy"))) || (weights && npy_read(&w, fixture(part(c, weights)))))
        return complain(c, bytes, coe_error());
    unsigned char *want = slurp(fixture(part(c, bytes)), &n_bytes);
    const int64_t rows = src.dim[0], cols = src.dim[1];
    uint64_t row_bytes = 0;
    bool ok = src.n_dims == 2 && src.type == DT_F32 && dtype_bytes(c->type, (uint64_t)cols, &row_bytes) &&
              row_bytes * (uint64_t)rows == n_bytes && (!weights || (w.type == DT_F32 && count(&w) == cols));
    if (!ok) complain(c, bytes, "size does not fit src.npy");
    for (int64_t r = 0; r < rows && ok; r++)
        ok = row_encodes(c, want + (size_t)r * row_bytes, (size_t)row_bytes, (const float *)src.data + r * cols, w.data,
                         cols, r);
    free(want);
    npy_free(&w);
    npy_free(&src);
    return ok;
}

static bool check_type(struct block_case *c)
{
    bool ok = decodes(c, "rand.bin", "rand.npy");
    /* where the type cannot be encoded without weights, dec.npy belongs to enc_imatrix.bin */
    ok = decodes(c, fixture_exists(part(c, "enc.bin")) ? "enc.bin" : "enc_imatrix.bin", "dec.npy") && ok;
    ok = encodes(c, "enc.bin", NULL) && ok;
    return encodes(c, "enc_imatrix.bin", "imatrix.npy") && ok;
}

/* Every TYPE.src.npy or TYPE.rand.bin of the folder names a type. Returns the failures. */
static int check_folder(const char *dir)
{
    struct file_list l;
    char last[64] = "";
    int failed = 0;
    assert_ok(dir_list(&l, fixture(dir)));
    for (size_t i = 0; i < l.n; i++) {
        struct block_case c = { .dir = dir };
        char name[64];
        const char *dot = strchr(l.name[i], '.');
        if (!dot || (strcmp(dot, ".src.npy") && strcmp(dot, ".rand.bin"))) continue;
        snprintf(name, sizeof name, "%.*s", (int)(dot - l.name[i]), l.name[i]);
        if (!strcmp(name, last)) continue;
        strcpy(last, name);
        c.name = name;
        c.type = dtype_by_name(name);
        const bool ok = c.type != DT_COUNT && check_type(&c);
        printf("%s/%s: %s\n", dir, name, !c.compared ? "without a test" : ok ? "passed" : "failed");
        failed += c.compared && !ok;
    }
    file_list_free(&l);
    return failed;
}

static void block_types_agree_with_the_reference(void **state)
{
    (void)state;
    need_fixture("gguf");
    assert_ok(kernels_init());
    struct file_list l;
    int failed = 0;
    char dir[512], index[600];
    assert_ok(dir_list(&l, fixture("gguf")));
    for (size_t i = 0; i < l.n; i++) {
        snprintf(dir, sizeof dir, "gguf/%s", l.name[i]);
        snprintf(index, sizeof index, "%s/index.txt", dir);
        if (fixture_exists(index)) failed += check_folder(dir);
    }
    file_list_free(&l);
    fflush(stdout);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(block_types_agree_with_the_reference) };
    return cmocka_run_group_tests_name("golden/gguf_blocks", tests, NULL, NULL);
}
