/* The sources keep the rules of the house that scripts/style can see. */
#include "support/process.h"

static void the_sources_keep_the_rules_of_the_house(void **state)
{
    (void)state;
    struct ran r = run_program(NULL, (const char *const[]){ "scripts/style", NULL });
    if (r.status) fail_msg("scripts/style:\n%.4000s%s", r.out, r.err);
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_sources_keep_the_rules_of_the_house) };
    return cmocka_run_group_tests_name("end-to-end/style", tests, NULL, NULL);
}
