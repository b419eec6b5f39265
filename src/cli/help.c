/* help.c — `coe help [VERB]`, written from the tables of the verbs. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/help_route.h"

static void print_option(const struct cli_opt *o)
{
    char left[64];
    snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ',
             o->letter ? ", " : "  ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    printf("  %-26s %s%s\n", left, o->help, o->many ? " (may be repeated)" : "");
}

static void print_verb(const struct part *p)
{
    const struct verb *v = p->impl;
    printf("coe %s — %s\n\nusage: coe %s [options]%s%s\n", p->name, p->summary, p->name,
           *v->usage ? " " : "", v->usage);
    if (v->details) printf("\n%s\n", v->details);
    if (v->n_opts) printf("\noptions:\n");
    for (size_t i = 0; i < v->n_opts; i++) print_option(&v->opts[i]);
    if (v->example) printf("\nexample:\n%s\n", v->example);
}

static coe_status run(struct cli *c)
{
    const char *name = cli_arg(c, 0);
    if (name && !strcmp(name, "route")) {
        help_route();
        return COE_OK;
    }
    if (name) {
        const struct part *p = part_find("verb", name);
        if (!p) return coe_fail(COE_E_USAGE, "there is no verb '%s'; see: coe help", name);
        print_verb(p);
        return COE_OK;
    }
    printf("coe %s — train, run, look inside, plan and change Mixture-of-Experts language models\n\nusage: coe VERB "
           "[options] MODEL\n\n",
           coe_version());
    const struct part *p;
    for (size_t i = 0; (p = part_at("verb", i)); i++) printf("  %-10s %s\n", p->name, p->summary);
    printf("\n`coe help VERB` explains one, `coe help route` the rules of routing. A model is a Hugging Face "
           "directory or\na GGUF file; models/tales is one that ships.\n"
           "exit status: 0 done, 1 failed, 2 wrong usage, 3 bad input file, 4 out of memory budget\n");
    return COE_OK;
}

static const struct verb verb = { .usage = "[VERB|route]", .max_args = 1, .example = "  coe help run\n  coe help route",
                                  .run = run };
COE_PART(verb, help, .summary = "this text, or the options of one verb", .impl = &verb)
