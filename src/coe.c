/* coe.c — the public functions of coe.h about models and text. Sessions and generation are in model/session.c. */
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

coe_status coe_model_open(coe_model **out, const char *path, const coe_open_opts *opts)
{
    const coe_open_opts o = opts ? *opts : (coe_open_opts){ 0 };
    *out = NULL;
    if (!path) return coe_fail(COE_E_USAGE, "coe_model_open: the path is NULL");
    if (o.threads < 0) return coe_fail(COE_E_USAGE, "%s: %d threads", path, o.threads);
    coe_set_threads(o.threads);
    if (o.memory_bytes) mem_set_budget(o.memory_bytes);
    COE_TRY(model_open(out, path));
    coe_status s = o.plan_path ? plan_open_live(*out, o.plan_path) : COE_OK;
    if (!s) s = model_pack(*out);
    if (s) model_close(*out), *out = NULL;
    return s;
}

void coe_model_close(coe_model *m) { model_close(m); }

int32_t coe_vocab_size(const coe_model *m) { return m->spec.vocab; }
int32_t coe_n_layers(const coe_model *m) { return m->spec.n_layers; }

/* NULL for a dense layer and for a layer that is not there */
static const struct moe_spec *moe_of(const coe_model *m, int32_t l)
{
    return l >= 0 && l < m->spec.n_layers && m->spec.layer[l].is_moe ? &m->spec.layer[l].moe : NULL;
}

int32_t coe_n_experts(const coe_model *m, int32_t l)
{
    const struct moe_spec *moe = moe_of(m, l);
    return moe ? moe->n_experts : 0;
}

int32_t coe_n_iterations(const coe_model *m, int32_t l)
{
    const struct moe_spec *moe = moe_of(m, l);
    return moe ? moe->chain.n_iterations : 0;
}

/* What leaves the library is the caller's to free(): a malloc'ed copy with a NUL behind it. */
static coe_status hand_out(void *to, const void *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy) return coe_fail(COE_E_NOMEM, "no memory for %zu bytes of result", n);
    if (n) memcpy(copy, bytes, n);
    copy[n] = 0;
    memcpy(to, &copy, sizeof copy);
    return COE_OK;
}

static coe_status need_tokenizer(const coe_model *m)
{
    if (m->tokenizer) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", m->path);
}

coe_status coe_tokenize(const coe_model *m, const char *text, size_t n_bytes, int add_special, int32_t **ids, size_t *n)
{
    struct ids found = { 0 };
    *ids = NULL;
    *n = 0;
    COE_TRY(need_tokenizer(m));
    coe_status s = tokenizer_encode(m->tokenizer, &found, text, n_bytes, add_special != 0);
    if (!s) s = hand_out(ids, found.at, found.n * sizeof *found.at);
    if (!s) *n = found.n;
    VEC_FREE(&found);
    return s;
}

coe_status coe_detokenize(const coe_model *m, const int32_t *ids, size_t n, char **text, size_t *n_bytes)
{
    struct str bytes = { 0 };
    *text = NULL;
    COE_TRY(need_tokenizer(m));
    coe_status s = tokenizer_decode(m->tokenizer, &bytes, ids, n, false);
    if (!s) s = str_check(&bytes);
    if (!s) s = hand_out(text, bytes.at, bytes.n);
    if (!s && n_bytes) *n_bytes = bytes.n;
    str_free(&bytes);
    return s;
}
