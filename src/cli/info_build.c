/* info_build.c — see info.h. */
#include "cli/info.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <lzma.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yajl/yajl_version.h>
#include <yaml.h>
#include <zlib.h>
#include <zstd.h>

#include "tensor/kernels.h"

#if defined(__clang__)
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* Versions of what is linked in, asked of the libraries themselves. */
static json_t *libraries(void)
{
    char pcre2[64] = "", yajl[32];
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    pcre2[strcspn(pcre2, " ")] = 0; /* behind it stands a date */
    const int y = yajl_version();
    snprintf(yajl, sizeof yajl, "%d.%d.%d", y / 10000, y / 100 % 100, y % 100);
    const unsigned xx = XXH_versionNumber();
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "jansson", jansson_version_str(), "libyaml",
                          yaml_get_version_string(), "pcre2", pcre2, "utf8proc", utf8proc_version(), "zstd",
                          ZSTD_versionString(), "xz", lzma_version_string(), "zlib", zlibVersion(), "yajl", yajl);
    if (o) json_object_set_new(o, "xxhash", json_sprintf("%u.%u.%u", xx / 10000, xx / 100 % 100, xx % 100));
    return o;
}

static json_t *levels(void)
{
    json_t *list = json_array();
    for (size_t i = 0; kernels_all()[i]; i++) json_array_append_new(list, json_string(kernels_all()[i]->name));
    return list;
}

static void print_members(const char *title, const json_t *o)
{
    const char *key;
    json_t *value;
    printf("  %-14s", title);
    json_object_foreach((json_t *)(uintptr_t)o, key, value) printf("%s %s  ", key, json_string_value(value));
    putchar('\n');
}

coe_status info_build(struct cli *c)
{
    COE_TRY(kernels_init());
    json_t *usable = levels(), *libs = libraries();
    if (cli_flag(c, "json")) {
        cli_print_json(json_pack("{s:s, s:s, s:o, s:s, s:i, s:o}", "version", coe_version(), "compiler", COMPILER,
                                 "isa_levels", usable, "isa", kern->name, "threads", coe_threads(), "libraries", libs));
        return COE_OK;
    }
    printf("coe %s\n  compiler      %s\n  kernels       %s (this CPU has:", coe_version(), COMPILER, kern->name);
    for (size_t i = 0; i < json_array_size(usable); i++) printf(" %s", json_string_value(json_array_get(usable, i)));
    printf("; COE_ISA chooses)\n  threads       %d\n", coe_threads());
    print_members("libraries", libs);
    json_decref(usable);
    json_decref(libs);
    return COE_OK;
}
