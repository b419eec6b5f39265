/* tiny_model.c — see tiny_model.h. */
#include "tiny_model.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/model.h"

const char tiny_text[] =
    "Once upon a time there was a king who had a garden, and in the garden stood a tree, and on the tree grew "
    "golden apples. One day the king counted the apples and one was gone. \"Who has taken the apple?\" said "
    "the king, and he called his three sons and told the first to watch the tree by night.\n"
    "The first son sat under the tree, and at midnight he fell asleep, and in the morning another apple was "
    "gone. The second son sat under the tree, and at midnight he fell asleep too.\n";

static coe_status hand_text(void *user, const char **text, size_t *n, bool *more)
{
    int *handed = user;
    *more = !(*handed)++;
    *text = tiny_text;
    *n = strlen(tiny_text);
    return COE_OK;
}

static int32_t or_default(int32_t value, int32_t otherwise) { return value ? value : otherwise; }

static json_t *config_of(const struct tiny *t)
{
    const int32_t d = or_default(t->d_model, 32);
    json_t *router = json_loads(t->router ? t->router : "\"linear\"", JSON_DECODE_ANY, NULL);
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:i, s:{s:o, s:i, s:i, s:i, s:{s:i, s:s, s:s}}}",
                     "model_type", "coe", "vocab_size", or_default(t->vocab, 320), "hidden_size", d,
                     "num_hidden_layers", or_default(t->n_layers, 2), "num_attention_heads", 2, "num_key_value_heads",
                     1, "max_position_embeddings", or_default(t->positions, 256), "rms_norm_eps", 1e-6,
                     "tie_word_embeddings", 1, "eos_token_id", 0, "coe", "router", router, "n_experts",
                     or_default(t->n_experts, 8), "expert_ffn", d / 2, "top_k", or_default(t->top_k, 2), "chain",
                     "iterations", or_default(t->n_iterations, 2), "gate", "independent", "residual", "prenorm");
}

/* A directory with a tokenizer.json, from which the model's is copied. */
static void train_tokenizer(const char *dir, int32_t vocab)
{
    char path[1200];
    int handed = 0;
    const struct bpe_train_opts opts = { .vocab_size = vocab };
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_ok(dir_make(dir));
    log_set_level(0);
    assert_ok(bpe_train(path, hand_text, &handed, &opts));
    log_set_level(1);
}

const char *tiny_model(const char *name, const struct tiny *t)
{
    const struct tiny none = { 0 };
    struct coe_model *m = NULL;
    const char *tokenizer_dir = temp_path("tiny-tokenizer");
    if (!t) t = &none;
    const char *dir = temp_path(name);
    if (!t->no_tokenizer) train_tokenizer(tokenizer_dir, or_default(t->vocab, 320));
    json_t *config = config_of(t);
    if (!config) fail_msg("tiny_model: no memory for the config");
    assert_ok(model_new(&m, config, "tiny model", t->seed, 0.3));
    assert_ok(model_write(m, dir, config, t->bf16 ? DT_BF16 : DT_F32, t->no_tokenizer ? NULL : tokenizer_dir));
    model_close(m);
    json_decref(config);
    return dir;
}

void saved_logits(const char *path, const int32_t *ids, int32_t n, float *out)
{
    struct coe_model *m;
    struct coe_session *s;
    assert_ok(model_open(&m, path));
    assert_ok(coe_session_open(&s, m, NULL));
    assert_ok(coe_session_eval(s, ids, n, out, 0));
    coe_session_close(s);
    model_close(m);
}
