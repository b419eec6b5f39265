/* golden.c — see golden.h. */
#include "support/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* What a failing test leaves open is closed here: a failed assertion jumps out of the test. */
#define MAX_OPEN 64
static json_t *documents[MAX_OPEN];
static struct ckpt *checkpoints[MAX_OPEN];
static size_t n_documents, n_checkpoints;

static void close_all(void)
{
    while (n_documents) json_decref(documents[--n_documents]);
    while (n_checkpoints) ckpt_close(checkpoints[--n_checkpoints]);
}

const char *golden_path(const struct golden_folder *f, const char *format, ...)
{
    static char buffer[4][1400];
    static unsigned next;
    char *out = buffer[next++ % 4];
    char name[300];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    snprintf(out, sizeof buffer[0], "%s/%s", f->path, name);
    return out;
}

const json_t *golden_peek(const struct golden_folder *f, const char *file)
{
    if (n_documents == MAX_OPEN || json_read_file(&documents[n_documents], golden_path(f, "%s", file))) return NULL;
    return documents[n_documents++];
}

const json_t *golden_json(const struct golden_folder *f, const char *file)
{
    const json_t *doc = golden_peek(f, file);
    if (!doc) fail_msg("%s", coe_error());
    return doc;
}

struct ckpt *golden_ckpt(const struct golden_folder *f, const char *file)
{
    assert_true(n_checkpoints < MAX_OPEN);
    assert_ok(ckpt_open(&checkpoints[n_checkpoints], golden_path(f, "%s", file)));
    return checkpoints[n_checkpoints++];
}

static void verdict(struct golden_folder *f, const char *what)
{
    if (f->decided) return;
    f->decided = true;
    printf("%s: %s\n", f->label, what);
}

struct golden_case {
    struct golden_folder folder;
    golden_fn *fn;
};

static void run_case(void **state)
{
    struct golden_case *c = *state;
    struct arena_mark mark = arena_save(test_arena());
    c->fn(&c->folder);
    arena_rewind(test_arena(), mark);
    verdict(&c->folder, "passed");
}

void golden_without(const struct golden_folder *f)
{
    printf("%s: without a test\n", f->label);
    skip();
}

static int set_up(void **state)
{
    struct golden_case *c = *state;
    if (c->fn == golden_without) c->folder.decided = true; /* its line is not a verdict */
    return 0;
}

static int tear_down(void **state)
{
    struct golden_case *c = *state;
    verdict(&c->folder, "failed");
    close_all();
    return 0;
}

static size_t choose_cases(struct golden_case *cases, const struct file_list *names, const char *kind,
                           golden_chooser *choose)
{
    size_t n = 0;
    for (size_t i = 0; i < names->n; i++) {
        struct golden_folder *f = &cases[n].folder;
        snprintf(f->path, sizeof f->path, "%s/%s", fixture(kind), names->name[i]);
        if (!dir_exists(f->path)) continue;
        f->name = names->name[i];
        snprintf(f->label, sizeof f->label, "%s/%s", kind, f->name);
        if ((cases[n].fn = choose(f))) n++;
        close_all();
    }
    return n;
}

int golden_run(const char *group, const char *kind, golden_chooser *choose)
{
    struct file_list names = { 0 };
    coe_set_threads(1); /* fixtures are tiny; threads would wait for each other more than they compute */
    if (!dir_exists(fixture(kind)) || dir_list(&names, fixture(kind))) {
        printf("%s: skipped\n", kind);
        return 0;
    }
    struct golden_case *cases = calloc(names.n + 1, sizeof *cases);
    struct CMUnitTest *tests = calloc(names.n + 1, sizeof *tests);
    if (!cases || !tests) return 1;
    const size_t n = choose_cases(cases, &names, kind, choose);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ cases[i].folder.label, run_case, set_up, tear_down, &cases[i] };
    const int failed = _cmocka_run_group_tests(group, tests, n, NULL, NULL);
    file_list_free(&names);
    free(tests);
    free(cases);
    return failed != 0;
}
