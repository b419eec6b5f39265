/* data.c — `coe data tokenizer FILE… --vocab N --kind bpe|unigram -o tokenizer.json`. */
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "text/text.h"
#include "text/textin.h"

struct files {
    struct cli *c;
    int next; /* argument */
    struct text_docs *open;
    struct text_docs_opts opts;
};

static coe_status next_document(void *user, const char **text, size_t *n, bool *more)
{
    struct files *f = user;
    for (;;) {
        if (!f->open) {
            *more = f->next < cli_n_args(f->c);
            if (!*more) return COE_OK;
            COE_TRY(text_docs_open(&f->open, cli_arg(f->c, f->next++), &f->opts));
        }
        COE_TRY(text_docs_next(f->open, text, n, more));
        if (*more) return COE_OK;
        text_docs_close(f->open);
        f->open = NULL;
    }
}

static coe_status run(struct cli *c)
{
    const char *out = cli_str(c, "output", NULL), *kind = cli_str(c, "kind", "bpe");
    if (strcmp(cli_arg(c, 0), "tokenizer"))
        return coe_fail(COE_E_USAGE, "there is no `coe data %s`; there is: tokenizer", cli_arg(c, 0));
    if (!out) return coe_fail(COE_E_USAGE, "-o FILE is missing: where to write the tokenizer");
    COE_TRY(file_check_target(out));
    coe_interrupt_install();
    struct files f = { .c = c, .next = 1, .opts = { .field = cli_str(c, "field", NULL) } };
    coe_status s;
    struct bpe_train_opts o = { .vocab_size = (int32_t)cli_int(c, "vocab", 8192) };
    if (!strcmp(kind, "bpe")) s = bpe_train(out, next_document, &f, &o);
    else if (!strcmp(kind, "unigram")) s = unigram_train(out, next_document, &f, &o);
    else s = coe_fail(COE_E_USAGE, "--kind %s: expected bpe or unigram", kind);
    text_docs_close(f.open);
    if (!s) log_note("wrote %s", out);
    return s;
}

static const struct cli_opt opts[] = {
    { "vocab", 'v', OPT_INT, "N", "entries of the vocabulary, special tokens included (default 8192)", 300, 1000000,
      false },
    { "kind", 'k', OPT_STR, "KIND", "bpe (byte-level, the default) or unigram", 0, 0, false },
    { "field", 0, OPT_STR, "F", "JSONL: the field with the text, or a template such as \"{query} {response}\"", 0, 0,
      false },
    { "output", 'o', OPT_STR, "FILE", "the tokenizer.json to write", 0, 0, false },
};
static const struct verb verb = {
    .usage = "tokenizer FILE…",
    .details =
        "Trains a tokenizer on text files (plain or JSONL; .gz, .xz and .zst are unpacked on the way) and writes a\n"
        "tokenizer.json. The token <|endoftext|> has id 0; where a plain text contains it, documents are separated.",
    .example = "  coe data tokenizer models/tales/calibration.txt --vocab 2000 -o tokenizer.json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = -1,
    .run = run,
};
COE_PART(verb, data, .summary = "prepare data: train a tokenizer", .impl = &verb)
