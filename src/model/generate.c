/* generate.c — drawing one token after the other. A token drawn is fed only when the next one is wanted: whoever stops
 * does not pay for it, and whoever goes on loses nothing. */
#include <string.h>

#include "model/model.h"

coe_status generator_open(struct generator *g, struct coe_session *s, const coe_sampling *how)
{
    const struct coe_model *m = s->model;
    *g = (struct generator){ .s = s, .pending = -1 };
    coe_status status = sampler_open(&g->sampler, how, m->spec.vocab);
    if (!status && m->tokenizer) status = decode_stream_open(&g->stream, m->tokenizer, true);
    if (!status && !(g->logits = mem_alloc("logits", (size_t)m->spec.vocab * sizeof *g->logits))) status = COE_E_NOMEM;
    /* room for all that fits the cache: no allocation between two tokens */
    if (!status && !VEC_RESERVE(&g->history, (size_t)s->capacity + 1)) status = COE_E_NOMEM;
    if (status) generator_close(g);
    return status;
}

void generator_close(struct generator *g)
{
    if (g->stream) decode_stream_close(g->stream);
    sampler_close(&g->sampler);
    str_free(&g->text);
    VEC_FREE(&g->history);
    mem_free(g->logits);
    *g = (struct generator){ .pending = -1 };
}

static coe_status feed_pending(struct generator *g, float *logits)
{
    if (g->pending < 0) return COE_OK;
    COE_TRY(coe_session_eval(g->s, &g->pending, 1, logits, 1));
    g->pending = -1;
    return COE_OK;
}

coe_status generator_feed(struct generator *g, const int32_t *ids, size_t n)
{
    if (!n && g->pending < 0) return coe_fail(COE_E_USAGE, "no tokens to go on from");
    COE_TRY(feed_pending(g, n ? NULL : g->logits));
    if (!n) return COE_OK;
    COE_TRY(coe_session_eval(g->s, ids, n, g->logits, 1));
    if (!VEC_RESERVE(&g->history, g->history.n + n)) return COE_E_NOMEM;
    for (size_t i = 0; i < n; i++) g->history.at[g->history.n++] = ids[i];
    return COE_OK;
}

static bool is_end(const struct coe_model *m, int32_t id)
{
    for (int32_t i = 0; i < m->spec.n_eos; i++)
        if (m->spec.eos[i] == id) return true;
    return false;
}

coe_status generator_next(struct generator *g, int32_t *id)
{
    *id = -1;
    str_clear(&g->text);
    g->full = g->pending >= 0 && g->s->position == g->s->capacity;
    if (g->full) return COE_OK;
    COE_TRY(feed_pending(g, g->logits));
    g->sampler.history = g->history.at;
    g->sampler.n_history = g->history.n;
    g->pending = sampler_draw(&g->sampler, g->logits);
    if (is_end(g->s->model, g->pending)) return COE_OK;
    *id = g->pending;
    if (!VEC_PUSH(&g->history, g->pending)) return COE_E_NOMEM;
    if (g->stream) COE_TRY(decode_stream_push(g->stream, &g->text, *id));
    return str_check(&g->text);
}

coe_status generator_flush(struct generator *g)
{
    str_clear(&g->text);
    if (g->stream) COE_TRY(decode_stream_flush(g->stream, &g->text));
    return str_check(&g->text);
}

coe_status coe_generate(coe_session *s, const int32_t *ids, size_t n, int32_t max_new, const coe_sampling *how,
                        coe_text_fn *on_text, void *user, int32_t *n_new)
{
    struct generator g = { .pending = -1 };
    int32_t made = 0, id = 0;
    bool stop = false;
    coe_status status = COE_OK;
    if (n_new) *n_new = 0;
    if (on_text && !s->model->tokenizer) return coe_fail(COE_E_INPUT, "%s: has no tokenizer", s->model->path);
    status = generator_open(&g, s, how);
    if (!status) status = generator_feed(&g, ids, n);
    while (!status && !stop && made < max_new && !coe_interrupted()) {
        status = generator_next(&g, &id);
        if (status || id < 0) break;
        made++;
        if (g.text.n && on_text) stop = on_text(user, g.text.at, g.text.n) != 0;
    }
    if (!status) status = generator_flush(&g);
    if (!status && g.text.n && on_text) on_text(user, g.text.at, g.text.n);
    if (!status && id >= 0 && s->position < s->capacity) status = feed_pending(&g, NULL);
    if (n_new) *n_new = made;
    generator_close(&g);
    return status;
}
