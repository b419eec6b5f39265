/* Templates: the language piece by piece, messages with their place, and limits. Expected outputs are what Jinja 3.1
 * with trim_blocks and lstrip_blocks gives. */
#include <stdio.h>
#include <string.h>

#include "support/support.h"
#include "text/template.h"

static coe_status render(struct str *out, const char *source, const char *variables)
{
    struct template *t;
    json_t *v = NULL;
    struct tm now = { .tm_year = 126, .tm_mon = 0, .tm_mday = 2, .tm_hour = 3 };
    str_clear(out);
    coe_status s = template_compile(&t, source, strlen(source), "t.jinja");
    if (s) return s;
    assert_ok(json_read_text(&v, variables, strlen(variables), "variables"));
    s = template_render(t, out, v, &now);
    json_decref(v);
    template_free(t);
    return s;
}

static void expect(const char *source, const char *variables, const char *want)
{
    struct str out = { 0 };
    coe_status s = render(&out, source, variables);
    if (s) fail_msg("%s: %s", source, coe_error());
    if (strcmp(out.at ? out.at : "", want)) fail_msg("%s: gives '%s', expected '%s'", source, out.at, want);
    str_free(&out);
}

static void refuse(const char *source, const char *message)
{
    struct str out = { 0 };
    coe_status s = render(&out, source, "{\"x\": [1]}");
    if (!s) fail_msg("%s: gives '%s', expected an error", source, out.at ? out.at : "");
    assert_int_equal(s, COE_E_INPUT);
    assert_error_has(message);
    str_free(&out);
}

static void tags_swallow_the_white_space_they_should(void **state)
{
    (void)state;
    expect("a\n  {% if true %}\nb\n  {% endif %}\nc", "{}", "a\nb\nc");
    expect("a {% if true %} b {% endif %} c", "{}", "a  b  c");
    expect("a\n  {{ 1 }}\n", "{}", "a\n  1");
    expect("a \n {%- if true -%} \n b {%- endif %} c", "{}", "ab c");
    expect("  {%+ if true %}x{% endif %}", "{}", "  x");
    expect("{# note #}\nx{# y -#}  z", "{}", "xz");
    expect("{% raw %}{{ x }}{% endraw %}", "{}", "{{ x }}");
}

static void expressions_bind_as_in_jinja(void **state)
{
    (void)state;
    expect("{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ 1 / 2 }} {{ 2 ** 3 }}", "{}", "7 3 -4 -2 0.5 8");
    expect("{{ 'a' ~ 1 + 2 if false else 'n' ~ 1.0 }}", "{}", "n1.0");
    expect("{{ not a and b or c }}", "{\"a\": 0, \"b\": \"B\"}", "B");
    expect("{{ 1 < 2 <= 2 }} {{ 'a' in 'cat' }} {{ 3 not in [1] }}", "{}", "True True True");
    expect("{{ x[1:][0] }} {{ x[-1] }} {{ 'h\xC3\xA9llo'[1:3] }} {{ 'abc'[::-1] }}", "{\"x\": [1, 2, 3]}",
           "2 3 \xC3\xA9l cba");
    expect("{{ {'a': [1, 'x\\'y', none]} }}", "{}", "{'a': [1, \"x'y\", None]}");
    expect("{{ undefined_thing }}|{{ a.b }}", "{\"a\": {}}", "|");
}

static void statements_keep_their_variables_where_they_belong(void **state)
{
    (void)state;
    expect("{% set n = 0 %}{% for i in [1, 2] %}{% set n = i %}{% endfor %}{{ n }}", "{}", "0");
    expect("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "{}",
           "3");
    expect("{% if true %}{% set n = 5 %}{% endif %}{{ n }}", "{}", "5");
    expect("{% for k, v in d.items() %}{{ loop.index }}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}",
           "{\"d\": {\"a\": 1, \"b\": 2}}", "1a=1,2b=2");
    expect("{% for i in [1, 2, 3, 4] if i % 2 == 0 %}{{ i }}/{{ loop.length }} {% else %}none{% endfor %}", "{}",
           "2/2 4/2 ");
    expect("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% if i == 3 %}{% break %}{% endif "
           "%}{% endfor %}",
           "{}", "13");
    expect("{% macro m(a, b='B') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(b=2, a=3) }}", "{}", "[1B][32]");
    expect("{% set t %}x{{ 1 }}{% endset %}{{ t|upper }}{% filter upper %}abc{% endfilter %}", "{}", "X1ABC");
    expect("{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %}", "{}", "<in>");
    expect("{% generation %}a{% endgeneration %}", "{}", "a");
}

static void filters_do_what_pythons_do(void **state)
{
    (void)state;
    expect("{{ x|tojson }} {{ x|tojson(indent=1) }}", "{\"x\": {\"a\": [1.0, \"\xC3\xA9<\"], \"b\": {}}}",
           "{\"a\": [1.0, \"\xC3\xA9<\"], \"b\": {}} {\n \"a\": [\n  1.0,\n  \"\xC3\xA9<\"\n ],\n \"b\": {}\n}");
    expect("{{ 'b,a'.split(',')|sort|join('-') }} {{ [3, 1]|sort(reverse=true)|first }}", "{}", "a-b 3");
    expect("{{ x|selectattr('r', 'equalto', 'u')|map(attribute='c')|list }}",
           "{\"x\": [{\"r\": \"u\", \"c\": 1}, {\"r\": \"v\", \"c\": 2}]}", "[1]");
    expect("{{ ' a '|trim }}|{{ 'ab'|replace('a', 'x') }}|{{ 'heLLo wORLD'|title }}|{{ 'x'|default('d') }}|{{ "
           "y|default('d') }}",
           "{}", "a|xb|Hello World|x|d");
    expect("{{ 'a\nb'|indent(2) }}|{{ 'x'|length }}|{{ '12'|int + 1 }}|{{ {'b': 1, 'a': 2}|dictsort }}", "{}",
           "a\n  b|1|13|[('a', 2), ('b', 1)]");
    expect("{{ 1 is defined }}{{ x is none }}{{ 'a' is string }}{{ [] is iterable }}{{ {} is mapping }}{{ true is "
           "boolean }}",
           "{\"x\": null}", "TrueTrueTrueTrueTrueTrue");
    expect("{{ strftime_now('%d %B %Y') }}", "{}", "02 January 2026");
}

static void numbers_print_as_in_python(void **state)
{
    (void)state;
    expect("{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 100.0 }} {{ 1 == 1.0 }}", "{}",
           "0.30000000000000004 1e+16 1000000000000000.0 0.0001 1e-05 100.0 True");
}

static void errors_name_line_and_column(void **state)
{
    (void)state;
    refuse("a\n{% if %}", "t.jinja: line 2 column 7:");
    refuse("{{ x.y.z }}", "t.jinja: line 1 column 8: 'y' is undefined");
    refuse("{% for i in 5 %}{% endfor %}", "'int' object is not iterable");
    refuse("{{ raise_exception('no such role') }}", "no such role");
    refuse("{{ x.append(2) }}", "access to attribute 'append' of 'list' object is unsafe");
    refuse("{{ 'a' + 1 }}", "can only concatenate str (not \"int\") to str");
    refuse("{{ x|nonsense }}", "No filter named 'nonsense' found");
    refuse("{% if x %}", "missing");
    refuse("{{ 'abc", "without end");
    refuse("{% break %}", "outside a loop");
}

static void nothing_runs_or_grows_without_end(void **state)
{
    (void)state;
    refuse("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper");
    refuse("{{ range(1000000000) }}", "range too big");
    refuse("{{ 'x' * 1000000000 }}", "too long");
    refuse("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than");
    refuse("{% set ns = namespace(t='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% "
           "endfor %}",
           "more than 256 MB");
}

static void deep_nesting_in_the_source_is_refused(void **state)
{
    (void)state;
    struct str source = { 0 };
    str_addz(&source, "{{ ");
    for (int i = 0; i < 100000; i++) str_addc(&source, '(');
    struct template *t;
    assert_int_equal(template_compile(&t, source.at, source.n, "deep"), COE_E_INPUT);
    assert_error_has("nested deeper");
    str_free(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_swallow_the_white_space_they_should),
        cmocka_unit_test(expressions_bind_as_in_jinja),
        cmocka_unit_test(statements_keep_their_variables_where_they_belong),
        cmocka_unit_test(filters_do_what_pythons_do),
        cmocka_unit_test(numbers_print_as_in_python),
        cmocka_unit_test(errors_name_line_and_column),
        cmocka_unit_test(nothing_runs_or_grows_without_end),
        cmocka_unit_test(deep_nesting_in_the_source_is_refused),
    };
    return cmocka_run_group_tests_name("text/template", tests, NULL, NULL);
}
