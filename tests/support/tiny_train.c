/* tiny_train.c — see tiny_train.h. */
#include "tiny_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "tiny_model.h"

static const char text_a[] =
    "Once upon a time there was a king who had a garden.<|endoftext|>In the garden stood a tree, and on "
    "the tree grew golden apples.<|endoftext|>One day the king counted the apples.<|endoftext|>"
    "The first son sat under the tree, and at midnight he fell asleep.<|endoftext|>"
    "And in the morning another apple was gone.";
static const char text_b[] = "The king called his three sons and told the first to watch the tree by night."
                             "<|endoftext|>One was gone.<|endoftext|>The second son fell asleep too.";

static const char *file_with(const char **kept, const char *name, const char *text)
{
    if (*kept) return *kept;
    const char *path = temp_path(name);
    spill(path, text, strlen(text));
    return *kept = strdup(path);
}

const char *tiny_text_a(void)
{
    static const char *kept;
    return file_with(&kept, "a.txt", text_a);
}

const char *tiny_text_b(void)
{
    static const char *kept;
    return file_with(&kept, "b.txt", text_b);
}

static coe_status hand_text(void *user, const char **text, size_t *n, bool *more)
{
    int *handed = user;
    *more = !(*handed)++;
    *text = tiny_text;
    *n = strlen(tiny_text);
    return COE_OK;
}

const char *tiny_tokenizer(void)
{
    static const char *kept;
    if (kept) return kept;
    int handed = 0;
    const struct bpe_train_opts opts = { .vocab_size = 300 };
    kept = strdup(temp_path("tokenizer.json"));
    log_set_level(0);
    assert_ok(bpe_train(kept, hand_text, &handed, &opts));
    return kept;
}

static void put_model(char *out, size_t cap, const struct tiny_recipe *t)
{
    if (t->init)
        snprintf(out, cap, "  init: %s\n", t->init);
    else
        snprintf(out, cap,
                 "  config:\n"
                 "    model_type: coe\n"
                 "    architectures: [CoeForCausalLM]\n"
                 "    hidden_size: 16\n"
                 "    num_hidden_layers: 2\n"
                 "    num_attention_heads: 2\n"
                 "    num_key_value_heads: 1\n"
                 "    max_position_embeddings: 64\n"
                 "    tie_word_embeddings: true\n"
                 "    coe: { n_experts: 4, expert_ffn: 16, top_k: 2, %s\n"
                 "           chain: { iterations: 2, gate: independent, residual: prenorm } }\n"
                 "  init_std: 0.1\n",
                 t->coe ? t->coe : "");
}

const char *tiny_recipe_text(const struct tiny_recipe *t)
{
    static char buffer[4][6000];
    static int next;
    char *out = buffer[next++ % 4], model[1500];
    put_model(model, sizeof model, t);
    snprintf(out, sizeof buffer[0],
             "model:\n%stokenizer: %s\ndata:\n  train: [ a=%s, b=%s ]\n  sequence: 16\n%strain:\n"
             "  steps: %d\n  batch: 4\n  warmup: 2\n  lr: 1.0e-2\n  seed: 1\n  eval_every: 0\n  save_every: 0\n"
             "  log_every: 1\n%soutput: %s\n",
             model, tiny_tokenizer(), tiny_text_a(), tiny_text_b(), t->data ? t->data : "", t->steps ? t->steps : 6,
             t->train ? t->train : "", temp_path(t->output ? t->output : "run"));
    return out;
}

void tiny_recipe_read(struct recipe *r, const struct tiny_recipe *t)
{
    const char *text = tiny_recipe_text(t);
    log_set_level(0);
    assert_ok(recipe_read_text(r, text, strlen(text), "tiny.yaml"));
}

const char *tiny_recipe_file(const char *name, const struct tiny_recipe *t)
{
    const char *text = tiny_recipe_text(t), *path = temp_path(name);
    spill(path, text, strlen(text));
    return path;
}
