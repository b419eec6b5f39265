/* methods.c — `coe methods`: every method in this program, from the registry. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static bool shown(const struct part *p, const char *kind) { return kind ? !strcmp(p->kind, kind) : p->paper != NULL; }

static const char *or_empty(const char *s) { return s ? s : ""; }

static void print_json(const char *kind)
{
    json_t *list = json_array();
    for (size_t i = 0; i < coe_n_parts; i++) {
        const struct part *p = coe_parts[i];
        if (!shown(p, kind)) continue;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "kind", p->kind, "name", p->name,
                                              "paper", or_empty(p->paper), "file", p->file, "card", or_empty(p->card),
                                              "unit", p->unit ? p->unit : "token", "summary", or_empty(p->summary)));
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
    else print_table(kind);
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
