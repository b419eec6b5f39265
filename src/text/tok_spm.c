/* tok_spm.c — SentencePiece's tokenizer.model: a protocol buffer, of which a dozen fields matter.
 *
 *     ModelProto: 1 pieces {1 text, 2 score, 3 type}, 2 trainer_spec {3 model_type, 24 whitespace as suffix, 35
 * byte_fallback, 46 and 47 names of BOS and EOS}, 3 normalizer_spec {2 charsmap, 3 dummy prefix, 4 extra spaces go, 5
 * escape} */
#include <string.h>

#include "base/base64.h"
#include "text/tok_def.h"

struct wire {
    const unsigned char *at, *end;
    const char *where;
};
struct field {
    uint32_t number, type;
    uint64_t value;      /* type 0, and the bits of types 1 and 5 */
    struct wire content; /* type 2 */
};

struct model {
    struct tok_def *def;
    bool unigram, bytes, suffix, dummy_prefix, extra_spaces_go, escape;
    struct str bos, eos, charsmap;
};

static bool varint(struct wire *w, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        *out |= (uint64_t)(*w->at & 0x7F) << shift;
        if (!(*w->at++ & 0x80)) return true;
    }
    return false;
}

/* False at the end and on damage; *s tells which. */
static bool next_field(struct wire *w, struct field *f, coe_status *s)
{
    static const uint8_t fixed[8] = { [1] = 8, [5] = 4 };
    uint64_t key;
    *s = COE_OK;
    if (w->at == w->end) return false;
    bool ok = varint(w, &key) && key >> 3 && key >> 3 < 1u << 29;
    f->number = (uint32_t)(key >> 3);
    f->type = key & 7;
    f->value = 0;
    if (ok && (f->type == 0 || f->type == 2)) ok = varint(w, &f->value);
    else if (ok && fixed[f->type] && (size_t)(w->end - w->at) >= fixed[f->type]) {
        memcpy(&f->value, w->at, fixed[f->type]);
        w->at += fixed[f->type];
    } else {
        ok = false;
    }
    if (ok && f->type == 2) {
        ok = f->value <= (uint64_t)(w->end - w->at);
        if (ok) {
            f->content = (struct wire){ w->at, w->at + f->value, w->where };
            w->at += f->value;
        }
    }
    if (!ok) *s = coe_fail(COE_E_INPUT, "%s: is not a SentencePiece model (or it is damaged)", w->where);
    return ok;
}

static void set_text(struct str *to, const struct field *f)
{
    str_clear(to);
    if (f->type == 2) str_add(to, (const char *)f->content.at, (size_t)(f->content.end - f->content.at));
}

static coe_status read_piece(struct model *m, struct wire w)
{
    struct field f;
    coe_status s;
    const char *text = "";
    size_t n = 0;
    float score = 0;
    uint64_t type = TOK_NORMAL;
    while (next_field(&w, &f, &s)) {
        if (f.number == 1 && f.type == 2) {
            text = (const char *)f.content.at;
            n = (size_t)(f.content.end - f.content.at);
        }
        if (f.number == 2 && f.type == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, 4);
        }
        if (f.number == 3 && f.type == 0) type = f.value;
    }
    if (s) return s;
    if (type < TOK_NORMAL || type > TOK_BYTE)
        return coe_fail(COE_E_INPUT, "%s: piece %zu has type %llu", w.where, m->def->piece.n, (unsigned long long)type);
    return tok_def_set(m->def, (int64_t)m->def->piece.n, text, n, (double)score, (enum tok_type)type, w.where);
}

static coe_status read_trainer(struct model *m, struct wire w)
{
    struct field f;
    coe_status s;
    while (next_field(&w, &f, &s)) {
        if (f.number == 3 && f.type == 0) {
            if (f.value != 1 && f.value != 2)
                return coe_fail(COE_E_INPUT, "%s: model type %llu; unigram (1) and BPE (2) are supported", w.where,
                                (unsigned long long)f.value);
            m->unigram = f.value == 1;
        }
        if (f.number == 24) m->suffix = f.value != 0;
        if (f.number == 35) m->bytes = f.value != 0;
        if (f.number == 46) set_text(&m->bos, &f);
        if (f.number == 47) set_text(&m->eos, &f);
    }
    return s;
}

static coe_status read_normalizer(struct model *m, struct wire w)
{
    struct field f;
    coe_status s;
    while (next_field(&w, &f, &s)) {
        if (f.number == 2) set_text(&m->charsmap, &f);
        if (f.number == 3) m->dummy_prefix = f.value != 0;
        if (f.number == 4) m->extra_spaces_go = f.value != 0;
        if (f.number == 5) m->escape = f.value != 0;
    }
    return s;
}

/* Id of the control piece of this name, -1. */
static int32_t control_piece(const struct tok_def *d, const struct str *name)
{
    for (size_t i = 0; i < d->piece.n; i++)
        if (d->piece.at[i].type == TOK_CONTROL && d->piece.at[i].n == name->n &&
            !memcmp(d->text.at + d->piece.at[i].at, name->at, name->n))
            return (int32_t)i;
    return -1;
}

static coe_status make_config(struct model *m, const char *where)
{
    struct tok_def *d = m->def;
    struct str map = { 0 };
    int unk = -1;
    for (size_t i = 0; i < d->piece.n && unk < 0; i++)
        if (d->piece.at[i].type == TOK_UNKNOWN) unk = (int)i;
    if (unk < 0) return coe_fail(COE_E_INPUT, "%s: the model has no unknown piece", where);
    base64_encode(&map, m->charsmap.at ? m->charsmap.at : "", m->charsmap.n);
    json_error_t e;
    d->config = json_pack_ex(
        &e, 0, "{s:b, s:i, s:i, s:{s:s, s:s, s:b, s:b, s:b, s:b}, s:{s:s, s:b, s:b}, s:{s:s, s:i, s:b, s:s}}", "spm", 1,
        "bos", (int)control_piece(d, &m->bos), "eos", (int)control_piece(d, &m->eos), "normalizer", "type",
        "SentencePiece", "precompiled_charsmap", map.at ? map.at : "", "add_dummy_prefix", m->dummy_prefix,
        "remove_extra_whitespaces", m->extra_spaces_go, "escape_whitespaces", m->escape, "treat_whitespace_as_suffix",
        m->suffix, "decoder", "type", "SentencePiece", "drop_first", m->dummy_prefix || m->extra_spaces_go,
        "all_spaces", m->extra_spaces_go, "model", "type", m->unigram ? "Unigram" : "BPE", "unk_id", unk,
        "byte_fallback", m->bytes, "scores", "single");
    str_free(&map);
    return d->config ? COE_OK : coe_fail(COE_E_NOMEM, "%s: %s", where, e.text);
}

coe_status tok_read_spm(struct tok_def *d, const char *bytes, size_t n, const char *where)
{
    struct model m = { .def = d, .unigram = true, .dummy_prefix = true, .extra_spaces_go = true, .escape = true };
    struct wire w = { (const unsigned char *)bytes, (const unsigned char *)bytes + n, where };
    struct field f;
    coe_status s;
    str_addz(&m.bos, "<s>");
    str_addz(&m.eos, "</s>");
    while (next_field(&w, &f, &s) && !s) {
        if (f.type != 2) continue;
        if (f.number == 1) s = read_piece(&m, f.content);
        if (f.number == 2) s = read_trainer(&m, f.content);
        if (f.number == 3) s = read_normalizer(&m, f.content);
        if (s) break;
    }
    if (!s && !d->piece.n) s = coe_fail(COE_E_INPUT, "%s: is not a SentencePiece model: it has no pieces", where);
    if (!s) s = make_config(&m, where);
    str_free(&m.bos);
    str_free(&m.eos);
    str_free(&m.charsmap);
    return s;
}
