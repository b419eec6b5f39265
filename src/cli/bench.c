/* bench.c — `coe bench`: speed of a model beside what the machine can do, measured in the same run. */
#include "cli/bench.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "cli/model_args.h"

struct speeds {
    int32_t n_prompt, n_new;
    struct rates prefill, generate;
};

/* Bytes of weights that one generated token reads: every matrix it multiplies with, k experts for each pass. */
static uint64_t bytes_per_token(const struct coe_model *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const struct moe_spec *moe = &m->spec.layer[p->at.layer].moe;
        uint64_t bytes = 0;
        (void)dtype_bytes(p->w.type, (uint64_t)weight_count(&p->w), &bytes); /* fits: it is mapped */
        if (p->at.slot == SLOT_EMBED && !m->spec.tied) continue;
        if (slot_info[p->at.slot].scope != SCOPE_EXPERT) sum += bytes;
        else if (p->at.expert < moe->router.top_k) sum += bytes * (uint64_t)moe->chain.n_iterations;
    }
    return sum;
}

static coe_status one_run(coe_session *s, const int32_t *ids, const struct speeds *n, double *prefill, double *generate)
{
    COE_TRY(coe_session_rewind(s, 0));
    const double start = coe_now();
    COE_TRY(coe_session_eval(s, ids, (size_t)n->n_prompt, NULL, 1));
    const double middle = coe_now();
    for (int32_t i = 0; i < n->n_new; i++) COE_TRY(coe_session_eval(s, ids + n->n_prompt + i, 1, NULL, 1));
    *prefill = n->n_prompt / (middle - start);
    *generate = n->n_new / (coe_now() - middle);
    return COE_OK;
}

static coe_status measure(const struct coe_model *m, coe_mla mla, int runs, struct speeds *out)
{
    const int32_t n = out->n_prompt + out->n_new;
    coe_session *session = NULL;
    int32_t *ids = mem_alloc("bench", (size_t)n * sizeof *ids);
    const coe_session_opts opts = { .max_tokens = n, .mla = mla };
    coe_status s = ids ? coe_session_open(&session, m, &opts) : COE_E_NOMEM;
    struct rng r = rng_make(1, rng_stream(RNG_TEST, 0));
    for (int32_t i = 0; !s && i < n; i++) ids[i] = (int32_t)rng_below(&r, (uint64_t)m->spec.vocab);
    for (int i = -1; !s && i < runs; i++) { /* the first warms caches and makes the arena: it does not count */
        double prefill, generate;
        s = one_run(session, ids, out, &prefill, &generate);
        if (s || i < 0) continue;
        rates_add(&out->prefill, prefill);
        rates_add(&out->generate, generate);
        if (coe_interrupted()) s = coe_fail(COE_E_FAILED, "interrupted");
    }
    coe_session_close(session);
    mem_free(ids);
    return s;
}

static void report(struct cli *c, const struct coe_model *m, coe_mla form, struct speeds *v, struct limits *l)
{
    const char *mla = model_mla_name(m, form);
    const struct spec_sizes sizes = spec_sizes(&m->spec);
    const uint64_t bytes = bytes_per_token(m);
    const double gflops = 2.0 * (double)sizes.active * rates_median(&v->prefill) / 1e9;
    const double gbs = (double)bytes * rates_median(&v->generate) / 1e9;
    const double of_peak = gflops / rates_best(&l->fma), of_memory = gbs / rates_best(&l->read);
    char text[64], each[32];
    if (cli_flag(c, "json")) {
        json_t *prefill = json_pack("{s:i, s:o, s:f, s:f}", "tokens", v->n_prompt, "tokens_per_second",
                                    rates_json(&v->prefill), "gflops", gflops, "share_of_peak", of_peak);
        json_t *generate = json_pack("{s:i, s:o, s:f, s:f}", "tokens", v->n_new, "tokens_per_second",
                                     rates_json(&v->generate), "gbs", gbs, "share_of_memory", of_memory);
        cli_print_json(json_pack("{s:o, s:s, s:s?, s:I, s:I, s:I, s:o, s:o}", "limits", limits_json(l), "model",
                                 m->path, "mla", mla, "parameters", (json_int_t)sizes.total, "active",
                                 (json_int_t)sizes.active, "bytes_per_token", (json_int_t)bytes, "prefill", prefill,
                                 "generate", generate));
        return;
    }
    limits_print(l);
    printf("%s (%.2f million parameters, %.2f million active; a token reads %s%s%s)\n", m->path,
           (double)sizes.total / 1e6, (double)sizes.active / 1e6, cli_bytes(bytes, each), mla ? "; mla " : "",
           mla ? mla : "");
    printf("  prefill of %4d, tokens/s    %-26s %.1f GFLOP/s, %.0f%% of the FP32 peak\n", v->n_prompt,
           rates_text(&v->prefill, text), gflops, 100 * of_peak);
    printf("  generating %4d, tokens/s    %-26s %.2f GB/s, %.0f%% of the memory's%s\n", v->n_new,
           rates_text(&v->generate, text), gbs, 100 * of_memory,
           bytes < (16u << 20) ? " (its weights fit caches)" : "");
}

static coe_status bench_model(struct cli *c, struct limits *l)
{
    struct coe_model *m = NULL;
    struct speeds v = { .n_prompt = (int32_t)cli_int(c, "prompt", 512), .n_new = (int32_t)cli_int(c, "generate", 64) };
    coe_status s = cli_open_model(c, 0, &m);
    coe_mla mla = COE_MLA_ABSORBED;
    if (!s) s = cli_mla(c, m, &mla);
    if (!s) s = measure(m, mla, (int)cli_int(c, "runs", 5), &v);
    if (!s) report(c, m, mla, &v, l);
    model_close(m);
    return s;
}

static coe_status run(struct cli *c)
{
    const char *what = cli_arg(c, 0);
    const bool train = !strcmp(what, "train"), only_limits = !strcmp(what, "limits");
    struct limits l;
    if (cli_arg(c, 1) && !train)
        return coe_fail(COE_E_USAGE, "usage: coe bench MODEL, coe bench limits, coe bench train [RECIPE]");
    if (!train && !only_limits && !dir_exists(what) && !file_exists(what))
        return coe_fail(COE_E_INPUT, "%s: there is no such model", what);
    if (cli_given(c, "mla") && (train || only_limits)) return coe_fail(COE_E_USAGE, "--mla is for coe bench MODEL");
    coe_interrupt_install();
    COE_TRY(limits_measure(&l, (int)cli_int(c, "runs", 5)));
    if (train) return bench_train(c, &l);
    if (!only_limits) return bench_model(c, &l);
    if (cli_flag(c, "json")) cli_print_json(limits_json(&l));
    else limits_print(&l);
    return COE_OK;
}

static const struct cli_opt opts[] = {
    { "prompt", 'p', OPT_INT, "N", "tokens of the prompt (default 512)", 1, 1e6, false },
    { "generate", 'n', OPT_INT, "N", "tokens generated one by one behind it (default 64)", 1, 1e6, false },
    { "runs", 'r', OPT_INT, "N", "repetitions; median, least and most are printed (default 5)", 1, BENCH_RUNS, false },
    { "plan", 0, OPT_STR, "P.json", "apply a plan live, without rewriting the model", 0, 0, false },
    CLI_MLA,
    CLI_JSON,
    CLI_THREADS,
    CLI_MEMORY,
};
static const struct verb verb = {
    .usage = "MODEL | limits | train [RECIPE.yaml]",
    .details = "Measures memory bandwidth and FP32 peak of this machine first, then a model's prefill and generation, "
               "or training\n"
               "steps of a recipe's model (default recipes/tales.yaml) on made-up text, and prints each as a share of "
               "its limit.\n"
               "Numbers mean something on an idle machine only.",
    .example = "  coe bench models/tales\n  coe bench limits --json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, bench, .summary = "measure speed beside the machine's limits", .impl = &verb)
