/* run.c — `coe run`: continues one prompt, or talks at a terminal. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/input.h"
#include "cli/model_args.h"
#include "cli/run.h"

#define MAX_PROMPT ((size_t)64 << 20)

static const char *const stop_name[] = { "end", "length", "context", "interrupted" };

/* The ids of a text; of an empty one at the start the token that begins a document. */
static coe_status encode(const struct talk *t, struct ids *out, const char *text, size_t n)
{
    const struct tokenizer *tok = t->m->tokenizer;
    const bool first = t->s->position == 0;
    COE_TRY(tokenizer_encode(tok, out, text, n, first));
    if (out->n || !first) return COE_OK;
    const int32_t begin = tokenizer_bos(tok) >= 0 ? tokenizer_bos(tok) : tokenizer_eos(tok);
    const int32_t id = begin >= 0 ? begin : t->m->spec.n_eos ? t->m->spec.eos[0] : -1;
    if (id < 0) return coe_fail(COE_E_USAGE, "the prompt is empty, and %s has no token that begins a text", t->m->path);
    return VEC_PUSH(out, id) ? COE_OK : COE_E_NOMEM;
}

static coe_status write_piece(struct talk *t)
{
    const struct str *piece = &t->g.text;
    str_add(&t->text, piece->at, piece->n);
    if (!t->quiet && piece->n) {
        fwrite(piece->at, 1, piece->n, stdout);
        if (fflush(stdout)) return coe_fail(COE_E_FAILED, "cannot write to standard output: %s", strerror(errno));
    }
    return str_check(&t->text);
}

static coe_status generate(struct talk *t)
{
    int32_t id = 0;
    t->stop = STOP_LENGTH;
    for (t->n_new = 0; t->n_new < t->max_new; t->n_new++) {
        if (coe_interrupted()) {
            t->stop = STOP_INTERRUPTED;
            break;
        }
        COE_TRY(generator_next(&t->g, &id));
        if (id < 0) {
            t->stop = t->g.full ? STOP_CONTEXT : STOP_END;
            break;
        }
        COE_TRY(write_piece(t));
    }
    COE_TRY(generator_flush(&t->g));
    return write_piece(t);
}

coe_status talk_go_on(struct talk *t, const int32_t *ids, size_t n)
{
    const int64_t room = t->s->capacity - t->s->position - (t->g.pending >= 0);
    str_clear(&t->text);
    t->n_prompt = 0, t->n_new = 0;
    if ((int64_t)n > room)
        return coe_fail(COE_E_USAGE, "the prompt has %zu tokens and the context has room for %lld; see --context", n,
                        (long long)COE_MAX(room, 0));
    const double start = coe_now();
    COE_TRY(generator_feed(&t->g, ids, n));
    const double fed = coe_now();
    COE_TRY(generate(t));
    t->n_prompt = n;
    t->prompt_seconds = fed - start;
    t->seconds = coe_now() - fed;
    if (!t->quiet && t->text.n && t->text.at[t->text.n - 1] != '\n') putchar('\n');
    return COE_OK;
}

coe_status talk_answer(struct talk *t, const char *text, size_t n)
{
    struct ids ids = { 0 };
    coe_status s = encode(t, &ids, text, n);
    if (!s) s = talk_go_on(t, ids.at, ids.n);
    VEC_FREE(&ids);
    return s;
}

coe_status talk_show(const struct talk *t)
{
    if (t->show_tokens) {
        putchar('\n');
        COE_TRY(expert_view_tokens(&t->view, stdout, t->g.history.at, t->g.history.n));
    }
    if (!t->show_experts) return COE_OK;
    putchar('\n');
    return expert_view_draw(&t->view, stdout);
}

static coe_status print_json(const struct talk *t, const char *prompt, size_t n)
{
    json_t *ids = json_array();
    const struct ids *h = &t->g.history;
    for (size_t i = h->n - (size_t)t->n_new - (t->stop == STOP_END); i < h->n - (t->stop == STOP_END); i++)
        json_array_append_new(ids, json_integer(h->at[i]));
    json_t *o = json_pack("{s:o, s:o, s:o, s:I, s:i, s:s, s:s?, s:s, s:s, s:f, s:f}", "prompt",
                          cli_json_text(prompt, n), "text", cli_json_text(t->text.n ? t->text.at : "", t->text.n),
                          "ids", ids, "prompt_tokens", (json_int_t)t->n_prompt, "new_tokens", t->n_new, "stop",
                          stop_name[t->stop], "mla", model_mla_name(t->m, t->s->mla), "kv",
                          model_kv_name(t->s->kv_type), "math", model_math_name(t->s->math), "prompt_seconds",
                          t->prompt_seconds, "seconds", t->seconds);
    if (!o) return coe_fail(COE_E_NOMEM, "no memory for the JSON result");
    if (t->show_experts) json_object_set_new(o, "experts", expert_view_json(&t->view));
    cli_print_json(o);
    return COE_OK;
}

static coe_status read_all(struct str *out, const char *path)
{
    struct input *in = NULL;
    char buffer[65536];
    size_t n = 1;
    COE_TRY(input_open(&in, path));
    coe_status s = COE_OK;
    while (!s && n && out->n <= MAX_PROMPT) {
        s = input_read(in, buffer, sizeof buffer, &n);
        if (!s) str_add(out, buffer, n);
    }
    input_close(in);
    if (!s && out->n > MAX_PROMPT)
        s = coe_fail(COE_E_USAGE, "%s: a prompt of more than %zu MB", path, MAX_PROMPT >> 20);
    return s ? s : str_check(out);
}

/* The prompt of -p, of -f, or of a standard input that is no terminal; *talk = true when there is none of them. */
static coe_status find_prompt(const struct cli *c, struct str *prompt, bool *talk)
{
    if (cli_given(c, "prompt") && cli_given(c, "file"))
        return coe_fail(COE_E_USAGE, "give -p PROMPT or -f FILE, not both");
    if (cli_given(c, "file")) return read_all(prompt, cli_str(c, "file", NULL));
    if (cli_given(c, "prompt")) {
        str_addz(prompt, cli_str(c, "prompt", ""));
        return str_check(prompt);
    }
    *talk = isatty(0);
    return *talk ? COE_OK : read_all(prompt, "-");
}

static coe_status open_talk(struct cli *c, struct talk *t)
{
    const coe_sampling how = {
        .temperature = (float)cli_num(c, "temperature", 0.8),
        .top_k = (int32_t)cli_int(c, "top-k", 0),
        .top_p = (float)cli_num(c, "top-p", 0.95),
        .min_p = (float)cli_num(c, "min-p", 0),
        .repetition_penalty = (float)cli_num(c, "repetition-penalty", 1),
        .seed = (uint64_t)cli_int(c, "seed", 0),
    };
    t->show_experts = cli_flag(c, "show-experts");
    t->show_tokens = cli_flag(c, "show-tokens");
    t->quiet = cli_flag(c, "json");
    t->max_new = (int32_t)cli_int(c, "max-tokens", 256);
    COE_TRY(cli_open_text_model(c, 0, &t->m));
    COE_TRY(expert_view_open(&t->view, t->m, t->show_tokens));
    coe_mla mla;
    coe_kv kv;
    coe_math math;
    COE_TRY(cli_mla(c, t->m, &mla));
    COE_TRY(cli_kv(c, &kv));
    COE_TRY(cli_math(c, &math));
    const bool watch = t->show_experts || t->show_tokens || !t->quiet;
    COE_TRY(coe_session_open(&t->s, t->m,
                             &(coe_session_opts){ .max_tokens = (int32_t)cli_int(c, "context", 0),
                                                  .on_route = watch ? expert_view_add : NULL,
                                                  .user = &t->view,
                                                  .mla = mla,
                                                  .kv = kv,
                                                  .math = math }));
    return generator_open(&t->g, t->s, &how);
}

static void close_talk(struct talk *t)
{
    chat_close(t->chat);
    generator_close(&t->g);
    coe_session_close(t->s);
    if (t->m) expert_view_close(&t->view);
    model_close(t->m);
    str_free(&t->text);
}

static coe_status one_prompt(struct cli *c, struct talk *t, const struct str *prompt)
{
    const char *text = prompt->n ? prompt->at : "";
    if (cli_flag(c, "echo") && !t->quiet) fwrite(text, 1, prompt->n, stdout);
    COE_TRY(talk_answer(t, text, prompt->n));
    if (t->quiet) COE_TRY(print_json(t, text, prompt->n));
    else COE_TRY(talk_show(t));
    fflush(stdout); /* the note comes behind the text */
    const char *mla = model_mla_name(t->m, t->s->mla);
    log_note("%zu prompt tokens at %.1f tokens/s, %d new ones at %.1f tokens/s (%s), kv %s, math %s%s%s", t->n_prompt,
             (double)t->n_prompt / COE_MAX(t->prompt_seconds, 1e-9), t->n_new, t->n_new / COE_MAX(t->seconds, 1e-9),
             stop_name[t->stop], model_kv_name(t->s->kv_type), model_math_name(t->s->math),
             mla ? ", mla " : "", mla ? mla : "");
    return COE_OK;
}

static coe_status run(struct cli *c)
{
    struct talk t = { .g.pending = -1 };
    struct str prompt = { 0 };
    bool talk = false;
    coe_status s = find_prompt(c, &prompt, &talk);
    if (!s && talk && cli_flag(c, "json")) s = coe_fail(COE_E_USAGE, "--json needs a prompt: -p PROMPT or -f FILE");
    if (!s) s = open_talk(c, &t);
    coe_interrupt_install();
    if (!s && talk) s = chat_open(&t.chat, t.m->path);
    if (!s) s = talk ? talk_loop(&t) : one_prompt(c, &t, &prompt);
    close_talk(&t);
    str_free(&prompt);
    return s;
}

static const struct cli_opt opts[] = {
    { "prompt", 'p', OPT_STR, "TEXT", "the text to go on with", 0, 0, false },
    { "file", 'f', OPT_STR, "FILE", "read it from a file; - is standard input", 0, 0, false },
    { "max-tokens", 'n', OPT_INT, "N", "at most N new tokens an answer (default 256)", 0, 1e9, false },
    { "temperature", 'T', OPT_NUM, "X", "0 always takes the likeliest token; higher is more varied (default 0.8)", 0,
      100, false },
    { "top-k", 'k', OPT_INT, "N", "draw from the N likeliest tokens (default: all)", 0, 1e9, false },
    { "top-p", 0, OPT_NUM, "P", "draw from the likeliest tokens that hold P of the probability (default 0.95)", 0, 1,
      false },
    { "min-p", 0, OPT_NUM, "P", "leave out tokens less than P times as likely as the likeliest (default 0)", 0, 1,
      false },
    { "repetition-penalty", 0, OPT_NUM, "X", "divide the logits of tokens that were there already by X (default 1)", 0,
      100, false },
    { "context", 'c', OPT_INT, "N", "tokens it holds, in blocks of 16 (default: the model's context, at most 4096)", 1,
      1e9, false },
    { "echo", 'e', OPT_FLAG, NULL, "print the prompt before what follows it", 0, 0, false },
    { "show-experts", 'x', OPT_FLAG, NULL, "afterwards a heat map: how often each expert of each layer and pass worked",
      0, 0, false },
    { "show-tokens", 0, OPT_FLAG, NULL, "afterwards every token with its strongest expert in each layer and pass", 0, 0,
      false },
    { "plan", 0, OPT_STR, "P.json", "apply a plan live, without rewriting the model", 0, 0, false },
    CLI_ADAPTER, CLI_ROUTE,
    CLI_MLA,
    CLI_KV,
    CLI_MATH,
    CLI_SEED,
    CLI_JSON,
    CLI_THREADS,
    CLI_MEMORY,
};
static const struct verb verb = {
    .usage = "MODEL [-p PROMPT | -f FILE]",
    .details = "Writes what the model goes on with. Without -p and -f the prompt is read from standard input, or, at a "
               "terminal,\n"
               "line by line: each line goes on where the last answer ended (/help lists the commands there). Ctrl-C "
               "stops an answer.\n"
               "A model with a chat template takes the lines as messages of a conversation instead.\n"
               "The same seed gives the same text, with any number of threads.",
    .example = "  coe run models/tales -p 'Once upon a time' --show-experts\n"
               "  coe run models/tales -p 'Once upon a time' --route 'top_p=0.4' --kv q8_0 --math bf16\n"
               "  coe run OLMoE-1B-7B -p 'Once upon a time' --adapter runs/tuned/adapter",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
COE_PART(verb, run, .summary = "continue a text, or talk at a terminal", .impl = &verb)
