/* Heat maps: levels, layout, legend. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/heatmap.h"

static char drawn[16384];

static const char *draw(const struct heatmap *h)
{
    FILE *f = fmemopen(drawn, sizeof drawn, "w");
    assert_non_null(f);
    heatmap_print(f, h);
    fclose(f);
    return drawn;
}

/* 4 levels up to 1: (0, .25] is 1, (.25, .5] is 2, … */
static void levels_are_equal_steps_and_only_nothing_is_zero(void **state)
{
    (void)state;
    assert_int_equal(heat_level(0, 1, 4), 0);
    assert_int_equal(heat_level(1e-9, 1, 4), 1);
    assert_int_equal(heat_level(0.25, 1, 4), 1);
    assert_int_equal(heat_level(0.26, 1, 4), 2);
    assert_int_equal(heat_level(1, 1, 4), 4);
    assert_int_equal(heat_level(7, 1, 4), 4);
    assert_int_equal(heat_level(1, 0, 4), 0);
    assert_int_equal(heat_level(NAN, 1, 4), 0);
}

static void a_small_map_is_drawn_with_shades(void **state)
{
    (void)state;
    const double a[] = { 0, 0.1, 0.2, 0.4 }, b[] = { 0.3, NAN, 0, 0.4 };
    const struct heat_row rows[] = { { "layer 0", 4, a }, { "layer 10", 4, b } };
    assert_string_equal(
        draw(&(struct heatmap){ .row = rows, .n_rows = 2, .columns = "expert", .values = "share", .percent = true }),
        "expert    0\n"
        "layer 0   ··░░▒▒██\n"
        "layer 10  ▓▓  ··██\n"
        "·· 0%  ░░ to 10%  ▒▒ to 20%  ▓▓ to 30%  ██ to 40%  share\n");
}

/* 30 columns - label 1 - 2 = 27: one column a cell, 25 cells a line */
static void long_rows_continue_below(void **state)
{
    (void)state;
    double v[30];
    for (int i = 0; i < 30; i++) v[i] = 1;
    const struct heat_row row = { "a", 30, v };
    const char *text = draw(&(struct heatmap){ .row = &row, .n_rows = 1, .width = 30 });
    assert_non_null(strstr(text, "   0    5    10   15   20\n"));
    assert_non_null(strstr(text, "   25\na  █████\n"));
}

static void colours_end_after_every_cell(void **state)
{
    (void)state;
    const double v[] = { 0, 1 };
    const struct heat_row row = { "a", 2, v };
    const char *text = draw(&(struct heatmap){ .row = &row, .n_rows = 1, .colours = true });
    assert_non_null(strstr(text, "\033[48;5;235m  \033[0m\033[48;5;229m  \033[0m\n"));
    assert_null(strstr(text, "█"));
}

static void an_empty_map_and_a_map_of_zeros_draw(void **state)
{
    (void)state;
    const double v[] = { 0, 0 };
    const struct heat_row rows[] = { { "a", 2, v }, { "none", 0, NULL } };
    assert_non_null(strstr(draw(&(struct heatmap){ .row = rows, .n_rows = 2 }), "a     ····\n"));
    draw(&(struct heatmap){ .n_rows = 0 });
}

static void no_color_is_respected(void **state)
{
    (void)state;
    FILE *f = fopen("/dev/null", "w");
    assert_non_null(f);
    assert_false(terminal_colours(f));
    assert_int_equal(terminal_width(f), 100);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_equal_steps_and_only_nothing_is_zero),
        cmocka_unit_test(a_small_map_is_drawn_with_shades),
        cmocka_unit_test(long_rows_continue_below),
        cmocka_unit_test(colours_end_after_every_cell),
        cmocka_unit_test(an_empty_map_and_a_map_of_zeros_draw),
        cmocka_unit_test(no_color_is_respected),
    };
    return cmocka_run_group_tests_name("cli/heatmap", tests, NULL, NULL);
}
