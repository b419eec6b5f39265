/* render.c — `coe render MODEL|TEMPLATE.jinja CONTEXT.json`: what a chat template makes of a conversation. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "text/template.h"

static coe_status read_now(struct tm *out, const char *text)
{
    static const char *const formats[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d" };
    for (size_t i = 0; i < COE_COUNT(formats); i++) {
        *out = (struct tm){ .tm_isdst = -1 };
        const char *end = strptime(text, formats[i], out);
        if (end && !*end) {
            struct tm copy = *out; /* fills in the day of the week */
            if (mktime(&copy) != (time_t)-1) *out = copy;
            return COE_OK;
        }
    }
    return coe_fail(COE_E_USAGE, "--now: '%s' is not a time such as 2026-01-02T03:04:05", text);
}

/* An array is the messages; anything but the object is an error. */
static coe_status read_context(json_t **out, const char *path)
{
    json_t *doc = NULL;
    COE_TRY(json_read_file(&doc, path));
    if (json_is_array(doc)) doc = json_pack("{s:o, s:b}", "messages", doc, "add_generation_prompt", 1);
    if (!json_is_object(doc)) {
        coe_fail(COE_E_INPUT, "%s: is %s, expected an object or an array of messages", path, json_kind(doc));
        json_decref(doc);
        return COE_E_INPUT;
    }
    *out = doc;
    return COE_OK;
}

static coe_status run(struct cli *c)
{
    struct chat_template *t = NULL;
    struct str text = { 0 };
    json_t *context = NULL;
    struct tm now;
    const char *when = cli_str(c, "now", NULL), *path = cli_arg(c, 0);
    coe_status s = when ? read_now(&now, when) : COE_OK;
    if (!s) s = read_context(&context, cli_arg(c, 1));
    if (!s) s = chat_template_open(&t, path);
    if (!s && !t) s = coe_fail(COE_E_INPUT, "%s: has no chat template", path);
    if (!s) s = chat_template_render(t, &text, context, when ? &now : NULL);
    if (!s && text.n) fwrite(text.at, 1, text.n, stdout);
    chat_template_close(t);
    json_decref(context);
    str_free(&text);
    return s;
}

static const struct cli_opt opts[] = {
    { "now", 0, OPT_STR, "TIME", "what strftime_now shows, e.g. 2026-01-02T03:04:05 (default: the clock)", 0, 0,
      false },
};
static const struct verb verb = {
    .usage = "MODEL|TEMPLATE.jinja CONTEXT.json",
    .details =
        "CONTEXT.json is an object with the template's variables (messages, tools, add_generation_prompt, …) or just\n"
        "the array of messages, which is followed by the prompt for an answer.",
    .example = "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' > talk.json\n"
               "  coe render chat_template.jinja talk.json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, render, .summary = "render a chat template", .impl = &verb)
