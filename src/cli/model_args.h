/* model_args.h — what every verb that opens a model shares: its options, opening it, applying live plans. */
#ifndef COE_MODEL_ARGS_H
#define COE_MODEL_ARGS_H

#include "cli/cli.h"
#include "model/model.h"

/* How tokens are routed, changed without rewriting the model: three options of a verb's table. */
#define CLI_ROUTE                                                                                                      \
    { "route", 'r', OPT_STR, "RULE", "route by another rule, e.g. 'top_p=0.4' (see: coe help route)", 0, 0, false },   \
    { "experts-used", 0, OPT_INT, "K", "experts of each token, instead of the model's own number", 1, 1024, false },   \
    {                                                                                                                  \
        "task", 0, OPT_INT, "N", "the task of the text, for models whose router tells tasks apart (default 0)", 0,     \
            65535, false                                                                                               \
    }
#define CLI_MLA                                                                                                        \
    { "mla", 0, OPT_STR, "FORM", "latent attention: absorbed (default) or expanded", 0, 0, false }
#define CLI_ADAPTER                                                                                                    \
    { "adapter", 0, OPT_STR, "DIR", "lay a LoRA adapter (a PEFT directory) over the model", 0, 0, false }
#define CLI_KV                                                                                            \
    {                                                                                                     \
        "kv", 0, OPT_STR, "TYPE", "keys and values are cached as f32 (default), f16 or q8_0", 0, 0, false \
    }
#define CLI_MATH                                                                                                       \
    {                                                                                                                  \
        "math", 0, OPT_STR, "HOW", "BF16 weights: fp32 (default, the same bits on every CPU) or bf16 (faster)", 0, 0,  \
            false                                                                                                      \
    }
#define CLI_PLAN { "plan", 'p', OPT_STR, "P.json", "apply a plan live, without rewriting the model", 0, 0, false }

/* Opens the model named by argument i and applies --route, --experts-used, --adapter and --plan if they were given. */
coe_status cli_open_model(struct cli *c, int i, struct coe_model **out);
/* As above, and a tokenizer must be there. */
coe_status cli_open_text_model(struct cli *c, int i, struct coe_model **out);
/* The form that --mla asks for. COE_E_USAGE when there is no such form, or it was given and m has no latent attention.
 */
coe_status cli_mla(const struct cli *c, const struct coe_model *m, coe_mla *form);
/* The type that --kv asks for. COE_E_USAGE when there is no such type. */
coe_status cli_kv(const struct cli *c, coe_kv *type);
/* The arithmetic that --math asks for. COE_E_USAGE when there is no such arithmetic. */
coe_status cli_math(const struct cli *c, coe_math *math);
/* COE_E_USAGE when `path` is a directory with something else than a model in it: a result replaces directories as a
 * whole. */
coe_status cli_check_out_dir(const char *path);

#endif
