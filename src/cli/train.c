/* train.c — `coe train RECIPE.yaml`. */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/tune_experts.h"
#include "train/train.h"

/* A model is written as OUTPUT/model; an output that is a model itself was meant to be something else. */
static coe_status check_output(const char *output)
{
    char *config = path_join(output, "config.json");
    if (!config) return COE_E_NOMEM;
    const bool model = file_exists(config);
    mem_free(config);
    return model ? coe_fail(COE_E_USAGE, "%s: is a model; choose another place for the run", output) : COE_OK;
}

static coe_status run(struct cli *c)
{
    struct recipe r;
    struct trainer *t = NULL;
    if (cli_flag(c, "resume") && cli_flag(c, "restart"))
        return coe_fail(COE_E_USAGE, "--resume or --restart, not both");
    coe_interrupt_install();
    COE_TRY(recipe_read(&r, cli_arg(c, 0)));
    if (cli_given(c, "seed")) r.seed = (uint64_t)cli_int(c, "seed", 0);
    r.output = cli_str(c, "output", r.output);
    r.steps = cli_int(c, "steps", r.steps);
    const enum resume_mode mode = cli_flag(c, "restart")  ? RESUME_RESTART
                                  : cli_flag(c, "resume") ? RESUME_YES
                                                          : RESUME_REFUSE;
    coe_status s = check_output(r.output);
    if (!s) s = tune_experts_resolve(&r);
    if (!s) s = trainer_open(&t, &r, mode);
    if (!s) s = trainer_run(t);
    if (!s && cli_flag(c, "json")) cli_print_json(trainer_report(t));
    trainer_close(t);
    recipe_free(&r);
    return s;
}

static const struct cli_opt opts[] = {
    { "output", 'o', OPT_STR, "DIR", "where state, log and model go (default: the recipe's)", 0, 0, false },
    { "steps", 'n', OPT_INT, "N", "optimiser steps (default: the recipe's)", 1, 1e15, false },
    { "resume", 'r', OPT_FLAG, NULL, "continue the run saved in the output directory", 0, 0, false },
    { "restart", 0, OPT_FLAG, NULL, "begin again although the output directory holds a run", 0, 0, false },
    CLI_SEED, CLI_THREADS, CLI_MEMORY, CLI_JSON,
};
static const struct verb verb = { .usage = "RECIPE.yaml",
                                  .opts = opts,
                                  .n_opts = COE_COUNT(opts),
                                  .min_args = 1,
                                  .max_args = 1,
                                  .details = "Trains the model that a recipe describes (docs/training.md). The output "
                                             "directory gets model/, an ordinary Hugging Face\n"
                                             "directory, log.jsonl, and state.safetensors, from which --resume "
                                             "continues bit for bit. Ctrl-C finishes the step and saves.",
                                  .example = "  coe train recipes/tales.yaml",
                                  .run = run };
COE_PART(verb, train, .summary = "train a model from a recipe", .impl = &verb)
