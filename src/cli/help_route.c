/* help_route.c — `coe help route`: the language of --route and of a config's "selection", from the registry. */
#include "cli/help_route.h"

#include <stdio.h>

#include "base/part.h"

static void print_param(const struct part_param *p)
{
    printf("      %-12s %s", p->name, p->help);
    if (!p->choices) {
        printf(" (default %g)\n", p->otherwise);
        return;
    }
    printf(": %s", p->choices[0]);
    for (int i = 1; p->choices[i]; i++) printf(", %s", p->choices[i]);
    printf("\n");
}

static void print_parts(const char *kind)
{
    const struct part *p;
    for (size_t i = 0; (p = part_at(kind, i)); i++) {
        printf("  %-15s %s; unit: %s\n", p->name, p->summary, p->unit ? p->unit : "token");
        for (const struct part_param *o = p->params; o && o->name; o++) print_param(o);
    }
}

void help_route(void)
{
    printf("coe help route — how tokens choose experts\n\n"
           "  --route 'RULE' changes it for one command, without rewriting the model (run, eval, trace, logits).\n"
           "  RULE is a list of settings with commas between them:\n\n"
           "    SELECTION=VALUE                 another selection, and its first setting\n"
           "    SELECTION(NAME=VALUE, …)        another selection, and any of its settings\n"
           "    top_k=K                         experts of a token; --experts-used K says the same\n"
           "    renormalize=yes|no              divide the weights by their sum over the chosen\n"
           "    scale=X                         multiply the weights\n"
           "    groups=G, groups_kept=N, group_score=max|sum2\n"
           "                                    experts in G groups, of which a token may use the best N\n"
           "    capacity(factor=X, tokens=N, tau=X, order=position|best|score, weigh_first=yes|no)\n"
           "                                    an expert takes no more tokens of a sequence than that\n"
           "    ROUTER, ROUTER(NAME=VALUE, …)   another router over the same matrix: pre_gated, similarity,\n"
           "                                    attention; or linear(temperature=1.5)\n\n"
           "  The same words stand in the \"coe\" object of a config.json, for training:\n"
           "    \"coe\": { \"selection\": { \"kind\": \"top_p\", \"p\": 0.4 }, \"top_k\": 4 }\n\n"
           "  \"router\": what makes the scores, with settings in the same way:\n"
           "    \"coe\": { \"router\": { \"kind\": \"gru\", \"width\": 64 }, \"n_experts\": 16, \"top_k\": 2 }\n\n"
           "  What looks at tokens behind a token (unit: sequence) is refused where a model writes token by token.\n\n"
           "selections:\n");
    print_parts("selection");
    printf("\nrouters (of models that are trained with them):\n");
    print_parts("router");
    printf("\nexamples:\n"
           "  coe run models/tales -p 'Once upon a time' --experts-used 1\n"
           "  coe eval ppl models/tales models/tales/held-out.txt --route 'top_p=0.4'\n"
           "  coe eval ppl models/tales models/tales/held-out.txt --route 'des_vote(core=6, block=32)'\n"
           "  coe trace models/tales --data stories=models/tales/calibration.txt --route 'threshold(of=relative, "
           "value=0.5), renormalize=yes' -o t.coet\n");
}
