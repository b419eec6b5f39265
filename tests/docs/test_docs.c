/* The documentation is true: the method that docs/adding-a-method.md adds compiles, and links into the sources lead
 * where they say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/process.h"

/* The first ```c block of a page, written to a temporary file. */
static const char *extract_code(const char *page)
{
    size_t n;
    unsigned char *bytes = slurp(page, &n);
    char *text = malloc(n + 1);
    assert_non_null(text);
    memcpy(text, bytes, n);
    text[n] = 0;
    char *from = strstr(text, "```c\n"), *to = from ? strstr(from + 5, "```\n") : NULL;
    if (!to) fail_msg("%s: no C block", page);
    const char *path = temp_path("example.c");
    spill(path, from + 5, (size_t)(to - from) - 5);
    free(text);
    free(bytes);
    return path;
}

static void the_method_that_is_added_compiles(void **state)
{
    (void)state;
    const char *path = extract_code("docs/adding-a-method.md");
    char command[1400];
    snprintf(command, sizeof command, "gcc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Isrc -fsyntax-only %s",
             path);
    struct ran r = run_program(NULL, (const char *const[]){ "/bin/sh", "-c", command, NULL });
    if (r.status) fail_msg("docs/adding-a-method.md:\n%.3000s", r.err);
    ran_free(&r);
}

static void links_into_the_sources_lead_to_what_they_name(void **state)
{
    (void)state;
    struct ran r = run_program(NULL, (const char *const[]){ "scripts/anchors", "--check", NULL });
    if (r.status) fail_msg("%.3000s", r.out);
    ran_free(&r);
}

/* Every file named in a link of the pages exists. */
static void links_to_files_lead_somewhere(void **state)
{
    (void)state;
    const char *command =
        "for p in README.md bench/README.md docs/*.md; do grep -oE '\\]\\([^)#: ]+' $p | sed 's/^](//' | "
        "while read -r f; do [ -e \"$(dirname $p)/$f\" ] || echo \"$p: $f is not there\"; done; done";
    struct ran r = run_program(NULL, (const char *const[]){ "/bin/sh", "-c", command, NULL });
    if (r.n_out) fail_msg("%.3000s", r.out);
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_method_that_is_added_compiles),
        cmocka_unit_test(links_into_the_sources_lead_to_what_they_name),
        cmocka_unit_test(links_to_files_lead_somewhere),
    };
    return cmocka_run_group_tests_name("docs", tests, NULL, NULL);
}
