/* config.json and the index of a sharded model. */
#include <stdlib.h>
#include <string.h>

#include "ckpt/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void read_config(const json_t *config)
{
    int32_t i = 0;
    float f = 0;
    bool b = false;
    const char *s = "";
    (void)json_need_str(config, "model_type", &s, "fuzz");
    (void)json_need_i32(config, "hidden_size", 1, 1 << 20, &i, "fuzz");
    (void)json_get_f32(config, "rms_norm_eps", &f, "fuzz");
    (void)json_get_bool(config, "tie_word_embeddings", &b, "fuzz");
    if (i < 0 || i > 1 << 20 || !s) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    json_t *doc = NULL, *map = NULL, *value;
    const char *key;
    if (!json_read_text(&doc, (const char *)bytes, n, "fuzz")) read_config(doc);
    json_decref(doc);
    if (!shard_index_parse(&map, (const char *)bytes, n, "fuzz"))
        json_object_foreach(map, key, value)
            if (strchr(json_string_value(value), '/')) abort();
    json_decref(map);
    return 0;
}
