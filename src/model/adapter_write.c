/* adapter_write.c — an adapter as a PEFT directory; the layout is that of adapter_read.c. */
#include <string.h>

#include "base/file.h"
#include "model/adapter.h"
#include "model/gguf_form.h"

/* One pair of tensors: parameters that share A and the tensor of B, by part and, of stacked experts, by expert. */
struct module {
    struct adapter_key key;
    int64_t rows, cols;
    int nested;
    float *a, *b;
};
struct writing {
    const struct coe_model *m;
    struct spec spec; /* of the directory */
    struct arena arena;
    struct module *module;
    size_t n;
};

static bool same_module(const struct module *x, const struct adapter_key *key)
{
    return !strcmp(x->key.module, key->module) && !strcmp(x->key.parameter, key->parameter);
}

/* "model.layers.3.mlp.experts.gate_up_proj" → "mlp.experts.gate_up_proj": what follows the number of the layer */
static const char *behind_layer(const char *name)
{
    const char *at = name;
    for (const char *c = name; *c; c++)
        if (*c == '.' && c[1] >= '0' && c[1] <= '9') {
            const char *dot = strchr(c + 1, '.');
            return dot ? dot + 1 : at;
        }
    return at;
}

static struct module *module_of(struct writing *w, const struct param *p, const struct adapter_key *key)
{
    for (size_t i = w->n; i-- > 0;)
        if (same_module(&w->module[i], key)) return &w->module[i];
    struct module *x = &w->module[w->n++];
    *x = (struct module){ .key = *key };
    const int64_t parts = key->cut.parts > 1 ? key->cut.parts : 1, experts = key->stacked ? key->n_experts : 1;
    x->rows = parts * p->w.rows, x->cols = p->w.cols;
    const size_t rank = (size_t)w->m->adapter->rank * (size_t)experts;
    x->a = arena_push_zero(&w->arena, rank * (size_t)x->cols * sizeof *x->a);
    x->b = arena_push_zero(&w->arena, rank * (size_t)x->rows * sizeof *x->b);
    return x->a && x->b ? x : NULL;
}

static void put(const struct writing *w, struct module *x, const struct adapter_key *key, const struct param *p)
{
    const struct low_rank *l = p->w.low_rank;
    const struct row_change change = row_change_between(&w->m->spec, &w->spec, p);
    const int64_t r = l->a->rows, parts = key->cut.parts > 1 ? key->cut.parts : 1;
    const int64_t experts = key->stacked ? key->n_experts : 1, e = key->stacked ? p->at.expert : 0;
    memcpy(x->a + e * r * x->cols, l->a->data, (size_t)(r * x->cols) * sizeof(float));
    for (int64_t o = 0; o < p->w.rows; o++) {
        const int64_t row = key->cut.how & CUT_ALTERNATE ? o * parts + key->cut.part : key->cut.part * p->w.rows + o;
        const int64_t from = row_change_source(&change, o);
        for (int64_t k = 0; k < r; k++)
            x->b[row * r * experts + k * experts + e] = ((const float *)l->b->data)[from * r + k];
    }
}

static coe_status collect(struct writing *w)
{
    const struct coe_model *m = w->m;
    COE_TRY(adapter_spec(m, &w->arena, &w->spec));
    w->module = arena_push(&w->arena, (m->adapter->n + 1) * sizeof *w->module);
    if (!w->module) return COE_E_NOMEM;
    for (size_t i = 0; i < m->n_params; i++) {
        const struct low_rank *l = m->params[i].w.low_rank;
        struct adapter_key key;
        if (!l) continue;
        if (!adapter_key(m, &m->params[i], 0, &key))
            return coe_fail(COE_E_FAILED, "%s: no name for the adapter of %s", m->path, m->params[i].w.name);
        struct module *x = module_of(w, &m->params[i], &key);
        if (!x) return COE_E_NOMEM;
        put(w, x, &key, &m->params[i]);
    }
    for (size_t i = 0; i < w->n; i++) /* PEFT wraps the tensors of a module one in the other, the last outermost */
        for (size_t k = i + 1; k < w->n; k++)
            if (w->module[i].key.stacked && !strcmp(w->module[i].key.module, w->module[k].key.module))
                w->module[i].nested++;
    return COE_OK;
}

static coe_status add_item(struct writing *w, struct ckpt_item *item, const struct module *x, bool is_a)
{
    char name[400];
    const int64_t rank = (int64_t)w->m->adapter->rank * (x->key.stacked ? x->key.n_experts : 1);
    int n = snprintf(name, sizeof name, "base_model.model.%s", x->key.module);
    for (int i = 0; i < x->nested; i++) n += snprintf(name + n, sizeof name - (size_t)n, ".base_layer");
    snprintf(name + n, sizeof name - (size_t)n, ".lora_%s.weight", is_a ? "A" : "B");
    *item = (struct ckpt_item){ .t = { .name = arena_strdup(&w->arena, name),
                                       .type = DT_F32,
                                       .n_dims = 2,
                                       .dim = { is_a ? rank : x->rows, is_a ? x->cols : rank },
                                       .data = is_a ? x->a : x->b } };
    return item->t.name ? COE_OK : COE_E_NOMEM;
}

static bool listed(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), name)) return true;
    return false;
}

static coe_status write_config(const struct writing *w, const char *dir, const char *base)
{
    const struct adapter *a = w->m->adapter;
    json_t *modules = json_array(), *parameters = json_array();
    for (size_t i = 0; i < w->n; i++) {
        const struct module *x = &w->module[i];
        const char *parameter = x->key.stacked ? behind_layer(x->key.parameter) : NULL;
        if (!parameter)
            json_array_append_new(modules, json_string(x->key.module));
        else if (!listed(parameters, parameter))
            json_array_append_new(parameters, json_string(parameter));
    }
    json_t *doc = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:s, s:o, s:o, s:b, s:b, s:b, s:b, s:b, s:n}", "peft_type",
                            "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base, "r", (int)a->rank,
                            "lora_alpha", a->alpha, "lora_dropout", 0.0, "bias", "none", "target_modules", modules,
                            "target_parameters", parameters, "use_rslora", (int)a->root, "use_dora", 0,
                            "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "modules_to_save");
    char *path = path_join(dir, "adapter_config.json");
    coe_status s = doc && path ? json_write_file(doc, path) : coe_fail(COE_E_NOMEM, "%s: adapter_config.json", dir);
    json_decref(doc);
    mem_free(path);
    return s;
}

static coe_status write_weights(struct writing *w, const char *dir)
{
    static const char *const metadata[][2] = { { "format", "pt" } };
    struct ckpt_item *item = arena_push(&w->arena, (2 * w->n + 1) * sizeof *item);
    if (!item) return COE_E_NOMEM;
    for (size_t i = 0; i < w->n; i++) {
        COE_TRY(add_item(w, &item[2 * i], &w->module[i], true));
        COE_TRY(add_item(w, &item[2 * i + 1], &w->module[i], false));
    }
    char *path = path_join(dir, "adapter_model.safetensors");
    coe_status s = path ? safetensors_write(path, item, 2 * w->n, metadata, 1) : COE_E_NOMEM;
    mem_free(path);
    return s;
}

coe_status adapter_write(const struct coe_model *m, const char *dir, const char *base)
{
    struct writing w = { .m = m };
    struct dir_out out = { 0 };
    if (!m->adapter) return coe_fail(COE_E_USAGE, "%s: has no adapter to write", m->path);
    coe_status s = collect(&w);
    if (!s) s = dir_begin(&out, dir);
    if (!s) s = write_config(&w, out.temp, base);
    if (!s) s = write_weights(&w, out.temp);
    if (!s) s = dir_commit(&out);
    dir_abort(&out);
    arena_free(&w.arena);
    return s;
}
