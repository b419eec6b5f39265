/* The command line itself: help of every verb, wrong verbs and options, the version. */
#include <string.h>

#include "cli/cli.h"
#include "support/process.h"

static void every_verb_has_an_example_and_every_option_a_text(void **state)
{
    (void)state;
    const struct part *p;
    for (size_t i = 0; (p = part_at("verb", i)); i++) {
        const struct verb *v = p->impl;
        if (!p->summary || !*p->summary) fail_msg("coe %s has no summary", p->name);
        if (!v->usage) fail_msg("coe %s has no usage", p->name);
        if (!v->example || !strstr(v->example, "coe ")) fail_msg("coe %s has no example", p->name);
        for (size_t k = 0; k < v->n_opts; k++) {
            const struct cli_opt *o = &v->opts[k];
            if (!o->help || strlen(o->help) < 5) fail_msg("coe %s --%s has no help", p->name, o->name);
            if ((o->type == OPT_FLAG) != !o->arg) fail_msg("coe %s --%s: a value without a name", p->name, o->name);
            for (size_t j = 0; j < k; j++)
                if (!strcmp(o->name, v->opts[j].name) || (o->letter && o->letter == v->opts[j].letter))
                    fail_msg("coe %s: --%s and --%s are told apart by nothing", p->name, o->name, v->opts[j].name);
        }
    }
}

static void help_of_every_verb_prints(void **state)
{
    (void)state;
    const struct part *p;
    for (size_t i = 0; (p = part_at("verb", i)); i++) {
        struct ran r = run_coe(0, NULL, COE_ARGS("help", p->name));
        if (!strstr(r.out, "usage: coe ") || !strstr(r.out, "example:") || r.n_err)
            fail_msg("coe help %s: '%s' '%s'", p->name, r.out, r.err);
        ran_free(&r);
    }
}

static void help_lists_every_verb_and_answers_at_once(void **state)
{
    (void)state;
    const double start = coe_now();
    struct ran r = run_coe(0, NULL, COE_ARGS("help"));
    print_message("coe help took %.1f ms\n", 1000 * (coe_now() - start));
    const struct part *p;
    for (size_t i = 0; (p = part_at("verb", i)); i++)
        if (!strstr(r.out, p->name)) fail_msg("coe help does not list %s", p->name);
    struct ran none = run_coe(0, NULL, COE_ARGS(NULL)), flag = run_coe(0, NULL, COE_ARGS("--help"));
    assert_string_equal(r.out, none.out);
    assert_string_equal(r.out, flag.out);
    ran_free(&r);
    ran_free(&none);
    ran_free(&flag);
}

static void a_help_flag_behind_a_verb_explains_it(void **state)
{
    (void)state;
    struct ran a = run_coe(0, NULL, COE_ARGS("run", "--help")), b = run_coe(0, NULL, COE_ARGS("help", "run"));
    assert_string_equal(a.out, b.out);
    ran_free(&a);
    ran_free(&b);
}

static void the_version_is_the_librarys(void **state)
{
    (void)state;
    struct ran r = run_coe(0, NULL, COE_ARGS("--version"));
    assert_non_null(strstr(r.out, coe_version()));
    ran_free(&r);
}

/* Wrong usage: status 2, one line on stderr, nothing on stdout. */
static void wrong_usage_is_status_2_and_one_line(void **state)
{
    (void)state;
    static const char *const cases[][5] = {
        { "fly", NULL },                           /* no such verb */
        { "help", "fly", NULL },                   /* none either */
        { "run", NULL },                           /* no model */
        { "run", "m", "--wings", NULL },           /* no such option */
        { "run", "m", "-n", NULL },                /* no value */
        { "run", "m", "-n", "many", NULL },        /* no number */
        { "run", "m", "--top-p", "1.5", NULL },    /* out of range */
        { "run", "m", "--json=1", NULL },          /* a flag with a value */
        { "info", NULL },                          /* neither model nor --build */
        { "convert", "m", NULL },                  /* no place to write */
        { "bench", NULL },                         /* nothing to measure */
        { "bench", "limits", "x", NULL },          /* what is x? */
        { "convert", "m", "o", "--gate", "shared" }, /* --gate without --chain */
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        const char *args[6] = { 0 };
        for (size_t k = 0; k < 5 && cases[i][k]; k++) args[k] = cases[i][k];
        struct ran r = run_coe(COE_E_USAGE, NULL, args);
        if (r.n_out || !r.n_err || strchr(r.err, '\n') != r.err + r.n_err - 1)
            fail_msg("case %zu (coe %s): '%s' '%s'", i, args[0], r.out, r.err);
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_has_an_example_and_every_option_a_text),
        cmocka_unit_test(help_of_every_verb_prints),
        cmocka_unit_test(help_lists_every_verb_and_answers_at_once),
        cmocka_unit_test(a_help_flag_behind_a_verb_explains_it),
        cmocka_unit_test(the_version_is_the_librarys),
        cmocka_unit_test(wrong_usage_is_status_2_and_one_line),
    };
    return cmocka_run_group_tests_name("end-to-end/help", tests, NULL, NULL);
}
