/* spm_normal.c — SentencePiece's normaliser: the character map by longest match, white space at the ends and doubled
 * white space away (where the model says so), one space in front, spaces as ▁. Bytes that are not UTF-8 become U+FFFD
 * each. */
#include <string.h>

#include "text/tok.h"

#define SPACE_MARK "\xE2\x96\x81"

struct prefix {
    const char *to; /* what stands for it, n_to bytes */
    size_t n_to, n;
};

static struct prefix next_prefix(const struct tokenizer *t, const struct norm_step *step, const char *text, size_t n)
{
    struct prefix p = { 0 };
    if (t->user.n_nodes && trie_longest(&t->user, text, n, &p.n) >= 0) {
        p.to = text;
        p.n_to = p.n;
        return p;
    }
    p.n = charsmap_longest(&step->map, text, n, &p.to);
    if (p.n) {
        p.n_to = strlen(p.to);
        return p;
    }
    int k = utf8_decode(text, n, NULL);
    return k ? (struct prefix){ text, (size_t)k, (size_t)k } : (struct prefix){ "\xEF\xBF\xBD", 3, 1 };
}

static void add_escaped(struct str *out, const struct norm_step *step, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] == ' ' && step->escape) str_addz(out, SPACE_MARK);
        else str_addc(out, text[i]);
}

coe_status spm_normalize(const struct tokenizer *t, const struct norm_step *step, struct str *out, const char *text,
                         size_t n)
{
    struct prefix p;
    const char *space = step->escape ? SPACE_MARK : " ";
    const size_t n_space = strlen(space);
    bool after_space = step->extra_spaces_go;
    while (after_space && n && (p = next_prefix(t, step, text, n), p.n_to == 1 && *p.to == ' ')) text += p.n, n -= p.n;
    if (!n) return str_check(out);
    if (step->dummy_prefix && !step->suffix) str_addz(out, space);
    for (; n; text += p.n, n -= p.n) {
        p = next_prefix(t, step, text, n);
        while (after_space && p.n_to && *p.to == ' ') p.to++, p.n_to--;
        add_escaped(out, step, p.to, p.n_to);
        if (p.n_to) after_space = p.to[p.n_to - 1] == ' ';
        if (!step->extra_spaces_go) after_space = false;
    }
    while (step->extra_spaces_go && out->n >= n_space && !memcmp(out->at + out->n - n_space, space, n_space))
        out->n -= n_space;
    if (step->dummy_prefix && step->suffix) str_addz(out, space);
    return str_check(out);
}
