/* model_args.c — see model_args.h. */
#include "cli/model_args.h"

#include <string.h>

#include "base/file.h"
#include "model/adapter.h"
#include "plan/plan.h"

static coe_status route_by(struct cli *c, struct coe_model *m)
{
    const char *rule = cli_str(c, "route", NULL);
    char k[32];
    snprintf(k, sizeof k, "top_k=%d", (int)cli_int(c, "experts-used", 0));
    if (cli_given(c, "experts-used")) COE_TRY(spec_route(&m->spec, k));
    return rule ? spec_route(&m->spec, rule) : COE_OK;
}

static coe_status set_task(struct cli *c, struct coe_model *m)
{
    m->task = (int32_t)cli_int(c, "task", 0);
    return cli_given(c, "task") ? model_check_task(m, m->task) : COE_OK;
}

coe_status cli_open_model(struct cli *c, int i, struct coe_model **out)
{
    const char *plan = cli_str(c, "plan", NULL), *adapter = cli_str(c, "adapter", NULL);
    COE_TRY(model_open(out, cli_arg(c, i)));
    coe_status s = route_by(c, *out);
    if (!s) s = set_task(c, *out);
    if (!s && adapter) s = adapter_open(*out, adapter);
    if (!s && plan) s = plan_open_live(*out, plan);
    if (!s) s = model_pack(*out);
    if (!s) return COE_OK;
    model_close(*out);
    *out = NULL;
    return s;
}

coe_status cli_open_text_model(struct cli *c, int i, struct coe_model **out)
{
    COE_TRY(cli_open_model(c, i, out));
    if ((*out)->tokenizer) return COE_OK;
    coe_status s = coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", cli_arg(c, i));
    model_close(*out);
    *out = NULL;
    return s;
}

coe_status cli_mla(const struct cli *c, const struct coe_model *m, coe_mla *form)
{
    const char *name = cli_str(c, "mla", "absorbed");
    *form = strcmp(name, "expanded") ? COE_MLA_ABSORBED : COE_MLA_EXPANDED;
    if (*form == COE_MLA_ABSORBED && strcmp(name, "absorbed"))
        return coe_fail(COE_E_USAGE, "--mla %s: the forms are absorbed and expanded", name);
    if (cli_given(c, "mla") && !model_mla_name(m, *form))
        return coe_fail(COE_E_USAGE, "--mla %s: %s has no latent attention", name, m->path);
    return COE_OK;
}

coe_status cli_kv(const struct cli *c, coe_kv *type)
{
    const char *name = cli_str(c, "kv", model_kv_name(COE_KV_F32));
    return model_kv_by_name(type, name) ? COE_OK
                                        : coe_fail(COE_E_USAGE, "--kv %s: the types are f32, f16 and q8_0", name);
}

coe_status cli_math(const struct cli *c, coe_math *math)
{
    const char *name = cli_str(c, "math", "fp32");
    *math = strcmp(name, "bf16") ? COE_MATH_FP32 : COE_MATH_BF16;
    if (*math == COE_MATH_FP32 && strcmp(name, "fp32"))
        return coe_fail(COE_E_USAGE, "--math %s: the arithmetics are fp32 and bf16", name);
    return COE_OK;
}

coe_status cli_check_out_dir(const char *path)
{
    struct file_list files = { 0 };
    if (!dir_exists(path))
        return file_exists(path) ? coe_fail(COE_E_USAGE, "%s: is a file; the result is a directory", path) : COE_OK;
    char *config = path_join(path, "config.json");
    if (!config) return COE_E_NOMEM;
    coe_status s = file_exists(config) ? COE_OK : dir_list(&files, path);
    if (!s && files.n)
        s = coe_fail(COE_E_USAGE, "%s: holds files that are no model (%s); choose another place", path, files.name[0]);
    file_list_free(&files);
    mem_free(config);
    return s;
}
