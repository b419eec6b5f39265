/* info_file.c — see info.h. */
#include "cli/info.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/gguf.h"

#define METADATA_ITEMS 8 /* of an array: vocabularies have hundreds of thousands */

uint64_t tensor_stored_bytes(const struct tensor *t)
{
    uint64_t bytes = 0;
    return dtype_bytes(t->type, (uint64_t)tensor_count(t), &bytes) ? bytes : 0;
}

void info_print_types(const struct type_bytes *t)
{
    char text[32];
    const char *between = "";
    for (int i = 0; i < DT_COUNT; i++) {
        if (!t->of[i]) continue;
        printf("%s%s %s", between, dtype_info[i].name, cli_bytes(t->of[i], text));
        between = ", ";
    }
}

json_t *info_types_json(const struct type_bytes *t)
{
    json_t *o = json_object();
    for (int i = 0; i < DT_COUNT; i++)
        if (t->of[i]) json_object_set_new(o, dtype_info[i].name, json_integer((json_int_t)t->of[i]));
    return o;
}

void info_tensors(const struct ckpt *file)
{
    char shape[96], bytes[32];
    for (size_t i = 0; i < ckpt_count(file); i++) {
        const struct tensor *t = ckpt_at(file, i);
        printf("%-60s %-6s %-20s %s\n", t->name, dtype_info[t->type].name, tensor_shape_text(t, shape),
               cli_bytes(tensor_stored_bytes(t), bytes));
    }
}

json_t *info_tensors_json(const struct ckpt *file)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ckpt_count(file); i++) {
        const struct tensor *t = ckpt_at(file, i);
        json_t *shape = json_array();
        for (int32_t k = 0; k < t->n_dims; k++) json_array_append_new(shape, json_integer(t->dim[k]));
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I}", "name", cli_json_text(t->name, strlen(t->name)),
                                              "type", dtype_info[t->type].name, "shape", shape, "bytes",
                                              (json_int_t)tensor_stored_bytes(t)));
    }
    return list;
}

coe_status info_metadata_json(json_t **out, const struct ckpt *file)
{
    const struct gguf *gguf = ckpt_gguf(file);
    *out = gguf ? gguf_json(gguf, METADATA_ITEMS) : NULL;
    return *out || !gguf ? COE_OK : coe_fail(COE_E_NOMEM, "%s: no memory for the metadata", ckpt_path(file));
}

void info_print_metadata(json_t *metadata)
{
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        struct str text = { 0 };
        if (!json_add_text(&text, value, JSON_COMPACT | JSON_ENCODE_ANY))
            printf("  %-40s %.*s%s\n", key, (int)COE_MIN(text.n, (size_t)100), text.n ? text.at : "",
                   text.n > 100 ? "…" : "");
        str_free(&text);
    }
}

coe_status info_file(struct cli *c, const struct ckpt *file)
{
    const char *format = ckpt_gguf(file) ? "gguf" : "safetensors";
    const json_t *config = ckpt_config(file);
    const json_t *type = config ? json_object_get(config, "model_type") : NULL;
    json_t *metadata = NULL;
    struct type_bytes types = { { 0 } };
    char text[32], hex[17];
    coe_status s = ckpt_fingerprint(file, hex);
    if (!s) s = info_metadata_json(&metadata, file);
    for (size_t i = 0; i < ckpt_count(file); i++)
        types.of[ckpt_at(file, i)->type] += tensor_stored_bytes(ckpt_at(file, i));
    if (s) goto out;
    if (cli_flag(c, "json")) {
        json_t *o = json_pack("{s:o, s:s, s:n, s:I, s:I, s:o, s:s}", "path",
                              cli_json_text(ckpt_path(file), strlen(ckpt_path(file))), "format", format, "family",
                              "tensors", (json_int_t)ckpt_count(file), "bytes", (json_int_t)ckpt_bytes(file), "types",
                              info_types_json(&types), "fingerprint", hex);
        if (json_is_string(type)) json_object_set(o, "model_type", (json_t *)(uintptr_t)type);
        if (metadata) json_object_set(o, "metadata", metadata);
        if (cli_flag(c, "tensors")) json_object_set_new(o, "tensor_list", info_tensors_json(file));
        cli_print_json(o);
        goto out;
    }
    printf("%s: %s, %zu tensors, %s\n", ckpt_path(file), format, ckpt_count(file), cli_bytes(ckpt_bytes(file), text));
    if (json_is_string(type)) printf("  model_type '%s' is not a family this program runs\n", json_string_value(type));
    printf("  types        ");
    info_print_types(&types);
    printf("\n  fingerprint  %s\n", hex);
    if (metadata) info_print_metadata(metadata);
    if (cli_flag(c, "tensors")) info_tensors(file);
out:
    json_decref(metadata);
    return s;
}
