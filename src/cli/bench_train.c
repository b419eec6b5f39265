/* bench_train.c — `coe bench train [RECIPE]`: optimiser steps of a recipe's model on random ids, so that no text is
 * needed.
 *
 * Operations are counted where they are done: 2 for each multiply-add of a matrix product (projections, router,
 * experts, head; forward, gradient of inputs, gradient of weights). Attention's scores, norms, losses and the optimiser
 * count none.
 *
 *     share of the matrix part = operations / seconds in the products / FP32 peak
 *     share of the whole step  = operations / seconds of the step / FP32 peak */
#include <stdio.h>

#include "cli/bench.h"
#include "tensor/gemm.h"
#include "train/train.h"

#define DEFAULT_RECIPE "recipes/tales.yaml"

/* Each rate has one entry for each measured step. */
struct speed {
    int threads;
    struct rates tokens;        /* per second */
    struct rates whole, matrix; /* GFLOP/s */
    double matrix_time;         /* share of the time spent in products, of all steps together */
    double before, after;       /* FP32 peak */
};

static coe_status run_steps(struct trainer *t, int runs, struct limits *l, int at, struct speed *out)
{
    struct step_report r;
    double in_products = 0, in_all = 0;
    out->threads = l->threads[at];
    coe_set_threads(out->threads);
    COE_TRY(trainer_step(t, &r)); /* the first makes the arena */
    out->before = limits_probe(l, LIMIT_FP32, at);
    for (int i = 0; i < runs; i++) {
        gemm_clock = (struct gemm_clock){ .on = true };
        COE_TRY(trainer_step(t, &r));
        const struct gemm_clock clock = gemm_clock;
        gemm_clock.on = false;
        rates_add(&out->tokens, (double)r.tokens / r.seconds);
        rates_add(&out->whole, clock.operations / r.seconds / 1e9);
        rates_add(&out->matrix, clock.operations / clock.seconds / 1e9);
        in_products += clock.seconds;
        in_all += r.seconds;
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    out->after = limits_probe(l, LIMIT_FP32, at);
    out->matrix_time = in_products / in_all;
    return COE_OK;
}

static double peak_of(const struct speed *v) { return COE_MAX(v->before, v->after); }

static json_t *speed_json(struct speed *v)
{
    const double peak = peak_of(v), whole = rates_median(&v->whole), matrix = rates_median(&v->matrix);
    return json_pack("{s:i, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "threads", v->threads, "train_tokens_per_second",
                     rates_json(&v->tokens), "gflops", whole, "share_of_peak", whole / peak, "matrix_gflops", matrix,
                     "matrix_share_of_peak", matrix / peak, "matrix_share_of_time", v->matrix_time, "fp32_before",
                     v->before, "fp32_after", v->after);
}

static void print_json(const struct recipe *r, const struct spec_sizes *sizes, struct speed *v, struct limits *l)
{
    json_t *results = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(results, speed_json(&v[i]));
    cli_print_json(json_pack("{s:o, s:s, s:I, s:I, s:i, s:o}", "limits", limits_json(l), "recipe", r->path,
                             "parameters", (json_int_t)sizes->total, "active", (json_int_t)sizes->active,
                             "tokens_per_step", (int)(r->batch * r->sequence), "results", results));
}

static void print_table(const struct recipe *r, const struct spec_sizes *sizes, struct speed *v, struct limits *l)
{
    char text[64];
    limits_print(l);
    printf("\n%s: %.2f million parameters, %.2f million active; %d rows of %d a step\n\n| threads | tokens/s | "
           "GFLOP/s | share of the FP32 peak | matrix products, GFLOP/s | their share of the peak | of the time | peak "
           "before → after |\n| --: | --- | --: | --: | --- | --: | --: | --- |\n",
           r->path, (double)sizes->total / 1e6, (double)sizes->active / 1e6, r->batch, r->sequence);
    for (int i = 0; i < l->n; i++, v++) {
        printf("| %d | %s |", v->threads, rates_text(&v->tokens, text));
        printf(" %.1f | %.0f %% | %s |", rates_median(&v->whole), 100 * rates_median(&v->whole) / peak_of(v),
               rates_text(&v->matrix, text));
        printf(" %.0f %% | %.0f %% | %.1f → %.1f |\n", 100 * rates_median(&v->matrix) / peak_of(v),
               100 * v->matrix_time, v->before, v->after);
    }
}

coe_status bench_train(struct cli *c, const struct bench_settings *how, struct limits *l)
{
    struct recipe r;
    struct trainer *t = NULL;
    static struct speed v[BENCH_LIST];
    COE_TRY(recipe_read(&r, cli_arg(c, 1) ? cli_arg(c, 1) : DEFAULT_RECIPE));
    coe_status s = trainer_open_random(&t, &r);
    for (int i = 0; !s && i < l->n; i++) s = run_steps(t, how->runs, l, i, &v[i]);
    if (!s) {
        const struct spec_sizes sizes = spec_sizes(&trainer_model(t)->spec);
        if (how->form == BENCH_JSON) print_json(&r, &sizes, v, l);
        else print_table(&r, &sizes, v, l);
    }
    trainer_close(t);
    recipe_free(&r);
    return s;
}
