/* The choice of a level, and the functions that are there without choosing. */
#include "tensor/levels.h"

#include <stdlib.h>

static void portable_is_first_and_every_table_is_full(void **state)
{
    (void)state;
    assert_string_equal(kernels_all()[0]->name, "portable");
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        const void *entry[sizeof **k / sizeof(void *)];
        memcpy(entry, *k, sizeof **k);
        for (size_t i = 0; i < COE_COUNT(entry); i++)
            if (!entry[i]) fail_msg("level %s: entry %zu of the table is empty", (*k)->name, i);
    }
}

static void coe_isa_chooses_a_level_and_refuses_unknown_ones(void **state)
{
    (void)state;
    const struct kernels *best = kern;
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        setenv("COE_ISA", (*k)->name, 1);
        assert_ok(kernels_init());
        assert_ptr_equal(kern, *k);
    }
    setenv("COE_ISA", "mmx", 1);
    assert_int_equal(kernels_init(), COE_E_USAGE);
    assert_error_has("COE_ISA=mmx");
    unsetenv("COE_ISA");
    assert_ok(kernels_init());
    assert_ptr_equal(kern, best);
}

static void activations_have_names(void **state)
{
    (void)state;
    for (int a = 0; a < ACT_COUNT; a++) assert_non_null(activation_name[a]);
    assert_string_equal(activation_name[ACT_SWIGLU_CLAMP], "swiglu_clamp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(portable_is_first_and_every_table_is_full),
        cmocka_unit_test(coe_isa_chooses_a_level_and_refuses_unknown_ones),
        cmocka_unit_test(activations_have_names),
    };
    return cmocka_run_group_tests_name("tensor/kernels", tests, NULL, NULL);
}
