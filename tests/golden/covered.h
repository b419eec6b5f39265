/* covered.h — which golden program tests which folders of fixtures/methods, by the beginning of their names. A program
 * that tests a new kind of folder adds its row here; test_methods_moe lists every folder without a row as "without a
 * test". */
#ifndef COE_TESTS_COVERED_H
#define COE_TESTS_COVERED_H

#include <stddef.h>
#include <string.h>

struct coverage {
    const char *prefix, *program;
};
static const struct coverage method_coverage[] = {
    { "adamoe", "methods_selection" },
    { "block_grad_", "methods_block" },
    { "coe_", "methods_coe" },
    { "deepseek_v2_router", "methods_moe" },
    { "deepseek_v3_gate_official", "methods_moe" },
    { "deepseek_v3_router", "methods_moe" },
    { "expert_choice", "methods_selection" },
    { "gpt_oss_layer", "methods_block" },
    { "megatron_router", "methods_moe" },
    { "mixtral_load_balancing_loss", "methods_moe" },
    { "moe_plus_plus", "methods_routers" },
    { "nllb_top2_router", "methods_selection" },
    { "pangu_grouped_topk", "methods_moe" },
    { "reap", "methods_prune" },
    { "rmoe_", "methods_routers" },
    { "router_table", "methods_moe" },
    { "seg_moe", "methods_segments" },
    { "smoe_dropout", "methods_selection" },
    { "sparse_ot", "methods_selection" },
    { "smora", "methods_experts" },
    { "switch_layer", "methods_moe" },
    { "thor_consistency", "methods_selection" },
    { "top_p_dynamic", "methods_selection" },
};

/* The program of the longest matching row; NULL when nobody tests the folder. */
static inline const char *covered_by(const char *folder)
{
    const char *program = NULL;
    size_t longest = 0;
    for (size_t i = 0; i < sizeof method_coverage / sizeof *method_coverage; i++) {
        const size_t n = strlen(method_coverage[i].prefix);
        if (n <= longest || strncmp(folder, method_coverage[i].prefix, n)) continue;
        longest = n;
        program = method_coverage[i].program;
    }
    return program;
}

#endif
