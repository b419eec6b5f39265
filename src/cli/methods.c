/* methods.c — `coe methods`: every method in this program, from the registry. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "plan/plan.h"

static bool shown(const struct part *p, const char *kind) { return kind ? !strcmp(p->kind, kind) : p->paper != NULL; }

static const char *or_empty(const char *s) { return s ? s : ""; }

/* The parameters of a planner, for `coe plan --set`; NULL for parts of other kinds and planners without. */
static const struct plan_param *params_of(const struct part *p)
{
    return strcmp(p->kind, "planner") ? NULL : ((const struct planner *)p->impl)->params;
}

/* "reduce=mean|sum", or the range of a number */
static void param_text(const struct plan_param *q, struct str *out)
{
    str_addf(out, "%s=", q->name);
    for (const char *const *c = q->choices; c && *c; c++) str_addf(out, "%s%s", c == q->choices ? "" : "|", *c);
    if (!q->choices) str_addf(out, "%g…%g", q->lo, q->hi);
}

static json_t *params_json(const struct part *p)
{
    json_t *list = json_array();
    for (const struct plan_param *q = params_of(p); q && q->name; q++) {
        struct str text = { 0 };
        param_text(q, &text);
        json_array_append_new(list, json_pack("{s:s, s:s}", "set", text.at ? text.at : "", "help", q->help));
        str_free(&text);
    }
    return list;
}

static void print_params(const char *kind)
{
    bool head = false;
    for (size_t i = 0; i < coe_n_parts; i++) {
        if (!shown(coe_parts[i], kind)) continue;
        for (const struct plan_param *q = params_of(coe_parts[i]); q && q->name; q++) {
            struct str text = { 0 };
            param_text(q, &text);
            if (!head) printf("\nparameters, for coe plan --set (the first word is the default)\n");
            head = true;
            printf("  %-10s %s\n  %-10s   %s\n", coe_parts[i]->name, text.at ? text.at : "", "", q->help);
            str_free(&text);
        }
    }
}

static void print_json(const char *kind)
{
    json_t *list = json_array();
    for (size_t i = 0; i < coe_n_parts; i++) {
        const struct part *p = coe_parts[i];
        if (!shown(p, kind)) continue;
        json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "kind", p->kind, "name", p->name, "paper",
                                or_empty(p->paper), "file", p->file, "card", or_empty(p->card), "unit",
                                p->unit ? p->unit : "token", "summary", or_empty(p->summary));
        if (params_of(p)) json_object_set_new(row, "parameters", params_json(p));
        json_array_append_new(list, row);
    }
    cli_print_json(list);
}

static void print_markdown(const char *kind)
{
    printf("# Methods\n\nMade by `make docs` from the registry (`coe methods --markdown`); each row is one file.\n\n"
           "| kind | name | what | paper | file |\n| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < coe_n_parts; i++) {
        const struct part *p = coe_parts[i];
        if (shown(p, kind))
            printf("| %s | `%s` | %s | %s | [%s](../%s) |\n", p->kind, p->name, or_empty(p->summary),
                   or_empty(p->paper), p->file, p->file);
    }
}

static void print_table(const char *kind)
{
    int kinds = 4, names = 4, papers = 5;
    for (size_t i = 0; i < coe_n_parts; i++) {
        const struct part *p = coe_parts[i];
        if (!shown(p, kind)) continue;
        kinds = COE_MAX(kinds, (int)strlen(p->kind));
        names = COE_MAX(names, (int)strlen(p->name));
        papers = COE_MAX(papers, (int)strlen(or_empty(p->paper)));
    }
    printf("%-*s  %-*s  %-*s  %s\n", kinds, "KIND", names, "NAME", papers, "PAPER", "WHAT");
    for (size_t i = 0; i < coe_n_parts; i++) {
        const struct part *p = coe_parts[i];
        if (shown(p, kind))
            printf("%-*s  %-*s  %-*s  %s\n", kinds, p->kind, names, p->name, papers, or_empty(p->paper),
                   or_empty(p->summary));
    }
}

static coe_status run(struct cli *c)
{
    const char *kind = cli_str(c, "kind", NULL);
    if (kind && !part_at(kind, 0)) return coe_fail(COE_E_USAGE, "no method is of kind '%s'; see: coe methods", kind);
    if (cli_flag(c, "json")) print_json(kind);
    else if (cli_flag(c, "markdown")) print_markdown(kind);
    else {
        print_table(kind);
        if (kind) print_params(kind);
    }
    return COE_OK;
}

static const struct cli_opt opts[] = {
    { "kind", 'k', OPT_STR, "KIND", "only this kind: planner, router, selection, loss, family, …", 0, 0, false },
    { "markdown", 0, OPT_FLAG, NULL, "as the table of docs/methods.md", 0, 0, false },
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "",
    .details = "One row for each published method: its kind, name, paper and what it does; --json and --markdown add "
               "the file.",
    .example = "  coe methods --kind planner",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .run = run,
};
COE_PART(verb, methods, .summary = "the methods in this program", .impl = &verb)
