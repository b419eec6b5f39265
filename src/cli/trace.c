/* trace.c — `coe trace`: runs a model over labelled text and writes down what its experts did. */
#include <string.h>

#include "base/file.h"
#include "cli/model_args.h"
#include "model/imatrix.h"
#include "plan/plan.h"

#define WINDOW 1024

/* "label=FILE"; a path alone is its own label. */
static coe_status trace_source(struct trace *t, const struct coe_model *m, const char *text, const struct trace_opts *o)
{
    const char *eq = strchr(text, '=');
    char label[64] = "text";
    if (eq && (eq == text || (size_t)(eq - text) >= sizeof label || !eq[1]))
        return coe_fail(COE_E_USAGE, "--data %s: expected label=FILE with a label of 1 to %zu characters", text,
                        sizeof label - 1);
    if (eq) {
        memcpy(label, text, (size_t)(eq - text));
        label[eq - text] = 0;
    }
    return trace_text(t, m, label, eq ? eq + 1 : text, o);
}

/* A trace made while a plan masks experts says so. */
static coe_status tag_plan(struct trace *t, const char *path)
{
    struct plan *p = NULL;
    if (!path) return COE_OK;
    COE_TRY(plan_read(&p, path));
    coe_status s = plan_fingerprint(p, t->plan);
    plan_free(p);
    return s;
}

/* So does one made with another routing rule. */
static coe_status tag_route(struct trace *t, const struct cli *c)
{
    struct str text = { 0 };
    str_addz(&text, cli_str(c, "route", ""));
    if (cli_given(c, "experts-used")) str_addf(&text, "%stop_k=%s", text.n ? " " : "", cli_str(c, "experts-used", ""));
    coe_status s = str_check(&text);
    if (!s && text.n && !(t->route = arena_strdup(&t->arena, text.at))) s = COE_E_NOMEM;
    str_free(&text);
    return s;
}

static coe_status add_to(struct trace *t, const char *path)
{
    struct trace *before;
    COE_TRY(trace_read(&before, path));
    coe_status s = trace_merge(t, before);
    trace_free(before);
    return s;
}

static coe_status export_importance(const struct trace *t, const char *path)
{
    struct imatrix *im;
    if (!path) return COE_OK;
    COE_TRY(trace_imatrix(&im, t));
    const coe_status s = imatrix_write(im, path);
    imatrix_free(im);
    return s;
}

static void print_result(const struct trace *t, const char *path, double seconds)
{
    char print[17] = "";
    (void)trace_fingerprint(t, print);
    json_t *labels = json_object();
    for (size_t d = 0; d < t->domains.n; d++)
        json_object_set_new(labels, t->domains.at[d].label, json_integer(t->domains.at[d].tokens));
    cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:o, s:f}", "trace", path, "fingerprint", print, "level",
                             trace_level_name[t->level], "kv", model_kv_name(t->kv), "tokens", labels, "seconds",
                             seconds));
}

static coe_status check_options(const struct cli *c, size_t n_data)
{
    const char *level = cli_str(c, "level", trace_level_name[TRACE_COUNTS]);
    if (!n_data && !cli_given(c, "merge"))
        return coe_fail(COE_E_USAGE, "--data label=FILE is needed: the text to trace");
    if (!cli_given(c, "output")) return coe_fail(COE_E_USAGE, "-o T.coet is needed: where to write the trace");
    COE_TRY(file_check_target(cli_str(c, "output", NULL)));
    if (cli_given(c, "export-imatrix")) COE_TRY(file_check_target(cli_str(c, "export-imatrix", NULL)));
    if (strcmp(level, trace_level_name[TRACE_COUNTS]))
        return coe_fail(COE_E_USAGE, "--level %s: this program records counts", level);
    return COE_OK;
}

static coe_status run(struct cli *c)
{
    struct coe_model *m = NULL;
    struct trace *t = NULL;
    size_t n_data, n_merge;
    const double start = coe_now();
    const char *const *data = cli_list(c, "data", &n_data), *const *merge = cli_list(c, "merge", &n_merge);
    const char *out = cli_str(c, "output", NULL);
    const struct trace_opts o = { .max_tokens = cli_int(c, "tokens", 0) };
    COE_TRY(check_options(c, n_data));
    coe_interrupt_install();
    coe_status s = cli_open_text_model(c, 0, &m);
    if (s) goto out;
    if ((s = trace_new(&t, m, cli_int(c, "window", COE_MIN(m->spec.max_positions, (int64_t)WINDOW))))) goto out;
    if (cli_flag(c, "imatrix") || cli_given(c, "export-imatrix")) trace_want_importance(t);
    if ((s = tag_plan(t, cli_str(c, "plan", NULL)))) goto out;
    if ((s = tag_route(t, c))) goto out;
    if ((s = cli_kv(c, &t->kv))) goto out;
    for (size_t i = 0; i < n_merge && !s; i++) s = add_to(t, merge[i]);
    for (size_t i = 0; i < n_data && !s; i++) s = trace_source(t, m, data[i], &o);
    if (!s && !trace_tokens(t)) s = coe_fail(COE_E_INPUT, "%s: the text holds no token", n_data ? data[0] : m->path);
    if (!s) s = trace_write(t, out);
    if (!s) s = export_importance(t, cli_str(c, "export-imatrix", NULL));
    if (s) goto out;
    if (cli_flag(c, "json")) print_result(t, out, coe_now() - start);
    else log_note("wrote %s: %llu tokens in %.1f s", out, (unsigned long long)trace_tokens(t), coe_now() - start);
out:
    trace_free(t);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "data", 'd', OPT_STR, "label=FILE", "text under a label (plain or JSONL, also .gz .xz .zst)", 0, 0, true },
    { "level", 'l', OPT_STR, "LEVEL", "counts: sums for each expert", 0, 0, false },
    { "tokens", 'n', OPT_INT, "N", "stop a label after N tokens (default: all)", 1, 9e15, false },
    { "window", 'w', OPT_INT, "N", "longest sequence (default 1024, or the model's context)", 1, 1 << 24, false },
    { "merge", 0, OPT_STR, "T.coet", "start from this trace of the same model and add to it", 0, 0, true },
    { "imatrix", 'i', OPT_FLAG, NULL, "also sum what each column of the experts' matrices meets, for `coe quantize`", 0,
      0, false },
    { "export-imatrix", 0, OPT_STR, "FILE.gguf", "write these sums as llama.cpp's importance matrix too", 0, 0, false },
    { "output", 'o', OPT_STR, "T.coet", "the trace to write", 0, 0, false },
    CLI_PLAN,
    CLI_ADAPTER, CLI_ROUTE, CLI_KV,
    CLI_THREADS,
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "MODEL --data label=FILE… -o T.coet",
    .details =
        "Documents (between <|endoftext|> marks, or JSONL records) are tokenized, cut into windows and run through "
        "the\n"
        "model; counts, gate sums and output norms of every expert are added up. The same text gives the same bytes,\n"
        "whatever the threads. Look at the result with `coe look`, or give it to `coe plan`.",
    .example = "  coe trace models/tales --data stories=models/tales/calibration.txt --tokens 100000 -o tales.coet",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
COE_PART(verb, trace, .summary = "record what the experts do on real text", .impl = &verb)
