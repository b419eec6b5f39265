/* route_override.c — the language of `--route`: how tokens choose experts, changed on an opened model.
 *
 *     text     = setting { "," setting }
 *     setting  = SELECTION "=" value          the selection, and its first setting
 *              | SELECTION [ "(" key "=" value { "," key "=" value } ")" ]
 *              | KEY "=" value                top_k, renormalize, scale, groups, groups_kept, group_score
 *              | "capacity(" key "=" value { "," … } ")"
 *              | ROUTER [ "(" key "=" value { "," … } ")" ]      another way to read the same matrix
 *
 * It is read into the "coe" object of a config (spec_json.c) and laid over the spec: one reader checks both. `coe
 * convert --router` writes the same object into a model. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "model/spec.h"

struct reader {
    const char *at, *text, *option;
    const struct spec *spec;
};

static coe_status unknown(const struct reader *r, const char *what)
{
    return coe_fail(COE_E_USAGE, "%s '%s': %s at '%.20s'; coe help route explains it", r->option, r->text, what, r->at);
}

static void skip_space(struct reader *r)
{
    while (isspace((unsigned char)*r->at)) r->at++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (*r->at != c) return false;
    r->at++;
    skip_space(r);
    return true;
}

/* A word or number into out [64] */
static coe_status word(struct reader *r, char out[64])
{
    size_t n = 0;
    skip_space(r);
    while (n < 63 && *r->at && (isalnum((unsigned char)*r->at) || strchr("_.-+", *r->at))) out[n++] = *r->at++;
    out[n] = 0;
    return n ? COE_OK : unknown(r, "a name or number is missing");
}

/* 4, 0.4, yes and no, else a word */
static json_t *value_of(const char *text)
{
    char *end;
    const long long whole = strtoll(text, &end, 10);
    if (!*end) return json_integer(whole);
    const double number = strtod(text, &end);
    if (!*end) return json_real(number);
    if (!strcmp(text, "yes") || !strcmp(text, "true")) return json_true();
    if (!strcmp(text, "no") || !strcmp(text, "false")) return json_false();
    return json_string(text);
}

static coe_status put(json_t *o, const char *key, json_t *value)
{
    if (!json_object_set_new(o, key, value)) return COE_OK;
    return coe_fail(COE_E_USAGE, "%s has a value that is no number and no word", key);
}

/* key=value, … ")" behind an opening bracket */
static coe_status settings(struct reader *r, json_t *o)
{
    char key[64], value[64];
    do {
        COE_TRY(word(r, key));
        if (!take(r, '=')) return unknown(r, "'=' is missing");
        COE_TRY(word(r, value));
        COE_TRY(put(o, key, value_of(value)));
    } while (take(r, ','));
    return take(r, ')') ? COE_OK : unknown(r, "')' is missing");
}

static coe_status selection(struct reader *r, json_t *overlay, const struct part *p)
{
    char value[64];
    json_t *o = json_pack("{s:s}", "kind", p->name);
    COE_TRY(put(overlay, "selection", o));
    if (take(r, '(')) return settings(r, o);
    if (!take(r, '=')) return COE_OK;
    if (!p->params) return unknown(r, "this selection has no settings");
    COE_TRY(word(r, value));
    return put(o, p->params[0].name, value_of(value));
}

static coe_status router(struct reader *r, json_t *overlay, const struct part *p)
{
    char where[200];
    json_t *o = json_pack("{s:s}", "kind", p->name);
    COE_TRY(put(overlay, "router", o));
    snprintf(where, sizeof where, "%s '%.150s'", r->option, r->text);
    COE_TRY(spec_router_fits(r->spec, p->name, where));
    return take(r, '(') ? settings(r, o) : COE_OK;
}

static coe_status capacity(struct reader *r, json_t *overlay)
{
    json_t *o = json_pack("{s:b}", "always", 1); /* a live change serves no training */
    COE_TRY(put(overlay, "capacity", o));
    return settings(r, o);
}

static coe_status setting(struct reader *r, json_t *overlay)
{
    static const char *const keys[] = { "top_k", "renormalize", "scale", "groups", "groups_kept", "group_score" };
    char name[64], value[64];
    COE_TRY(word(r, name));
    skip_space(r);
    for (size_t i = 0; *r->at == '=' && i < COE_COUNT(keys); i++) {
        if (strcmp(name, keys[i])) continue;
        take(r, '=');
        COE_TRY(word(r, value));
        return put(overlay, name, value_of(value));
    }
    if (!strcmp(name, "capacity") && take(r, '(')) return capacity(r, overlay);
    const struct part *p = part_find("selection", name);
    if (p) return selection(r, overlay, p);
    p = part_find("router", name);
    if (p) return router(r, overlay, p);
    return coe_fail(COE_E_USAGE, "%s '%s': there is no setting, selection or router '%s'; coe help route lists them",
                    r->option, r->text, name);
}

static bool routes(const struct spec *s)
{
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe) return true;
    return false;
}

json_t *spec_rule(const struct spec *s, const char *option, const char *text)
{
    struct reader r = { text, text, option, s };
    coe_status status = COE_OK;
    if (!routes(s)) {
        coe_fail(COE_E_USAGE, "%s '%s': a dense model routes nothing", option, text);
        return NULL;
    }
    json_t *overlay = json_object();
    if (!overlay) status = coe_fail(COE_E_NOMEM, "%s: no memory", option);
    do {
        if (!status) status = setting(&r, overlay);
    } while (!status && take(&r, ','));
    if (!status && *r.at) status = unknown(&r, "something is left over");
    if (!status) return overlay;
    json_decref(overlay);
    return NULL;
}

coe_status spec_route(struct spec *s, const char *text)
{
    char where[200];
    json_t *overlay = spec_rule(s, "--route", text);
    if (!overlay) return coe_last_status();
    snprintf(where, sizeof where, "--route '%.150s'", text);
    coe_status status = spec_overlay(s, overlay, where);
    if (!status) status = spec_check(s, where);
    json_decref(overlay);
    /* the same checks blame a config.json elsewhere; here the command line is at fault */
    return status == COE_E_INPUT ? COE_E_USAGE : status;
}
