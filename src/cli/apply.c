/* apply.c — `coe apply`: writes the model that a plan describes. */
#include "cli/model_args.h"
#include "plan/plan.h"

static coe_status run(struct cli *c)
{
    struct coe_model *m = NULL;
    struct plan *p = NULL;
    const char *out = cli_str(c, "output", NULL);
    char before[32], after[32];
    if (!out) return coe_fail(COE_E_USAGE, "-o DIR is needed: where to write the model");
    COE_TRY(cli_check_out_dir(out));
    coe_interrupt_install();
    coe_status s = plan_read(&p, cli_arg(c, 0));
    if (!s) s = model_open_stored(&m, cli_arg(c, 1));
    if (!s) s = plan_apply(p, m, out);
    if (s) goto out;
    const uint64_t was = ckpt_bytes(m->ckpt), is = plan_bytes(p, m);
    if (cli_flag(c, "json"))
        cli_print_json(json_pack("{s:s, s:s, s:I, s:I}", "model", out, "plan", p->path, "bytes", (json_int_t)is,
                                 "bytes_unedited", (json_int_t)was));
    else log_note("wrote %s: %s, the original has %s", out, cli_bytes(is, after), cli_bytes(was, before));
out:
    plan_free(p);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "output", 'o', OPT_STR, "DIR", "directory of the new model", 0, 0, false },
    CLI_THREADS,
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "P.json MODEL -o DIR",
    .details = "Copies the model tensor by tensor without the experts that the plan removes: their router rows and "
               "biases go, the\n"
               "others are renumbered, storage types and names stay. The result computes the bits of the live preview "
               "(--plan).\n"
               "The directory appears as a whole; an interrupted run leaves nothing.",
    .example = "  coe apply reap.json models/tales -o tales-75",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, apply, .summary = "write the model that a plan describes", .impl = &verb)
