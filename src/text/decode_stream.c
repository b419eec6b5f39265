/* decode_stream.c — text as the ids come: each push gives the whole characters that are certain by then.
 *
 * Byte-level: bytes are held back while they may still become a character. SentencePiece: the same with its byte
 * pieces. Decoders of the shape (Replace | Metaspace)* [ByteFallback] [Fuse [Strip]]: each token's spelling goes
 * through the steps before Fuse; Strip drops from the beginning of the whole text. Any other decoder gives its text at
 * the end, because its last token may change the first. */
#include <string.h>

#include "text/tok.h"

enum stream_kind { STREAM_BYTES, STREAM_SPM, STREAM_TOKENS, STREAM_WHOLE };

struct decode_stream {
    const struct tokenizer *t;
    bool skip_special, first;
    enum stream_kind kind;
    size_t n_token_steps; /* steps that work on one token */
    bool bytes;           /* with ByteFallback */
    size_t strip_left;    /* characters that Strip may still drop */
    struct str held;      /* bytes waiting to become a character */
    struct spm_state spm;
    struct ids ids; /* STREAM_WHOLE */
    struct str token, next;
};

/* How the decoder's steps fall into the streamable shape. */
static enum stream_kind kind_of(const struct tokenizer *t, struct decode_stream *s)
{
    size_t i = 0;
    if (tok_is_plain_bytes(t)) return STREAM_BYTES;
    if (t->dec.n && (t->dec.at[0].kind == DEC_SPM || t->dec.at[0].kind == DEC_LLAMA)) return STREAM_SPM;
    while (i < t->dec.n && (t->dec.at[i].kind == DEC_REPLACE || t->dec.at[i].kind == DEC_METASPACE)) i++;
    s->n_token_steps = i;
    if (!t->dec.n) return STREAM_WHOLE;
    if (i < t->dec.n && t->dec.at[i].kind == DEC_BYTE_FALLBACK) {
        s->bytes = true;
        i++;
    }
    if (i < t->dec.n && t->dec.at[i].kind == DEC_FUSE) {
        i++;
        if (i < t->dec.n && t->dec.at[i].kind == DEC_STRIP && !t->dec.at[i].stop) s->strip_left = t->dec.at[i++].start;
    }
    return i == t->dec.n ? STREAM_TOKENS : STREAM_WHOLE;
}

coe_status decode_stream_open(struct decode_stream **out, const struct tokenizer *t, bool skip_special)
{
    struct decode_stream *s = mem_zalloc("tokenizer", sizeof *s);
    *out = s;
    if (!s) return COE_E_NOMEM;
    s->t = t;
    s->skip_special = skip_special;
    s->first = s->spm.at_start = true;
    s->kind = kind_of(t, s);
    return COE_OK;
}

void decode_stream_close(struct decode_stream *s)
{
    if (!s) return;
    str_free(&s->held);
    str_free(&s->spm.run);
    str_free(&s->token);
    str_free(&s->next);
    VEC_FREE(&s->ids);
    mem_free(s);
}

/* Gives out what is certain of the bytes held; `all`: nothing more comes. */
static void settle(struct decode_stream *s, struct str *out, bool all)
{
    size_t keep = all || !s->held.n ? 0 : utf8_incomplete_tail(s->held.at, s->held.n), n = s->held.n - keep;
    if (!n) return;
    if (s->kind == STREAM_BYTES) utf8_lossy(out, s->held.at, n);
    else utf8_lossy_bytes(out, s->held.at, n);
    memmove(s->held.at, s->held.at + n, keep);
    s->held.n = keep;
}

/* Text behind Fuse: Strip drops its character from the beginning of everything. */
static void give(struct decode_stream *s, struct str *out, const char *text, size_t n)
{
    if (s->strip_left) {
        const struct str *c = &s->t->dec.at[s->t->dec.n - 1].text;
        while (s->strip_left && c->n && n >= c->n && !memcmp(text, c->at, c->n)) {
            text += c->n;
            n -= c->n;
            s->strip_left--;
        }
        if (n) s->strip_left = 0;
    }
    str_add(out, text, n);
}

static coe_status push_token(struct decode_stream *s, struct str *out, int32_t id)
{
    str_clear(&s->token);
    if (!tok_spelling(s->t, id, &s->token)) return tok_no_such_id(s->t, id);
    for (size_t i = 0; i < s->n_token_steps; i++) {
        str_clear(&s->next);
        COE_TRY(tok_decode_token(&s->t->dec.at[i], &s->next, s->token.at ? s->token.at : "", s->token.n, s->first));
        struct str spare = s->token;
        s->token = s->next;
        s->next = spare;
    }
    s->first = false;
    int byte = s->bytes && s->token.n ? tok_byte_of(s->token.at, s->token.n) : -1;
    if (byte >= 0) {
        str_addc(&s->held, (char)byte);
        s->strip_left = 0;
        settle(s, out, false);
        return str_check(out);
    }
    settle(s, out, true);
    give(s, out, s->token.at ? s->token.at : "", s->token.n);
    return str_check(out);
}

coe_status decode_stream_push(struct decode_stream *s, struct str *out, int32_t id)
{
    if (s->kind == STREAM_SPM) return spm_decode_id(s->t, &s->spm, out, id, s->skip_special);
    if (s->skip_special && tok_is_special(s->t, id)) return COE_OK;
    if (s->kind == STREAM_WHOLE) return VEC_PUSH(&s->ids, id) ? COE_OK : COE_E_NOMEM;
    if (s->kind == STREAM_TOKENS) return push_token(s, out, id);
    COE_TRY(tok_add_bytes(s->t, &s->held, id));
    settle(s, out, false);
    return str_check(out);
}

coe_status decode_stream_flush(struct decode_stream *s, struct str *out)
{
    coe_status st = COE_OK;
    if (s->kind == STREAM_SPM) st = spm_decode_end(s->t, &s->spm, out);
    else if (s->kind == STREAM_WHOLE) st = tokenizer_decode(s->t, out, s->ids.at, s->ids.n, s->skip_special);
    else settle(s, out, true);
    s->ids.n = 0;
    s->first = s->spm.at_start = true;
    s->kind = kind_of(s->t, s);
    return st ? st : str_check(out);
}
