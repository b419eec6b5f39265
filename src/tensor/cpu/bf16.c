/* bf16.c — products of BF16 with BF16 through the CPU's own instruction, for `--math bf16`.
 *
 * VDPBF16PS adds the products of two neighbouring elements to one FP32 sum; how the two are rounded on the way, and
 * that subnormal numbers count as zero, is the instruction's affair and no other level's. Everything else is as in
 * dot_tile: sixteen partial sums (elements 2l and 2l+1 of each 32 into sum l), the tree, and a result that depends on
 * one row of x and one row of w only. Levels and CPUs without the instruction have dot_tile's own sums, see gemm.c. */
#include "tensor/cpu/lanes.h"

#if defined(ISA_avx512)

#define BF16_MR 6
#define BF16_FEW 3 /* rows of x; the speed is that of memory */
#define NATIVE __attribute__((target("avx512bf16")))
#define NATIVE_LANES static inline __attribute__((always_inline, target("avx512bf16"))) COE_UNUSED

NATIVE_LANES __m512bh load_32(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }
NATIVE_LANES __m512bh load_rest(const uint16_t *p, int64_t n)
{
    return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((UINT64_C(1) << n) - 1), p);
}

/* mr rows of x times rows 0 … nr-1 of w, of which `valid` exist; see dot_block. */
NATIVE_LANES void bf16_block(int mr, int nr, enum fetch fetch, float *y, int64_t ldy, const uint16_t *const *x,
                             const uint16_t *w, int64_t ldw, int64_t valid, int64_t k)
{
    v16 acc[24];
    const uint16_t *row[8];
    UNROLL(8) for (int j = 0; j < nr; j++) row[j] = w + ldw * COE_MIN(j, valid - 1);
    UNROLL(24) for (int i = 0; i < mr * nr; i++) acc[i] = v16_zero();
    const char *ahead = (const char *)w;
    int64_t e = 0;
    for (; e + 32 <= k; e += 32) {
        __m512bh b[8];
        ahead = fetch_ahead(fetch, ahead, nr * 64);
        UNROLL(8) for (int j = 0; j < nr; j++) {
            b[j] = load_32(row[j] + e);
            fetch_in_row(fetch, row[j] + e);
        }
        UNROLL(8) for (int i = 0; i < mr; i++) {
            const __m512bh a = load_32(x[i] + e);
            UNROLL(8) for (int j = 0; j < nr; j++) acc[i * nr + j] = _mm512_dpbf16_ps(acc[i * nr + j], a, b[j]);
        }
    }
    if (e < k) {
        UNROLL(8) for (int j = 0; j < nr; j++) {
            const __m512bh b = load_rest(row[j] + e, k - e);
            UNROLL(8) for (int i = 0; i < mr; i++)
                acc[i * nr + j] = _mm512_dpbf16_ps(acc[i * nr + j], load_rest(x[i] + e, k - e), b);
        }
    }
    float sums[24];
    UNROLL(8) for (int i = 0; i < mr * nr; i += 4) v16_tree4(sums + i, acc[i], acc[i + 1], acc[i + 2], acc[i + 3]);
    UNROLL(8) for (int i = 0; i < mr; i++) {
        if (valid >= nr)
            memcpy(y + i * ldy, sums + i * nr, (size_t)nr * sizeof *y);
        else
            for (int64_t j = 0; j < valid; j++) y[i * ldy + j] = sums[i * nr + j];
    }
}

/* All n columns for mr rows of x. */
NATIVE_LANES void bf16_rows(int mr, float *y, int64_t ldy, const uint16_t *const *x, const uint16_t *w, int64_t ldw,
                            int64_t n, int64_t k)
{
    const bool few = mr <= BF16_FEW;
#define BF16_COLUMNS(nr, fetch)           \
    for (int64_t j = 0; j < n; j += (nr)) \
    bf16_block(mr, (nr), (fetch), y + j, ldy, x, w + j * ldw, ldw, COE_MIN((nr), n - j), k)
    if (ldw * 2 <= FETCH_ROW)
        BF16_COLUMNS(4, few ? FETCH_NEAR : FETCH_FAR);
    else if (few)
        BF16_COLUMNS(8, FETCH_NOTHING);
    else
        BF16_COLUMNS(4, FETCH_ROWS);
}

typedef void bf16_rows_fn(float *y, int64_t ldy, const uint16_t *const *x, const uint16_t *w, int64_t ldw, int64_t n,
                          int64_t k);
#define BF16_ROWS(mr)                                                                                                  \
    NATIVE static void bf16_rows_##mr(float *y, int64_t ldy, const uint16_t *const *x, const uint16_t *w, int64_t ldw, \
                                      int64_t n, int64_t k)                                                            \
    {                                                                                                                  \
        bf16_rows(mr, y, ldy, x, w, ldw, n, k);                                                                        \
    }
BF16_ROWS(1)
BF16_ROWS(2)
BF16_ROWS(3)
BF16_ROWS(4)
BF16_ROWS(5)
BF16_ROWS(6)
static bf16_rows_fn *const bf16_rows_of[BF16_MR + 1] = { NULL,        bf16_rows_1, bf16_rows_2, bf16_rows_3,
                                                         bf16_rows_4, bf16_rows_5, bf16_rows_6 };

static void dot_bf16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, const int32_t *xrow, int64_t m,
                     const uint16_t *w, int64_t ldw, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m;) {
        const int mr = strip(m - i, BF16_MR);
        const uint16_t *rows[BF16_MR];
        for (int r = 0; r < mr; r++) rows[r] = x + (xrow ? xrow[i + r] : i + r) * ldx;
        bf16_rows_of[mr](y + i * ldy, ldy, rows, w, ldw, n, k);
        i += mr;
    }
}
#endif

void LEVEL_FN(fill_bf16)(struct kernels *k)
{
#if defined(ISA_avx512)
    if (!__builtin_cpu_supports("avx512bf16")) return;
    k->dot_bf16 = dot_bf16;
    k->bf16_unit = "avx512_bf16";
#else
    (void)k;
#endif
}
