/* run_chat.c — a conversation through the model's chat template.
 *
 * Each turn renders the whole conversation and encodes it; what the session has seen already is kept, so only what is
 * new is fed. Where a template changes what came before (dropping old reasoning, say), the session goes back to where
 * the two part. */
#include <stdlib.h>
#include <string.h>

#include "cli/run.h"
#include "text/template.h"

struct chat {
    struct chat_template *template;
    json_t *messages;
};

coe_status chat_open(struct chat **out, const char *model_path)
{
    struct chat_template *t;
    *out = NULL;
    COE_TRY(chat_template_open(&t, model_path));
    if (!t) return COE_OK;
    struct chat *c = mem_zalloc("chat", sizeof *c);
    if (!c) {
        chat_template_close(t);
        return COE_E_NOMEM;
    }
    c->template = t;
    c->messages = json_array();
    *out = c;
    if (c->messages) return COE_OK;
    chat_close(c);
    *out = NULL;
    return coe_fail(COE_E_NOMEM, "no memory for a conversation");
}

void chat_close(struct chat *c)
{
    if (!c) return;
    chat_template_close(c->template);
    json_decref(c->messages);
    mem_free(c);
}

static bool has_system(const struct chat *c)
{
    const json_t *role = json_object_get(json_array_get(c->messages, 0), "role");
    return json_is_string(role) && !strcmp(json_string_value(role), "system");
}

void chat_reset(struct chat *c)
{
    while (json_array_size(c->messages) > has_system(c))
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

static coe_status add_message(struct chat *c, size_t at, const char *role, const char *text, size_t n)
{
    struct str shown = { 0 };
    utf8_lossy(&shown, text, n); /* what is typed or made need not be UTF-8 */
    json_t *m = shown.oom ? NULL : json_pack("{s:s, s:s%}", "role", role, "content", shown.at ? shown.at : "", shown.n);
    str_free(&shown);
    if (!m || json_array_insert_new(c->messages, at, m)) return coe_fail(COE_E_NOMEM, "no memory for a message");
    return COE_OK;
}

coe_status chat_set_system(struct chat *c, const char *text)
{
    json_array_clear(c->messages);
    return *text ? add_message(c, 0, "system", text, strlen(text)) : COE_OK;
}

static coe_status render(struct chat *c, const struct talk *t, struct ids *ids)
{
    struct str text = { 0 };
    json_t *variables = json_pack("{s:O, s:b}", "messages", c->messages, "add_generation_prompt", 1);
    coe_status s = variables ? COE_OK : coe_fail(COE_E_NOMEM, "no memory for a conversation");
    if (!s) s = chat_template_render(c->template, &text, variables, NULL);
    if (!s) s = tokenizer_encode(t->m->tokenizer, ids, text.at ? text.at : "", text.n, false);
    json_decref(variables);
    str_free(&text);
    return s;
}

/* Takes the session back to where its tokens and the new ones part; at least one is left to feed. */
static coe_status keep_common(struct talk *t, const struct ids *ids, size_t *kept)
{
    size_t n = 0;
    while (n < (size_t)t->s->position && n + 1 < ids->n && t->g.history.at[n] == ids->at[n]) n++;
    *kept = n;
    t->g.pending = -1;
    t->g.history.n = n;
    return coe_session_rewind(t->s, (int64_t)n);
}

coe_status chat_turn(struct chat *c, struct talk *t, const char *message)
{
    struct ids ids = { 0 };
    size_t kept = 0;
    coe_status s = add_message(c, json_array_size(c->messages), "user", message, strlen(message));
    if (s) return s;
    s = render(c, t, &ids);
    if (!s && !ids.n) s = coe_fail(COE_E_INPUT, "%s: the chat template gives no text", t->m->path);
    if (!s) s = keep_common(t, &ids, &kept);
    if (!s) s = talk_go_on(t, ids.at + kept, ids.n - kept);
    const size_t n = json_array_size(c->messages);
    if (!s) s = add_message(c, n, "assistant", t->text.at ? t->text.at : "", t->text.n);
    else json_array_remove(c->messages, n - 1);
    VEC_FREE(&ids);
    return s;
}
