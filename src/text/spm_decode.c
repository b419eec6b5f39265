/* spm_decode.c — decoding as SentencePiece and, for GGUF files, llama.cpp do it: ▁ is a space, a leading one is
 * dropped, byte pieces are collected to characters. */
#include <string.h>

#include "text/tok.h"

#define SPACE_MARK "\xE2\x96\x81"

/* Bytes collected so far: whole characters go out, what can never become one is a U+FFFD each; `all`: nothing more
 * comes. */
static void settle_bytes(struct spm_state *state, struct str *out, bool all)
{
    struct str *run = &state->run;
    size_t keep = all || !run->n ? 0 : utf8_incomplete_tail(run->at, run->n), n = run->n - keep;
    if (!n) return;
    utf8_lossy_bytes(out, run->at, n);
    memmove(run->at, run->at + n, keep);
    run->n = keep;
}

/* The piece with ▁ as spaces; what is dropped at the start of the text is dropped. */
static void add_piece(const struct dec_step *d, struct spm_state *state, struct str *out, const char *text, size_t n)
{
    size_t at = 0;
    const size_t mark = strlen(SPACE_MARK);
    if (state->at_start && d->drop_first) {
        if (n >= mark && !memcmp(text, SPACE_MARK, mark)) {
            at = mark;
            if (!d->all_spaces) state->at_start = false;
        }
        if (at < n) state->at_start = false;
    }
    while (at < n) {
        bool is_mark = n - at >= mark && !memcmp(text + at, SPACE_MARK, mark);
        str_addc(out, is_mark ? ' ' : text[at]);
        at += is_mark ? mark : 1;
    }
}

coe_status spm_decode_id(const struct tokenizer *t, struct spm_state *state, struct str *out, int32_t id,
                         bool skip_special)
{
    const struct dec_step *d = &t->dec.at[0];
    size_t n;
    const struct added_token *a = tok_added(t, id);
    if (!a && (id < 0 || id >= (int32_t)t->tab.n_vocab || t->tab.type[id] == TOK_ABSENT)) return tok_no_such_id(t, id);
    if (skip_special && tok_is_special(t, id)) return COE_OK;
    const char *text = a ? t->added_text.at + a->shown_at : tok_text(&t->tab, id, &n);
    if (a) n = a->shown_n;
    enum tok_type type = a && id >= (int32_t)t->tab.n_vocab ? TOK_NORMAL : (enum tok_type)t->tab.type[id];
    int byte = type == TOK_BYTE ? tok_byte_of(text, n) : -1;
    if (byte >= 0) {
        str_addc(&state->run, (char)byte);
        state->at_start = false;
        settle_bytes(state, out, false);
        return str_check(out);
    }
    settle_bytes(state, out, true);
    if (d->kind == DEC_SPM && type == TOK_CONTROL) return str_check(out);
    if (d->kind == DEC_SPM && type == TOK_UNKNOWN) {
        str_addz(out, " \xE2\x81\x87 ");
        state->at_start = false;
    } else {
        add_piece(d, state, out, text, n);
    }
    return str_check(out);
}

coe_status spm_decode_end(const struct tokenizer *t, struct spm_state *state, struct str *out)
{
    (void)t;
    settle_bytes(state, out, true);
    return str_check(out);
}
