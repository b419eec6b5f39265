/* kernels.c — the table of each level, and the choice between them. Compiled without any instruction-set flag: this
 * code runs before it is known what the CPU has. */
#include "tensor/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cpu/levels.h"

const char *const activation_name[ACT_COUNT] = {
    [ACT_SILU] = "silu", [ACT_GELU] = "gelu",   [ACT_GELU_TANH] = "gelu_tanh",
    [ACT_RELU] = "relu", [ACT_RELU2] = "relu2", [ACT_SWIGLU_CLAMP] = "swiglu_clamp",
};

#define FILL(isa, k)                                                                                   \
    (fill_gemm_##isa(k), fill_bf16_##isa(k), fill_vec_##isa(k), fill_act_##isa(k), fill_norm_##isa(k), \
     fill_attn_##isa(k), fill_attn_back_##isa(k), fill_codes_##isa(k), fill_q_##isa(k))

static struct kernels tables[4];
static const struct kernels *usable[5]; /* portable first, best last */
const struct kernels *kern;

/* Levels that some CPU has, for the message. */
static const char *const elsewhere[] = { "avx2", "avx512", "vnni", "neon" };

static size_t count_usable(void)
{
    size_t n = 0;
    while (usable[n]) n++;
    return n;
}

static void use(struct kernels *k, const char *name)
{
    k->name = name;
    usable[count_usable()] = kern = k;
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
    if (!__builtin_cpu_supports("avx512vnni")) return;
    tables[3] = tables[2];
    fill_q_vnni(&tables[3]);
    use(&tables[3], "vnni");
#elif defined(__aarch64__)
    FILL(neon, &tables[1]); /* a part of the architecture: every CPU has it */
    use(&tables[1], "neon");
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
    for (size_t i = 0; i < COE_COUNT(elsewhere); i++)
        if (!strcmp(elsewhere[i], wanted))
            return coe_fail(COE_E_USAGE, "COE_ISA=%s: this CPU does not have it; its best level is %s", wanted,
                            usable[count_usable() - 1]->name);
    char have[64] = "";
    for (size_t i = 0, at = 0; usable[i]; i++)
        at += (size_t)snprintf(have + at, sizeof have - at, "%s%s", i ? ", " : "", usable[i]->name);
    return coe_fail(COE_E_USAGE, "COE_ISA=%s: no such level; this CPU has %s", wanted, have);
}

const struct kernels *const *kernels_all(void) { return usable; }

float fm_exp(float x) { return kern->exp1(x); }
float fm_log(float x) { return kern->log1(x); }
float fm_tanh(float x) { return kern->tanh1(x); }
float fm_sigmoid(float x) { return kern->sigmoid1(x); }
