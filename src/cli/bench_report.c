/* bench_report.c — rows of `coe bench` as a Markdown table, CSV or JSON. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* ---- Markdown ---- */

static void print_model(const struct bench_row *r)
{
    char size[32], each[32];
    printf("\n%s: %s, %.2f million parameters, %.2f million active, a token reads %s%s%s; kv %s; math %s\n",
           r->model,
           cli_bytes(r->model_bytes, size), (double)r->parameters / 1e6, (double)r->active / 1e6,
           cli_bytes((uint64_t)r->token_bytes, each), r->mla ? "; mla " : "", r->mla ? r->mla : "", r->kv, r->math);
}

/* "48.9 → 49.1 GB/s": readings before and after */
static void print_readings(const struct bench_row *r, enum limit l)
{
    if (r->before[l] > 0) printf("%.1f → %.1f %s", r->before[l], r->after[l], limit_info[l].unit);
}

static void print_row(struct bench_row *r)
{
    char test[64];
    const double median = rates_median(&r->rate);
    printf("| %s | %d | %s | %.2f | %.2f – %.2f | %.1f %% of %s (%.1f) | %.1f %% | ", base_name(r->model), r->threads,
           bench_test_name(r, test), median, rates_least(&r->rate), rates_best(&r->rate), 100 * median / r->limit,
           limit_info[r->by].key, r->limit, 100 * median / r->limit_attention);
    print_readings(r, r->by);
    printf(" | %s |\n", r->disturbed ? "disturbed" : "");
}

static void print_markdown(struct limits *l, struct bench_row *rows, int n)
{
    limits_print(l);
    for (int i = 0; i < n; i++)
        if (!i || rows[i].model != rows[i - 1].model) print_model(&rows[i]);
    if (n)
        printf("\n| model | threads | test | tokens/s | least – most | share of the limit (its tokens/s) | "
               "with attention | limit before → after | |\n| --- | --: | --- | --: | --- | --- | --: | --- | --- |\n");
    for (int i = 0; i < n; i++) print_row(&rows[i]);
    for (int i = 0; i < n; i++)
        if (rows[i].disturbed) {
            printf("\ndisturbed: the limit moved by more than 10 %% during the runs, or others kept more than 0.15 "
                   "processors busy\n");
            break;
        }
}

/* ---- CSV ---- */

static void print_csv(struct bench_row *rows, int n)
{
    printf("cpu,model,model_bytes,parameters,active,token_bytes,mla,kv,math,threads,test,prompt,generate,depth,runs,"
           "tokens_per_second,min,max,limit,limit_tokens_per_second,share,share_with_attention,read_before,read_after,"
           "fp32_before,fp32_after,int8_before,int8_after,bf16_before,bf16_after,others,disturbed\n");
    for (int i = 0; i < n; i++) {
        struct bench_row *r = &rows[i];
        char test[64];
        const double median = rates_median(&r->rate);
        printf("\"%s\",\"%s\",%llu,%lld,%lld,%.0f,%s,%s,%s,%d,%s,%d,%d,%d,%d,", cpu_name(), r->model,
               (unsigned long long)r->model_bytes, (long long)r->parameters, (long long)r->active, r->token_bytes,
               r->mla ? r->mla : "", r->kv, r->math, r->threads, bench_test_name(r, test), r->prompt,
               r->generate, r->depth, r->rate.n);
        printf("%.4f,%.4f,%.4f,%s,%.4f,%.4f,%.4f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%d\n", median,
               rates_least(&r->rate), rates_best(&r->rate), limit_info[r->by].key, r->limit, median / r->limit,
               median / r->limit_attention, r->before[LIMIT_READ], r->after[LIMIT_READ], r->before[LIMIT_FP32],
               r->after[LIMIT_FP32], r->before[LIMIT_INT8], r->after[LIMIT_INT8],
               r->before[LIMIT_BF16], r->after[LIMIT_BF16], r->others, r->disturbed);
    }
}

/* ---- JSON ---- */

/* {"read": 31.2, "int8": 470}: what is not 0 */
static json_t *readings_json(const double rate[LIMIT_COUNT])
{
    json_t *o = json_object();
    for (enum limit l = 0; l < LIMIT_COUNT; l++)
        if (rate[l] > 0) json_object_set_new(o, limit_info[l].key, json_real(rate[l]));
    return o;
}

static json_t *row_json(struct bench_row *r)
{
    char test[64];
    const double median = rates_median(&r->rate);
    json_t *samples = json_array();
    for (int i = 0; i < r->rate.n; i++) json_array_append_new(samples, json_real(r->rate.at[i]));
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:s?, s:s, s:s, s:i, s:s, s:i, s:i, s:i, s:o, s:o, s:s, s:f, s:f, s:f, "
                     "s:o, s:o, s:o, s:f, s:f, s:b}",
                     "model", r->model, "model_bytes", (json_int_t)r->model_bytes, "parameters",
                     (json_int_t)r->parameters, "active", (json_int_t)r->active, "bytes_per_token", r->token_bytes,
                     "mla", r->mla, "kv", r->kv, "math", r->math, "threads", r->threads, "test",
                     bench_test_name(r, test), "prompt", r->prompt, "generate", r->generate, "depth", r->depth,
                     "tokens_per_second", rates_json(&r->rate), "samples", samples, "limit", limit_info[r->by].key,
                     "limit_tokens_per_second", r->limit, "share", median / r->limit, "share_with_attention",
                     median / r->limit_attention, "before", readings_json(r->before), "after", readings_json(r->after),
                     "operations", readings_json(r->ops), "bytes", r->bytes, "others", r->others, "disturbed",
                     r->disturbed);
}

static void print_json(struct limits *l, struct bench_row *rows, int n)
{
    json_t *results = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(results, row_json(&rows[i]));
    cli_print_json(json_pack("{s:o, s:o}", "limits", limits_json(l), "results", results));
}

void bench_report(enum bench_form form, struct limits *l, struct bench_row *rows, int n)
{
    if (form == BENCH_JSON) print_json(l, rows, n);
    else if (form == BENCH_CSV) print_csv(rows, n);
    else print_markdown(l, rows, n);
}
