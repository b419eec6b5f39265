/* tok_def.c — filling a definition. */
#include "text/tok_def.h"

#include <math.h>
#include <string.h>

static coe_status keep(struct tok_def *d, const char *text, size_t n, uint32_t *at, const char *where)
{
    if (n > TOK_MAX_PIECE_BYTES)
        return coe_fail(COE_E_INPUT, "%s: a piece of %zu bytes, at most %d", where, n, TOK_MAX_PIECE_BYTES);
    if (d->text.n + n > UINT32_MAX) return coe_fail(COE_E_INPUT, "%s: the vocabulary is larger than 4 GB", where);
    *at = (uint32_t)d->text.n;
    str_add(&d->text, text, n);
    return str_check(&d->text);
}

coe_status tok_def_set(struct tok_def *d, int64_t id, const char *text, size_t n, double score, enum tok_type type,
                       const char *where)
{
    if (id < 0 || id >= TOK_MAX_VOCAB)
        return coe_fail(COE_E_INPUT, "%s: token id %lld is outside 0 … %d", where, (long long)id, TOK_MAX_VOCAB - 1);
    if (!isfinite(score))
        return coe_fail(COE_E_INPUT, "%s: the score of token %lld is not finite", where, (long long)id);
    struct tok_piece p = { 0, (uint32_t)n, (float)score, (uint8_t)type };
    COE_TRY(keep(d, text, n, &p.at, where));
    /* ids come nearly in order; a far id in a small file must not cost memory for the gap */
    if ((uint64_t)id > 4 * d->text.n + 65536)
        return coe_fail(COE_E_INPUT, "%s: token id %lld in a vocabulary of %zu bytes", where, (long long)id, d->text.n);
    if (!VEC_RESERVE(&d->piece, (size_t)id + 1)) return COE_E_NOMEM;
    for (; d->piece.n <= (size_t)id; d->piece.n++) d->piece.at[d->piece.n] = (struct tok_piece){ 0 };
    d->piece.at[id] = p;
    return COE_OK;
}

coe_status tok_def_merge(struct tok_def *d, const char *left, size_t n_left, const char *right, size_t n_right,
                         const char *where)
{
    struct tok_merge_text m = { 0, (uint32_t)n_left, (uint32_t)(n_left + n_right) };
    uint32_t at;
    if (!n_left || !n_right) return coe_fail(COE_E_INPUT, "%s: merge %zu has an empty side", where, d->merge.n);
    if (d->merge.n >= 4u * TOK_MAX_VOCAB)
        return coe_fail(COE_E_INPUT, "%s: more than %d merges", where, 4 * TOK_MAX_VOCAB);
    COE_TRY(keep(d, left, n_left, &m.at, where));
    COE_TRY(keep(d, right, n_right, &at, where));
    return VEC_PUSH(&d->merge, m) ? COE_OK : COE_E_NOMEM;
}

coe_status tok_def_merge_line(struct tok_def *d, const char *line, size_t n, const char *where)
{
    const char *space = n > 1 ? memchr(line + 1, ' ', n - 1) : NULL;
    if (!space)
        return coe_fail(COE_E_INPUT, "%s: merge %zu is '%.*s', expected two parts", where, d->merge.n,
                        (int)COE_MIN(n, (size_t)60), line);
    size_t left = (size_t)(space - line);
    return tok_def_merge(d, line, left, space + 1, n - left - 1, where);
}

void tok_def_free(struct tok_def *d)
{
    str_free(&d->text);
    VEC_FREE(&d->piece);
    VEC_FREE(&d->score);
    VEC_FREE(&d->merge);
    json_decref(d->config);
    *d = (struct tok_def){ 0 };
}
