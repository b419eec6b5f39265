/* levels.h — how the levels' functions are found: each file of cpu/ exports one function per level, which fills its
 * part of the table. */
#ifndef COE_CPU_LEVELS_H
#define COE_CPU_LEVELS_H

#include "tensor/kernels.h"

#define LEVEL_PASTE_(name, isa) name##_##isa
#define LEVEL_PASTE(name, isa) LEVEL_PASTE_(name, isa)
/* The name of this file's export at the level being compiled: LEVEL_FN(fill_gemm) is fill_gemm_avx2. */
#define LEVEL_FN(name) LEVEL_PASTE(name, ISA)

#define LEVEL_EXPORTS(isa)                                                                                             \
    void fill_gemm_##isa(struct kernels *k);                                                                           \
    void fill_bf16_##isa(struct kernels *k);                                                                           \
    void fill_vec_##isa(struct kernels *k);                                                                            \
    void fill_act_##isa(struct kernels *k);                                                                            \
    void fill_norm_##isa(struct kernels *k);                                                                           \
    void fill_attn_##isa(struct kernels *k);                                                                           \
    void fill_attn_back_##isa(struct kernels *k);                                                                      \
    void fill_codes_##isa(struct kernels *k);                                                                          \
    void fill_q_##isa(struct kernels *k);
LEVEL_EXPORTS(portable)
LEVEL_EXPORTS(avx2)
LEVEL_EXPORTS(avx512)
LEVEL_EXPORTS(neon)
void fill_q_vnni(struct kernels *k); /* avx512 but for the quantised products */

#endif
