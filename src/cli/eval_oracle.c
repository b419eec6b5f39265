/* eval_oracle.c — `coe eval oracle`: what the best choice of experts for each token would be worth. */
#include <math.h>
#include <stdio.h>

#include "cli/eval_oracle.h"
#include "cli/model_args.h"
#include "plan/oracle.h"

static double each(const struct oracle *o, double sum) { return sum / (double)COE_MAX(o->tokens, (int64_t)1); }

static int64_t best_fixed(const struct oracle *o)
{
    int64_t best = 0;
    for (int64_t r = 1; r < o->n_routes; r++)
        if (o->by_route[r] < o->by_route[best]) best = r;
    return best;
}

static double mean_route(const struct oracle *o)
{
    double sum = 0;
    for (int64_t r = 0; r < o->n_routes; r++) sum += o->by_route[r] / (double)o->n_routes;
    return sum;
}

static json_t *choices(const struct oracle *o, const struct coe_model *m, int64_t route)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < o->n_layers; i++)
        json_array_append_new(list, json_integer(oracle_choice(o, m, route, i)));
    return list;
}

static void print_json(const struct oracle *o, const struct coe_model *m)
{
    json_t *budget = json_array();
    const int64_t fixed = best_fixed(o);
    for (int32_t b = 0; b <= o->n_layers; b++) {
        const double x = each(o, o->by_budget[b]);
        json_array_append_new(budget, isfinite(x) ? json_real(x) : json_null());
    }
    cli_print_json(json_pack(
        "{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:o, s:o, s:f, s:f}", "model", m->path, "tokens", (json_int_t)o->tokens,
        "routes", (json_int_t)o->n_routes, "own", each(o, o->own), "oracle", each(o, o->best), "mean_route",
        each(o, mean_route(o)), "best_fixed", each(o, o->by_route[fixed]), "best_fixed_route", choices(o, m, fixed),
        "by_big", budget, "control_oracle", each(o, o->control), "control_mean", each(o, o->control_mean)));
}

static void print(const struct oracle *o, const struct coe_model *m)
{
    const int64_t fixed = best_fixed(o);
    printf("model %s  %lld tokens  %lld routes through %d layers\n", m->path, (long long)o->tokens,
           (long long)o->n_routes, o->n_layers);
    printf("%-34s %10s\n", "routing", "nats/token");
    printf("%-34s %10.4f\n", "the model's own", each(o, o->own));
    printf("%-34s %10.4f\n", "mean of all routes", each(o, mean_route(o)));
    printf("%-34s %10.4f  experts", "one route for all tokens, the best", each(o, o->by_route[fixed]));
    for (int32_t i = 0; i < o->n_layers; i++) printf(" %d", oracle_choice(o, m, fixed, i));
    printf("\n%-34s %10.4f  (knows the next token)\n", "each token's best", each(o, o->best));
    for (int32_t b = 0; b <= o->n_layers; b++)
        if (isfinite(o->by_budget[b]))
            printf("  with exactly %2d of the widest     %10.4f\n", b, each(o, o->by_budget[b]));
    printf("control, labels drawn from the text: mean route %.4f, best route %.4f; a gap like that is chance\n",
           each(o, o->control_mean), each(o, o->control));
}

coe_status eval_oracle(struct cli *c)
{
    struct coe_model *m = NULL;
    struct oracle o = { 0 };
    coe_status s = model_open(&m, cli_arg(c, 1));
    if (!s && !m->tokenizer) s = coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", m->path);
    if (!s) s = oracle_open(&o, m);
    for (int i = 2; !s && i < cli_n_args(c); i++) {
        struct measured_text t;
        s = measured_text_read(&t, m, cli_arg(c, i), cli_int(c, "tokens", 200));
        if (s) break;
        s = oracle_text(&o, m, &t);
        measured_text_free(&t);
    }
    if (!s && cli_flag(c, "json")) print_json(&o, m);
    else if (!s) print(&o, m);
    oracle_free(&o);
    model_close(m);
    return s;
}
