/* cli.c — finds the verb, reads its options, runs it, prints the one error line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define MAX_VALUES 256

struct cli {
    const struct part *part;
    const struct verb *verb;
    const char *args[MAX_VALUES];
    int n_args;
    struct {
        const struct cli_opt *opt;
        const char *value;
    } given[MAX_VALUES];
    size_t n_given;
    const char *list[MAX_VALUES]; /* storage of the cli_list answers */
    size_t n_list;
};

int cli_n_args(const struct cli *c) { return c->n_args; }
const char *cli_arg(const struct cli *c, int i) { return i < c->n_args ? c->args[i] : NULL; }

static const char *last_value(const struct cli *c, const char *name)
{
    for (size_t i = c->n_given; i-- > 0;)
        if (!strcmp(c->given[i].opt->name, name)) return c->given[i].value ? c->given[i].value : "";
    return NULL;
}

bool cli_flag(const struct cli *c, const char *name) { return last_value(c, name) != NULL; }
bool cli_given(const struct cli *c, const char *name) { return last_value(c, name) != NULL; }

const char *cli_str(const struct cli *c, const char *name, const char *otherwise)
{
    const char *v = last_value(c, name);
    return v ? v : otherwise;
}

int64_t cli_int(const struct cli *c, const char *name, int64_t otherwise)
{
    const char *v = last_value(c, name);
    return v ? strtoll(v, NULL, 10) : otherwise; /* checked when it was read */
}

double cli_num(const struct cli *c, const char *name, double otherwise)
{
    const char *v = last_value(c, name);
    return v ? strtod(v, NULL) : otherwise;
}

uint64_t cli_size(const struct cli *c, const char *name, uint64_t otherwise)
{
    const char *v = last_value(c, name);
    uint64_t bytes = otherwise;
    if (v) (void)parse_size(v, name, &bytes);
    return bytes;
}

const char *const *cli_list(const struct cli *c, const char *name, size_t *n)
{
    struct cli *mine = (struct cli *)(uintptr_t)c; /* the answer's storage lives in the handle */
    size_t first = mine->n_list;
    for (size_t i = 0; i < c->n_given; i++)
        if (!strcmp(c->given[i].opt->name, name) && mine->n_list < MAX_VALUES)
            mine->list[mine->n_list++] = c->given[i].value;
    *n = mine->n_list - first;
    return mine->list + first;
}

json_t *cli_json_text(const char *bytes, size_t n)
{
    struct str clean = { 0 };
    for (size_t i = 0; i < n;) {
        const int len = utf8_decode(bytes + i, n - i, NULL);
        if (len) str_add(&clean, bytes + i, (size_t)len);
        else str_addz(&clean, "\xEF\xBF\xBD");
        i += len ? (size_t)len : 1;
    }
    json_t *text = clean.oom ? NULL : json_stringn(clean.n ? clean.at : "", clean.n);
    str_free(&clean);
    return text;
}

void cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(value);
}

const char *cli_bytes(uint64_t bytes, char text[32])
{
    static const char *const unit[] = { "B", "kB", "MB", "GB", "TB" };
    double x = (double)bytes;
    int u = 0;
    while (x >= 1000 && u < 4) x /= 1000, u++;
    snprintf(text, 32, u ? "%.2f %s" : "%.0f %s", x, unit[u]);
    return text;
}

static const struct cli_opt *find_long(const struct verb *v, const char *name, size_t n)
{
    for (size_t i = 0; i < v->n_opts; i++)
        if (strlen(v->opts[i].name) == n && !memcmp(v->opts[i].name, name, n)) return &v->opts[i];
    return NULL;
}

static const struct cli_opt *find_letter(const struct verb *v, char letter)
{
    for (size_t i = 0; i < v->n_opts; i++)
        if (v->opts[i].letter == letter) return &v->opts[i];
    return NULL;
}

static coe_status check_value(const struct cli_opt *o, const char *value)
{
    char what[64];
    snprintf(what, sizeof what, "--%s", o->name);
    bool any = o->lo == 0 && o->hi == 0;
    if (o->type == OPT_INT) {
        int64_t x;
        return parse_int(value, what, any ? INT64_MIN : (int64_t)o->lo, any ? INT64_MAX : (int64_t)o->hi, &x);
    }
    if (o->type == OPT_NUM) {
        double x;
        COE_TRY(parse_double(value, what, &x));
        if (!any && !(x >= o->lo && x <= o->hi))
            return coe_fail(COE_E_USAGE, "%s: %s is outside %g … %g", what, value, o->lo, o->hi);
    }
    if (o->type == OPT_SIZE) {
        uint64_t x;
        COE_TRY(parse_size(value, what, &x));
        if (!x) return coe_fail(COE_E_USAGE, "%s: '%s' is no room at all", what, value);
    }
    return COE_OK;
}

static coe_status keep(struct cli *c, const struct cli_opt *o, const char *value)
{
    if (c->n_given == MAX_VALUES) return coe_fail(COE_E_USAGE, "more than %d options", MAX_VALUES);
    if (value) COE_TRY(check_value(o, value));
    c->given[c->n_given].opt = o;
    c->given[c->n_given++].value = value;
    return COE_OK;
}

static coe_status parse(struct cli *c, int argc, char **argv)
{
    const char *verb = c->part->name;
    bool only_args = false;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (only_args || a[0] != '-' || !a[1]) {
            if (c->n_args == MAX_VALUES) return coe_fail(COE_E_USAGE, "more than %d arguments", MAX_VALUES);
            c->args[c->n_args++] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            only_args = true;
            continue;
        }
        const struct cli_opt *o;
        const char *value = NULL;
        if (a[1] == '-') {
            const char *eq = strchr(a, '=');
            o = find_long(c->verb, a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2));
            value = eq ? eq + 1 : NULL;
        } else {
            o = a[2] ? find_long(c->verb, a + 1, strlen(a + 1)) : NULL; /* a whole name behind one dash: -pg */
            const bool by_letter = !o;
            if (by_letter) o = find_letter(c->verb, a[1]);
            if (o && by_letter && a[2]) {
                if (o->type == OPT_FLAG) return coe_fail(COE_E_USAGE, "%s: write short flags one by one", a);
                value = a + 2;
            }
        }
        if (!o) return coe_fail(COE_E_USAGE, "unknown option '%s'; see: coe help %s", a, verb);
        if (o->type == OPT_FLAG) {
            if (value) return coe_fail(COE_E_USAGE, "--%s takes no value", o->name);
            COE_TRY(keep(c, o, NULL));
            continue;
        }
        if (!value && i + 1 < argc) value = argv[++i];
        if (!value) return coe_fail(COE_E_USAGE, "--%s needs a value: %s", o->name, o->arg);
        COE_TRY(keep(c, o, value));
        while (o->many && i + 1 < argc && argv[i + 1][0] != '-') COE_TRY(keep(c, o, argv[++i]));
    }
    if (c->n_args < c->verb->min_args || (c->verb->max_args >= 0 && c->n_args > c->verb->max_args))
        return coe_fail(COE_E_USAGE, "usage: coe %s [options]%s%s", verb, *c->verb->usage ? " " : "", c->verb->usage);
    return COE_OK;
}

static int finish(coe_status s, const char *verb)
{
    /* ferror: what a verb flushed itself is lost from the buffer, and the last flush succeeds */
    if ((fflush(stdout) || ferror(stdout)) && !s) s = coe_fail(COE_E_FAILED, "cannot write to standard output");
    if (s) fprintf(stderr, "coe%s%s: %s\n", *verb ? " " : "", verb, *coe_error() ? coe_error() : "failed");
    return (int)s;
}

int cli_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        printf("coe %s\n", coe_version());
        return finish(COE_OK, "");
    }
    static struct cli c;
    c.part = part_find("verb", name);
    if (!c.part) return finish(coe_fail(COE_E_USAGE, "there is no verb '%s'; see: coe help", name), "");
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            c.args[c.n_args++] = name;
            c.part = part_find("verb", "help");
            c.verb = c.part->impl;
            return finish(c.verb->run(&c), "help");
        } else if (!strcmp(argv[i], "--")) {
            break;
        }
    c.verb = c.part->impl;
    coe_status s = parse(&c, argc - 2, argv + 2);
    if (!s && cli_given(&c, "threads")) coe_set_threads((int)cli_int(&c, "threads", 0));
    if (!s && cli_given(&c, "memory")) mem_set_budget(cli_size(&c, "memory", 0));
    if (!s) s = c.verb->run(&c);
    return finish(s, name);
}
