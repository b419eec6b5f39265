/* look.c — `coe look`: a trace drawn for people. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/heatmap.h"
#include "trace/report.h"

#define LABEL 64

static void row_label(char label[LABEL], const struct trace *t, const struct report_row *x)
{
    if (t->layer[x->l].n_iterations > 1) snprintf(label, LABEL, "layer %d pass %d", x->layer, x->iteration);
    else snprintf(label, LABEL, "layer %d", x->layer);
}

static coe_status draw(struct report *r, const struct trace *t)
{
    struct heat_row *row = arena_push(&r->arena, (size_t)r->n_rows * sizeof *row);
    char(*label)[LABEL] = arena_push(&r->arena, (size_t)r->n_rows * LABEL);
    if (!row || !label) return COE_E_NOMEM;
    for (int32_t i = 0; i < r->n_rows; i++) {
        row_label(label[i], t, &r->row[i]);
        row[i] = (struct heat_row){ label[i], r->row[i].n_experts, r->row[i].share };
    }
    heatmap_print(stdout, &(struct heatmap){ .row = row,
                                             .n_rows = r->n_rows,
                                             .columns = "expert",
                                             .values = "of the tokens",
                                             .percent = true,
                                             .colours = terminal_colours(stdout),
                                             .width = terminal_width(stdout) });
    return COE_OK;
}

static void print_load(const struct report *r, const struct trace *t)
{
    char label[LABEL];
    printf("\n%-18s %8s %8s %6s %10s %8s\n", "load", "CV", "MaxVio", "dead", "effective", "balance");
    for (int32_t i = 0; i < r->n_rows; i++) {
        const struct report_row *x = &r->row[i];
        row_label(label, t, x);
        printf("%-18s %8.3f %8.3f %6d %10.1f %8.3f\n", label, x->load.cv, x->load.max_vio, x->load.dead, x->effective,
               x->balance);
    }
}

static void print_top(const struct report *r)
{
    printf("\nstrongest experts: share of their layer's gate-weighted output\n");
    for (int32_t i = 0; i < r->n_top; i++) {
        const struct report_expert *x = &r->top[i];
        printf("  layer %-3d expert %-4d %5.1f%%   %llu tokens, mean norm %.3g, largest element %.3g\n", x->layer,
               x->expert, 100 * x->output_share, (unsigned long long)x->count, x->mean_norm, (double)x->max_abs);
    }
}

static void print_special(const struct report *r, const struct trace *t)
{
    for (int32_t i = 0; i < r->n_special; i++) {
        const struct report_special *x = &r->special[i];
        if (!i || x->domain != x[-1].domain) printf("\nexperts of '%s'\n", t->domains.at[x->domain].label);
        printf("  layer %-3d expert %-4d %5.2f times the mean of the domains, %.1f%% of its tokens\n", x->layer,
               x->expert, x->lift, 100 * x->share);
    }
}

static void print_pairs(const struct report *r, bool chain)
{
    bool head = false;
    for (int32_t i = 0; i < r->n_pair; i++) {
        const struct report_pair *x = &r->pair[i];
        if (x->chain != chain) continue;
        if (!head)
            printf(chain ? "\nchains: expert in one pass, then in the next\n" : "\nexperts that work together\n");
        head = true;
        printf("  layer %-3d pass %-2d %4d %s %-4d %5.2f times as often as by chance, %llu tokens\n", x->layer,
               x->iteration, x->a, chain ? "→" : "+", x->b, x->lift, (unsigned long long)x->count);
    }
}

static coe_status print_report(struct report *r, const struct trace *t)
{
    printf("%s: %llu tokens", t->path, (unsigned long long)trace_tokens(t));
    for (size_t d = 0; d < t->domains.n; d++)
        printf("%s %s %lld", d ? "," : "  (", t->domains.at[d].label, (long long)t->domains.at[d].tokens);
    printf("%s  model %s (%s)%s%s\n\n", t->domains.n ? ")" : "", t->model, t->family, *t->plan ? "  under plan " : "",
           t->plan);
    COE_TRY(draw(r, t));
    print_load(r, t);
    print_top(r);
    print_special(r, t);
    print_pairs(r, false);
    print_pairs(r, true);
    return COE_OK;
}

static coe_status run(struct cli *c)
{
    struct trace *t = NULL;
    struct report r = { 0 };
    size_t n;
    const char *const *to = cli_list(c, "export", &n);
    if (n && n != 2) return coe_fail(COE_E_USAGE, "--export npy|csv|jsonl DIR takes a format and a directory");
    coe_status s = trace_read(&t, cli_arg(c, 0));
    if (!s && n) s = trace_export(t, to[0], to[1]);
    if (s || n) goto out;
    s = report_make(&r, t, (int32_t)cli_int(c, "top", 8));
    if (s) goto out;
    if (cli_flag(c, "json")) cli_print_json(report_json(&r, t));
    else s = print_report(&r, t);
out:
    report_free(&r);
    trace_free(t);
    return s;
}

static const struct cli_opt opts[] = {
    { "top", 'n', OPT_INT, "N", "experts and pairs to list (default 8)", 1, 1000, false },
    { "export", 0, OPT_STR, "FORMAT DIR", "write the columns as npy, csv or jsonl into a directory instead", 0, 0,
      true },
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "T.coet",
    .details = "Draws layers by experts, one line for each pass of a chain, shaded by the share of tokens; then the "
               "load of each\n"
               "layer (CV; MaxVio, how far the busiest expert is above the mean; dead experts; effective experts, the "
               "exponential\n"
               "of the load's entropy; the balance value E Σ f P), the experts with the largest gate-weighted outputs, "
               "those that\n"
               "prefer one domain, and pairs that a token chooses together or one pass after the other.",
    .example = "  coe look tales.coet\n"
               "  coe look tales.coet --export csv tales-table",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
COE_PART(verb, look, .summary = "see what a trace says about the experts", .impl = &verb)
