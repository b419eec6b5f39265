/* arrays.h — arrays of tests: loaded from .npy and safetensors, drawn at random, compared with a tolerance.
 *
 * Everything lives in test_arena(), which is freed when the program ends; a long walk saves and rewinds it. */
#ifndef COE_TESTS_ARRAYS_H
#define COE_TESTS_ARRAYS_H

#include "support/support.h"

#include "base/mem.h"
#include "base/rng.h"
#include "ckpt/ckpt.h"

struct arena *test_arena(void);
/* arena_push of the test arena, zeroed; fails the test when memory is out */
void *test_alloc(size_t bytes);

/* f is set for floating-point types, i for whole numbers */
struct array {
    int32_t n_dims;
    int64_t dim[MAX_DIMS], n;
    float *f;
    int32_t *i;
};
/* Fail the test when the file or tensor is missing. */
struct array npy_array(const char *path);
struct array tensor_array(const struct ckpt *c, const char *format, ...) COE_PRINTF(2, 3);
bool has_tensor(const struct ckpt *c, const char *format, ...) COE_PRINTF(2, 3);

/* scale times standard normal numbers, a function of (seed, index) */
float *random_floats(uint64_t seed, int64_t n, double scale);
double *random_doubles(uint64_t seed, int64_t n, double scale);
float *floats_of(const double *x, int64_t n);

/* An F32 weight over `data` with a zeroed gradient; data must stay. */
struct weight *test_weight(const char *name, float *data, int64_t rows, int64_t cols);

/* |got - want| <= abs + rel*|want| at every element */
void assert_close(const char *what, const float *got, const float *want, int64_t n, double abs, double rel);
/* The length of got - want is at most tol times the length of want (exactly 0 where that is 0). */
void assert_norm_close(const char *what, const float *got, const float *want, int64_t n, double tol);
void assert_norm_close_d(const char *what, const float *got, const double *want, int64_t n, double tol);
void assert_near(const char *what, double got, double want, double tol);
/* The same bits; names the first element that differs. */
void assert_same_bits(const char *what, const float *got, const float *want, int64_t n);
void assert_ids(const char *what, const int32_t *got, const int32_t *want, int64_t n);
/* max - min; 0 for n = 0 */
double range_of(const float *x, int64_t n);
int64_t arg_max(const float *x, int64_t n);

#endif
