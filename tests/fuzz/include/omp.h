/* omp.h — one thread. For builds with clang, whose own OpenMP is a separate package and which cannot read gcc's
 * header. */
#ifndef COE_TESTS_FUZZ_OMP_H
#define COE_TESTS_FUZZ_OMP_H

static inline void omp_set_num_threads(int n) { (void)n; }
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_in_parallel(void) { return 0; }

#endif
