/* template.h — chat templates: the part of Jinja that real ones use, rendered as transformers renders them (sandboxed,
 * trim_blocks, lstrip_blocks, loop controls, no escaping; tojson without ASCII or HTML escapes).
 *
 * A template is parsed once and may be rendered by many threads. It cannot read files, change its data, loop for ever,
 * nest without end or fill the memory: every limit is an error with a message. */
#ifndef COE_TEXT_TEMPLATE_H
#define COE_TEXT_TEMPLATE_H

#include <time.h>

#include "base/json.h"

struct template;

/* COE_E_INPUT with name, line and column. Nothing is kept of the arguments. */
coe_status template_compile(struct template **out, const char *source, size_t n, const char *name);
/* Appends what the template makes of the variables (an object). `now` is what strftime_now shows; NULL: the current
 * local time. COE_E_INPUT with name, line and column, also for the template's own raise_exception. */
coe_status template_render(const struct template *t, struct str *out, const json_t *variables, const struct tm *now);
void template_free(struct template *t);

/* A model's chat template with the names of its special tokens, from a model directory (chat_template.jinja,
 * tokenizer_config.json, chat_template.json), a .gguf file, or a .jinja file. */
struct chat_template;
/* *out = NULL, COE_OK when the model has none. A template that does not parse is an error only when it is rendered. */
coe_status chat_template_open(struct chat_template **out, const char *path);
/* `variables`: messages, and perhaps tools, add_generation_prompt, …; special tokens are added where absent. */
coe_status chat_template_render(struct chat_template *c, struct str *out, const json_t *variables,
                                const struct tm *now);
void chat_template_close(struct chat_template *c);

#endif
