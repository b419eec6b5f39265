/* cli.h — how a verb is written: a table of options, an example, and run().
 *
 * Enters here: one file per verb, cli.c, and main.c that calls it. A verb reads its options with the cli_* getters,
 * prints results on stdout and notes on stderr (base/log.h), and returns a coe_status, which is the exit status (0
 * done, 1 failed, 2 wrong usage, 3 bad input file, 4 out of memory budget). Help, completion and the checks of the
 * tests come from the table.
 *
 *     static const struct cli_opt opts[] = {
 *         { "json", 0, OPT_FLAG, NULL, "print one JSON object" },
 *         { "output", 'o', OPT_STR, "FILE", "where to write" },
 *         CLI_THREADS, CLI_MEMORY };
 *     static const struct verb verb = { .usage = "MODEL --ids IDS.npy -o OUT.npy", .opts = opts, .n_opts =
 *     COE_COUNT(opts),
 *                                       .min_args = 1, .max_args = 1, .details = "…", .example = "coe …", .run = run };
 *     COE_PART(verb, logits, .summary = "logits of a token sequence", .impl = &verb) */
#ifndef COE_CLI_H
#define COE_CLI_H

#include "base/json.h"
#include "base/log.h"
#include "base/part.h"

enum opt_type { OPT_FLAG, OPT_STR, OPT_INT, OPT_NUM, OPT_SIZE };

struct cli_opt {
    const char *name; /* long name without dashes */
    char letter;      /* 0: none */
    enum opt_type type;
    const char *arg;  /* what the value is called in help; NULL for flags */
    const char *help;
    double lo, hi;    /* OPT_INT and OPT_NUM: allowed range; both 0: any */
    bool many;        /* may be given several times, and takes several values after one name (`--plan A.json B.json`) */
};
#define CLI_THREADS { "threads", 't', OPT_INT, "N", "compute threads (default: all processors)", 1, 1024, false }
#define CLI_MEMORY                                                                                                 \
    {                                                                                                              \
        "memory", 'm', OPT_SIZE, "SIZE", "memory budget, e.g. 4G; work that needs more stops with status 4", 0, 0, \
            false                                                                                                  \
    }
#define CLI_SEED    { "seed", 's', OPT_INT, "N", "seed of everything random (default 0)", 0, 9.0e15, false }
#define CLI_JSON    { "json", 'j', OPT_FLAG, NULL, "print JSON on stdout", 0, 0, false }

struct cli;
struct verb {
    const char *usage;   /* behind "coe VERB [options] " */
    const char *details; /* paragraphs of help, or NULL */
    const char *example; /* one or more lines that work */
    const struct cli_opt *opts;
    size_t n_opts;
    int min_args, max_args; /* positional arguments; max -1: any number */
    coe_status (*run)(struct cli *c);
};

/* The whole program; answers its exit status. In the library, so that programs linked with it carry every verb. */
int cli_main(int argc, char **argv);

int cli_n_args(const struct cli *c);
const char *cli_arg(const struct cli *c, int i); /* NULL behind the last */
bool cli_flag(const struct cli *c, const char *name);
const char *cli_str(const struct cli *c, const char *name, const char *otherwise);
int64_t cli_int(const struct cli *c, const char *name, int64_t otherwise);
double cli_num(const struct cli *c, const char *name, double otherwise);
uint64_t cli_size(const struct cli *c, const char *name, uint64_t otherwise);
bool cli_given(const struct cli *c, const char *name);
/* Values of a `many` option in order; n = 0 when absent. Borrowed. */
const char *const *cli_list(const struct cli *c, const char *name, size_t *n);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. NULL: out of memory. */
json_t *cli_json_text(const char *bytes, size_t n);
/* One JSON value and a newline on stdout; takes the reference. */
void cli_print_json(json_t *value);
/* "1.23 MB" into text */
const char *cli_bytes(uint64_t bytes, char text[32]);

#endif
