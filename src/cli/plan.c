/* plan.c — `coe plan`: one planner computes a plan from a model and a trace. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/model_args.h"
#include "plan/plan.h"

static double predicted(const struct plan *p, const char *key)
{
    return json_number_value(json_object_get(p->predicted, key));
}

static void report(const struct plan *p, const char *out)
{
    char before[32], after[32];
    int32_t all = 0, kept = 0;
    for (int32_t i = 0; i < p->n_layers; i++) all += p->layer[i].n_experts, kept += p->layer[i].n_keep;
    cli_bytes((uint64_t)predicted(p, "bytes_unedited"), before);
    cli_bytes((uint64_t)predicted(p, "bytes"), after);
    log_note("wrote %s: keeps %d of %d experts in %d layers, %s of %s", out, kept, all, p->n_layers, after, before);
    if (!*p->trace) return;
    log_note(
        "kept experts carried %.1f %% of the routing and %.1f %% of the weighted output of the trace (by lot: %.1f %%)",
        100 * predicted(p, "routed_share"), 100 * predicted(p, "output_share"),
        100 * json_number_value(json_object_get(json_object_get(p->predicted, "random"), "routed_share")));
}

static coe_status run(struct cli *c)
{
    struct coe_model *m = NULL;
    struct trace *t = NULL;
    struct plan *p = NULL;
    const char *out = cli_str(c, "output", NULL), *method = cli_arg(c, 0);
    struct plan_opts o = { .keep = cli_num(c, "keep", 0.75), .seed = (uint64_t)cli_int(c, "seed", 0) };
    o.set = cli_list(c, "set", &o.n_set);
    if (!part_find("planner", method))
        return coe_fail(COE_E_USAGE, "there is no planner '%s'; see: coe methods --kind planner", method);
    if (!out && !cli_flag(c, "json")) return coe_fail(COE_E_USAGE, "-o P.json is needed: where to write the plan");
    if (out) COE_TRY(file_check_target(out));
    coe_status s = model_open(&m, cli_arg(c, 1));
    if (!s && cli_given(c, "trace")) s = trace_read(&t, cli_str(c, "trace", NULL));
    if (!s) s = plan_make(&p, method, m, t, &o);
    if (!s && out) s = plan_write(p, out);
    if (s) goto out;
    if (cli_flag(c, "json")) cli_print_json(plan_json(p));
    else report(p, out);
out:
    plan_free(p);
    trace_free(t);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "trace", 't', OPT_STR, "T.coet", "what the experts did, from `coe trace`", 0, 0, false },
    { "keep", 'k', OPT_NUM, "SHARE", "share of the experts of each layer that stays (default 0.75)", 1e-9, 1, false },
    { "set", 0, OPT_STR, "NAME=VALUE", "a parameter of the method", 0, 0, true },
    { "output", 'o', OPT_STR, "P.json", "the plan to write", 0, 0, false },
    CLI_SEED,
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "METHOD MODEL --trace T.coet --keep 0.75 -o P.json",
    .details =
        "Methods, what they do and their parameters (--set): coe methods --kind planner.\n"
        "Try a plan with `--plan P.json` on run, eval, logits or trace; measure it with `coe eval harm`; write the\n"
        "smaller model with `coe apply`.",
    .example = "  coe plan reap models/tales --trace tales.coet --keep 0.75 -o reap.json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, plan, .summary = "let a method decide which experts stay", .impl = &verb)
