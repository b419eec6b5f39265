/* kernels.c — the table of each level, and the choice between them. Compiled without any instruction-set flag: this
 * code runs before it is known what the CPU has. */
#include "tensor/kernels.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/cpu/levels.h"

const char *const activation_name[ACT_COUNT] = {
    [ACT_SILU] = "silu", [ACT_GELU] = "gelu",   [ACT_GELU_TANH] = "gelu_tanh",
    [ACT_RELU] = "relu", [ACT_RELU2] = "relu2", [ACT_SWIGLU_CLAMP] = "swiglu_clamp",
};

#define FILL(isa, k)                                                                                                   \
    (fill_gemm_##isa(k), fill_vec_##isa(k), fill_act_##isa(k), fill_norm_##isa(k), fill_attn_##isa(k))

static struct kernels tables[3];
static const struct kernels *usable[4]; /* portable first, best last */
const struct kernels *kern;

static void use(struct kernels *k, const char *name)
{
    size_t n = 0;
    while (usable[n]) n++;
    k->name = name;
    usable[n] = kern = k;
}

/* Before main, so that fm_exp & co. work for whoever calls them first and no thread ever sees a table half filled. */
__attribute__((constructor)) static void fill_tables(void)
{
    FILL(portable, &tables[0]);
    use(&tables[0], "portable");
#if defined(__x86_64__)
    __builtin_cpu_init();
    /* every CPU with AVX2 has F16C, for which clang 14 cannot ask */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
    FILL(avx2, &tables[1]);
    use(&tables[1], "avx2");
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return;
    FILL(avx512, &tables[2]);
    use(&tables[2], "avx512");
#endif
}

coe_status kernels_init(void)
{
    const char *wanted = getenv("COE_ISA");
    if (!wanted || !*wanted) return COE_OK;
    for (size_t i = 0; usable[i]; i++) {
        if (strcmp(usable[i]->name, wanted)) continue;
        kern = usable[i];
        return COE_OK;
    }
    const bool known = !strcmp(wanted, "avx2") || !strcmp(wanted, "avx512");
    return coe_fail(COE_E_USAGE, known ? "COE_ISA=%s: this CPU does not have it; its best level is %s"
                                       : "COE_ISA=%s: no such level; this CPU's best is %s, the others are below it: "
                                         "portable, avx2, avx512",
                    wanted, kern->name);
}

const struct kernels *const *kernels_all(void) { return usable; }

float fm_exp(float x) { return kern->exp1(x); }
float fm_log(float x) { return kern->log1(x); }
float fm_tanh(float x) { return kern->tanh1(x); }
float fm_sigmoid(float x) { return kern->sigmoid1(x); }
