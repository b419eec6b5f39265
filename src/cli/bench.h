/* bench.h — parts of `coe bench`. Reading order: bench.c (the verb), bench_peak.c and bench_limits.c (what the machine
 * can do), bench_cost.c (what a token needs of it), bench_model.c (timing a model), bench_report.c (tables),
 * bench_cold.c (fresh processes), bench_train.c. */
#ifndef COE_CLI_BENCH_H
#define COE_CLI_BENCH_H

#include "cli/cli.h"
#include "model/model.h"

#define BENCH_RUNS 64    /* most repetitions */
#define BENCH_LIST 16    /* most values of a list option */
#define BENCH_ROWS 1024  /* most rows of one call */
#define BENCH_OTHERS 0.15 /* processors that others may take before a measurement counts as disturbed */

/* Rates of several runs of the same thing. */
struct rates {
    double at[BENCH_RUNS];
    int n;
};
void rates_add(struct rates *r, double rate);
/* Sorts; all 0 when there are none. */
double rates_median(struct rates *r);
double rates_least(struct rates *r);
/* The best run: what a limit is, since nothing can be faster by accident. */
double rates_best(struct rates *r);
/* {"median", "min", "max"}, a new reference. */
json_t *rates_json(struct rates *r);
/* "1234.5 (1200.1 to 1250.3)" */
const char *rates_text(struct rates *r, char text[64]);

/* ---- what the machine can do ---- */

/* Reading memory and caches, GB/s; arithmetic on registers, GFLOP/s or GOP/s (a multiplication and an addition are two
 * operations). */
enum limit { LIMIT_READ, LIMIT_L3, LIMIT_L2, LIMIT_FP32, LIMIT_INT8, LIMIT_BF16, LIMIT_COUNT };
struct limit_info {
    const char *key, *name, *unit;
};
extern const struct limit_info limit_info[LIMIT_COUNT];

/* Arithmetic of the widest instruction this CPU has, all threads at once; 0 when it has none (LIMIT_BF16). */
double peak_rate(enum limit l, int threads);
/* "vpdpbusd, 512 bits"; NULL when the CPU has no such instruction. */
const char *peak_name(enum limit l);

struct limits {
    char *memory; /* what is read; owned */
    int n, threads[BENCH_LIST];
    struct rates rate[LIMIT_COUNT][BENCH_LIST]; /* every reading of the run; empty: the machine has no such thing */
};
/* COE_E_NOMEM when the buffer does not fit the budget. Release with limits_close. */
coe_status limits_open(struct limits *l, const int *threads, int n);
void limits_close(struct limits *l);
/* One reading (the best of three short ones) with the i-th thread count, remembered; 0 where there is no such limit. */
double limits_probe(struct limits *l, enum limit what, int i);
/* `runs` readings of everything with every thread count. */
coe_status limits_measure(struct limits *l, int runs);
void limits_print(struct limits *l);
void limits_csv(struct limits *l);
json_t *limits_json(struct limits *l);
/* Model name, family and model number as the kernel tells them; "unknown CPU" otherwise. Static. */
const char *cpu_name(void);

/* What other processes took of the processors meanwhile. */
struct watch {
    double busy, own, at;
};
struct watch watch_start(void);
/* Processors kept busy by others on average since then; -1 where /proc/stat cannot tell. */
double watch_others(const struct watch *w);
/* Peak resident memory of this process in bytes (VmHWM); 0 where /proc cannot tell. */
uint64_t peak_resident(void);

/* ---- what a token needs ---- */

struct cost {
    double ops[LIMIT_COUNT];  /* of matrix products, by the arithmetic their weights allow; the head apart */
    double head[LIMIT_COUNT];
    double bytes;             /* of all matrices that one token is multiplied with, as they are stored */
};
struct cost cost_token(const struct coe_model *m, coe_math math);
/* FP32 operations of scores and weighted values, and cache bytes read, of `n` tokens from position `first` on, computed
 * as `passes` blocks: a block reads the cache once. */
struct attention_cost {
    double ops, bytes;
};
struct attention_cost cost_attention(const struct coe_model *m, const coe_session_opts *form, int64_t first, int64_t n,
                                     int64_t passes);

/* ---- timing a model ---- */

enum bench_form { BENCH_MD, BENCH_CSV, BENCH_JSON };

struct bench_settings {
    enum bench_form form;
    int threads[BENCH_LIST], prompt[BENCH_LIST], generate[BENCH_LIST], depth[BENCH_LIST];
    int both[BENCH_LIST][2]; /* -pg: a prompt, then tokens one by one */
    int n_threads, n_prompt, n_generate, n_depth, n_both;
    int runs;
};

/* One row: `prompt` tokens at once, then `generate` one by one, behind `depth` tokens. */
struct bench_row {
    const char *model; /* borrowed */
    uint64_t model_bytes;
    int64_t parameters, active;
    double token_bytes;
    const char *mla;   /* NULL: no latent attention */
    const char *kv;    /* type of the cache */
    const char *math;  /* of products with BF16 weights */
    int threads, prompt, generate, depth;
    struct rates rate; /* tokens per second */
    double before[LIMIT_COUNT], after[LIMIT_COUNT]; /* readings around the runs */
    double ops[LIMIT_COUNT], bytes; /* of the weights for the whole row: what the limit is made of */
    double limit, limit_attention; /* tokens per second that the machine allows: by the weights; attention included */
    enum limit by;                 /* what the first is bound by */
    double others;                 /* processors that others took */
    bool disturbed;
};
/* The forms that --mla, --kv and --math ask for. */
coe_status bench_session_form(const struct cli *c, const struct coe_model *m, coe_session_opts *form);
/* Appends rows of one open model; *n_rows counts on. They borrow m->path: give them another name before closing m. */
coe_status bench_model(struct coe_model *m, const coe_session_opts *form, const struct bench_settings *how,
                       struct limits *l, struct bench_row *rows, int *n_rows);
/* "pp512", "tg64 @ d2048" */
const char *bench_test_name(const struct bench_row *r, char text[64]);

void bench_report(enum bench_form form, struct limits *l, struct bench_row *rows, int n);

/* ---- other work ---- */

/* `coe bench once MODEL`: one prompt and some tokens in this process, without measuring the machine. */
coe_status bench_once(struct cli *c, const struct bench_settings *how);
/* `coe bench cold MODEL`: a fresh process from a cold file to its first token, beside reading the file. */
coe_status bench_cold(struct cli *c, const struct bench_settings *how);
/* `coe bench train [RECIPE]`: training steps of a recipe's model on made-up text. */
coe_status bench_train(struct cli *c, const struct bench_settings *how, struct limits *l);

#endif
