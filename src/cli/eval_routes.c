/* eval_routes.c — `coe eval routes`: which tokens another model, or the model itself when it is changed, sends to other
 * experts. */
#include <stdio.h>
#include <string.h>

#include "cli/eval_routes.h"
#include "cli/model_args.h"
#include "plan/agreement.h"

static double part(double sum, int64_t tokens) { return sum / (double)COE_MAX(tokens, (int64_t)1); }

static void print(const struct agreement *g, const struct coe_model *a, const struct coe_model *b, int64_t tokens)
{
    printf("%s beside %s  %lld tokens\n%-26s %8s %14s %14s\n", a->path, b->path, (long long)tokens, "decision",
           "experts", "first moved", "shared");
    for (size_t i = 0; i < g->rows.n; i++) {
        const struct agreement_row *r = &g->rows.at[i];
        char name[64];
        snprintf(name, sizeof name, r->iteration ? "layer %d%s pass %d" : "layer %d%s", r->layer,
                 r->of_attention ? " attention" : "", r->iteration);
        printf("%-26s %8d %12.2f %% %12.2f %%\n", name, r->n_experts, 100 * part((double)r->moved, r->tokens),
               100 * part(r->shared, r->tokens));
    }
    printf("%-26s %8s %12.2f %% %12.2f %%\n", "all", "", 100 * agreement_moved(g), 100 * agreement_shared(g));
}

static void print_json(const struct agreement *g, const struct coe_model *a, const struct coe_model *b, int64_t tokens)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < g->rows.n; i++) {
        const struct agreement_row *r = &g->rows.at[i];
        json_array_append_new(rows, json_pack("{s:i, s:i, s:b, s:i, s:f, s:f}", "layer", r->layer, "iteration",
                                              r->iteration, "of_attention", r->of_attention, "n_experts", r->n_experts,
                                              "moved", part((double)r->moved, r->tokens), "shared",
                                              part(r->shared, r->tokens)));
    }
    cli_print_json(json_pack("{s:s, s:s, s:I, s:o, s:f, s:f}", "model", a->path, "against", b->path, "tokens",
                             (json_int_t)tokens, "decisions", rows, "moved", agreement_moved(g), "shared",
                             agreement_shared(g)));
}

/* One text as both models read it: the same tokens, or they cannot be compared token by token. */
static coe_status compare_file(struct agreement *g, int64_t *tokens, const struct cli *c, const struct coe_model *a,
                               const struct coe_model *b, const char *path, const struct measure_opts *o)
{
    struct measured_text t, other;
    COE_TRY(measured_text_read(&t, a, path, cli_int(c, "tokens", 0)));
    coe_status s = measured_text_read(&other, b, path, cli_int(c, "tokens", 0));
    if (s) goto out;
    const int64_t n = t.off[t.n_docs];
    if (n != other.off[other.n_docs] || memcmp(t.ids, other.ids, (size_t)n * sizeof *t.ids))
        s = coe_fail(COE_E_USAGE, "%s and %s do not cut %s into the same tokens", a->path, b->path, path);
    measured_text_free(&other);
    if (!s) s = agreement_text(g, a, b, &t, o);
    *tokens += n;
out:
    measured_text_free(&t);
    return s;
}

static coe_status open_other(struct cli *c, struct coe_model **out)
{
    COE_TRY(model_open(out, cli_str(c, "against", cli_arg(c, 1))));
    if (!(*out)->tokenizer)
        return coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", (*out)->path);
    return model_pack(*out);
}

static bool changes(const struct cli *c)
{
    static const char *const option[] = { "plan", "adapter", "route", "experts-used", "task" };
    for (size_t i = 0; i < COE_COUNT(option); i++)
        if (cli_given(c, option[i])) return true;
    return false;
}

coe_status eval_routes(struct cli *c, struct measure_opts o)
{
    struct coe_model *a = NULL, *b = NULL;
    struct agreement g = { 0 };
    int64_t tokens = 0;
    if (!cli_given(c, "against") && !changes(c))
        return coe_fail(COE_E_USAGE, "routes compares MODEL with --against OTHER, or under --plan, --route, "
                                     "--experts-used, --adapter or --task with itself without them");
    coe_status s = cli_open_text_model(c, 1, &a);
    if (!s) s = open_other(c, &b);
    if (!s) s = cli_mla(c, a, &o.mla);
    if (!s) s = cli_kv(c, &o.kv);
    if (!s) s = cli_math(c, &o.math);
    if (!s) s = measure_opts_fill(&o, a);
    if (!s) s = measure_opts_fill(&o, b);
    for (int i = 2; !s && i < cli_n_args(c); i++) s = compare_file(&g, &tokens, c, a, b, cli_arg(c, i), &o);
    if (!s && cli_flag(c, "json")) print_json(&g, a, b, tokens);
    else if (!s) print(&g, a, b, tokens);
    agreement_free(&g);
    model_close(a);
    model_close(b);
    return s;
}
