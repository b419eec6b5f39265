/* bench_train.c — `coe bench train [RECIPE]`: optimiser steps of a recipe's model on made-up text, so that no corpus is
 * needed. The share of the peak counts six operations for each active parameter and token: two forward, four backward.
 */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "train/train.h"

#define DEFAULT_RECIPE "recipes/tales.yaml"

/* Words of one to ten letters, common ones more often: enough that a tokenizer cuts it as it cuts prose. */
static coe_status write_text(const char *path, size_t bytes)
{
    struct str text = { 0 };
    struct rng r = rng_make(1, rng_stream(RNG_DATA, 1));
    while (text.n < bytes && !text.oom) {
        struct rng word = rng_make(2, rng_below(&r, 1 + rng_below(&r, 3000)));
        for (uint64_t i = 0, n = 1 + rng_below(&word, 9); i < n; i++)
            str_addc(&text, (char)('a' + rng_below(&word, 26)));
        str_addz(&text, rng_below(&r, 12) ? " " : ".\n");
    }
    coe_status s = str_check(&text);
    if (!s) s = file_write(path, text.at, text.n);
    str_free(&text);
    return s;
}

static coe_status run_steps(struct trainer *t, int runs, struct rates *out, double *loss)
{
    struct step_report r;
    COE_TRY(trainer_step(t, &r)); /* the first makes the arena */
    for (int i = 0; i < runs; i++) {
        COE_TRY(trainer_step(t, &r));
        rates_add(out, (double)r.tokens / r.seconds);
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    *loss = r.loss;
    return COE_OK;
}

static void report(struct cli *c, const struct recipe *r, const struct coe_model *m, struct rates *rate,
                   struct limits *l)
{
    const struct spec_sizes sizes = spec_sizes(&m->spec);
    const double gflops = 6.0 * (double)sizes.active * rates_median(rate) / 1e9, share = gflops / rates_best(&l->fma);
    char text[64];
    if (cli_flag(c, "json")) {
        cli_print_json(json_pack("{s:o, s:s, s:I, s:I, s:i, s:o, s:f, s:f}", "limits", limits_json(l), "recipe",
                                 r->path, "parameters", (json_int_t)sizes.total, "active", (json_int_t)sizes.active,
                                 "tokens_per_step", r->batch * r->sequence, "train_tokens_per_second", rates_json(rate),
                                 "gflops", gflops, "share_of_peak", share));
        return;
    }
    limits_print(l);
    printf("%s (%.2f million parameters, %.2f million active; %d rows of %d a step)\n", r->path,
           (double)sizes.total / 1e6, (double)sizes.active / 1e6, r->batch, r->sequence);
    printf("  %-28s %-26s %.1f GFLOP/s, %.0f%% of the FP32 peak\n", "training, tokens/s", rates_text(rate, text),
           gflops, 100 * share);
}

static coe_status measure(struct cli *c, struct recipe *r, const char *dir, struct limits *l)
{
    struct trainer *t = NULL;
    struct rates rate = { 0 };
    double loss = 0;
    char text[1100];
    snprintf(text, sizeof text, "%s/text.txt", dir);
    struct data_source source = { .path = text, .label = "made up" }, *own = r->train;
    const size_t n_own = r->n_train, n_valid = r->n_valid;
    const int runs = (int)cli_int(c, "runs", 5);
    coe_status s = write_text(text, (size_t)(runs + 2) * (size_t)(r->batch * r->sequence) * 3);
    r->train = &source, r->n_train = 1, r->n_valid = 0, r->hold_out_last = 0;
    r->output = dir;
    if (!s) s = trainer_open(&t, r, RESUME_RESTART);
    if (!s) s = run_steps(t, runs, &rate, &loss);
    if (!s) report(c, r, trainer_model(t), &rate, l);
    trainer_close(t);
    r->train = own, r->n_train = n_own, r->n_valid = n_valid;
    return s;
}

coe_status bench_train(struct cli *c, struct limits *l)
{
    struct recipe r;
    const char *tmp = getenv("TMPDIR"), *path = cli_arg(c, 1) ? cli_arg(c, 1) : DEFAULT_RECIPE;
    char dir[1000];
    snprintf(dir, sizeof dir, "%.900s/coe-bench-XXXXXX", tmp ? tmp : "/tmp");
    COE_TRY(recipe_read(&r, path));
    coe_status s = mkdtemp(dir) ? COE_OK : coe_fail(COE_E_FAILED, "%s: no temporary directory", dir);
    if (!s) {
        s = measure(c, &r, dir, l);
        (void)dir_remove(dir);
    }
    recipe_free(&r);
    return s;
}
