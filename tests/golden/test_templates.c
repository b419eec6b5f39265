/* Chat templates: every template of COE_FIXTURES/templates with every case, byte for byte; where the reference raised
 * an error, any error will do and an output will not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "support/support.h"
#include "text/template.h"

static json_t *cases, *golden; /* golden: template name → list of its rows */
static struct tm now;

static json_t *variables_of(const char *name)
{
    json_t *v = json_copy(json_object_get(cases, "globals"));
    json_object_update(v, json_object_get(json_object_get(cases, "cases"), name));
    return v;
}

static void test_case(const struct template *t, const json_t *row)
{
    const char *name = json_string_value(json_object_get(row, "case"));
    const json_t *want = json_object_get(row, "output");
    struct str out = { 0 };
    json_t *variables = variables_of(name);
    coe_status s = template_render(t, &out, variables, &now);
    json_decref(variables);
    if (!json_is_string(want)) {
        if (!s)
            fail_msg("case %s: rendered, expected an error: %s", name,
                     json_string_value(json_object_get(row, "error")));
        assert_int_equal(s, COE_E_INPUT);
    } else {
        if (s) fail_msg("case %s: %s", name, coe_error());
        const char *w = json_string_value(want);
        size_t n = json_string_length(want), at = 0;
        while (at < n && at < out.n && w[at] == out.at[at]) at++;
        if (at < n || at < out.n)
            fail_msg("case %s: differs at byte %zu: expected '%.60s', got '%.60s'", name, at, w + at,
                     out.at ? out.at + at : "");
    }
    str_free(&out);
}

static void test_template(void **state)
{
    const char *name = *state;
    struct str source = { 0 };
    struct template *t;
    char path[300];
    snprintf(path, sizeof path, "templates/%s", name);
    assert_ok(file_read(&source, fixture(path), 1 << 24));
    assert_ok(template_compile(&t, source.at ? source.at : "", source.n, name));
    const json_t *rows = json_object_get(golden, name);
    for (size_t i = 0; i < json_array_size(rows); i++) test_case(t, json_array_get(rows, i));
    template_free(t);
    str_free(&source);
    printf("templates/%s: passed\n", name);
    *state = NULL;
}

static int tear_down(void **state)
{
    if (*state) printf("templates/%s: failed\n", (const char *)*state);
    return 0;
}

static void read_golden(void)
{
    struct str lines = { 0 };
    assert_ok(json_read_file(&cases, fixture("templates/cases.json")));
    assert_ok(file_read(&lines, fixture("templates/golden.jsonl"), 1 << 28));
    golden = json_object();
    for (char *line = lines.at, *end; line && *line; line = end ? end + 1 : NULL) {
        json_t *row;
        end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) : strlen(line);
        if (!n) continue;
        assert_ok(json_read_text(&row, line, n, "golden.jsonl"));
        const char *name = json_string_value(json_object_get(row, "template"));
        if (!json_object_get(golden, name)) json_object_set_new(golden, name, json_array());
        json_array_append_new(json_object_get(golden, name), row);
    }
    str_free(&lines);
    strptime(json_string_value(json_object_get(cases, "now")), "%Y-%m-%dT%H:%M:%S", &now);
}

int main(void)
{
    if (!fixture_exists("templates/golden.jsonl")) {
        printf("templates: skipped\n");
        return 0;
    }
    read_golden();
    struct CMUnitTest *tests = calloc(json_object_size(golden) + 1, sizeof *tests);
    size_t n = 0;
    const char *name;
    json_t *rows;
    if (!tests) return 1;
    json_object_foreach (golden, name, rows)
        tests[n++] = (struct CMUnitTest) { name, test_template, NULL, tear_down, (void *)(uintptr_t)name };
    int failed = _cmocka_run_group_tests("golden/templates", tests, n, NULL, NULL);
    free(tests);
    json_decref(golden);
    json_decref(cases);
    return failed != 0;
}
