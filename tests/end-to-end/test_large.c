/* Models that do not fit: described at once, rewritten within a budget that holds neither the model nor its widened
 * form. The files are sparse: headers, then zeros that take no disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"
#include "ckpt/ckpt.h"
#include "support/process.h"

/* A llama of FP8 matrices with scales of 128 x 128 and BF16 norms. */
struct sizes {
    int64_t layers, d, ffn, vocab;
};

static uint64_t add(struct str *header, uint64_t at, const char *type, int64_t bytes, int64_t rows, int64_t cols,
                    const char *name)
{
    const uint64_t end = at + (uint64_t)(COE_MAX(rows, 1) * cols * bytes);
    str_addf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", header->n > 8 + 1 ? "," : "", name, type);
    if (rows) str_addf(header, "%lld,", (long long)rows);
    str_addf(header, "%lld],\"data_offsets\":[%llu,%llu]}", (long long)cols, (unsigned long long)at,
             (unsigned long long)end);
    return end;
}

static uint64_t add_matrix(struct str *h, uint64_t at, int64_t rows, int64_t cols, const char *name)
{
    char scale[128];
    snprintf(scale, sizeof scale, "%s_scale_inv", name);
    at = add(h, at, "F32", 4, (rows + 127) / 128, (cols + 127) / 128, scale);
    return add(h, at, "F8_E4M3", 1, rows, cols, name);
}

static uint64_t add_layer(struct str *h, uint64_t at, const struct sizes *z, int64_t l)
{
    static const char *const square[] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj" };
    char name[128];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s_layernorm.weight", (long long)l,
                 i ? "post_attention" : "input");
        at = add(h, at, "BF16", 2, 0, z->d, name);
    }
    for (size_t i = 0; i < COE_COUNT(square); i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)l, square[i]);
        at = add_matrix(h, at, z->d, z->d, name);
    }
    snprintf(name, sizeof name, "model.layers.%lld.mlp.gate_proj.weight", (long long)l);
    at = add_matrix(h, at, z->ffn, z->d, name);
    snprintf(name, sizeof name, "model.layers.%lld.mlp.up_proj.weight", (long long)l);
    at = add_matrix(h, at, z->ffn, z->d, name);
    snprintf(name, sizeof name, "model.layers.%lld.mlp.down_proj.weight", (long long)l);
    return add_matrix(h, at, z->d, z->ffn, name);
}

/* Writes the directory; bytes of its weights. */
static uint64_t sparse_llama(const char *dir, const struct sizes *z)
{
    struct str h = { 0 }, config = { 0 };
    char path[1300];
    str_add(&h, "\0\0\0\0\0\0\0\0{", 9);
    uint64_t at = add(&h, 0, "BF16", 2, z->vocab, z->d, "model.embed_tokens.weight");
    at = add(&h, at, "BF16", 2, 0, z->d, "model.norm.weight");
    for (int64_t l = 0; l < z->layers; l++) at = add_layer(&h, at, z, l);
    str_addc(&h, '}');
    while (h.n % 8) str_addc(&h, ' ');
    for (int i = 0; i < 8; i++) h.at[i] = (char)((h.n - 8) >> 8 * i);
    str_addf(&config,
             "{\"model_type\":\"llama\",\"hidden_size\":%lld,\"intermediate_size\":%lld,\"num_hidden_layers\":%lld,"
             "\"num_attention_heads\":%lld,\"vocab_size\":%lld,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,"
             "\"max_position_embeddings\":4096,\"quantization_config\":{\"weight_block_size\":[128,128]}}",
             (long long)z->d, (long long)z->ffn, (long long)z->layers, (long long)(z->d / 64), (long long)z->vocab);
    assert_ok(dir_make(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    spill(path, config.at, config.n);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    spill(path, h.at, h.n);
    if (truncate(path, (off_t)(h.n + at))) skip(); /* a file system without large files */
    str_free(&h);
    str_free(&config);
    return at;
}

/* 80 layers of 8192: 62 GB of FP8, 250 GB widened. */
static void sixty_gigabytes_are_described_at_once(void **state)
{
    (void)state;
    char dir[1200];
    snprintf(dir, sizeof dir, "%s", temp_path("large"));
    const uint64_t bytes = sparse_llama(dir, &(struct sizes){ 80, 8192, 22016, 32000 });
    assert_true(bytes > 60000000000ull);
    const double start = coe_now();
    struct ran r = run_coe(0, NULL, COE_ARGS("info", dir));
    const double seconds = coe_now() - start;
    assert_non_null(strstr(r.out, "F8_E4M3"));
    ran_free(&r);
    if (seconds > 5) fail_msg("took %.1f s", seconds); /* milliseconds on an idle machine */
    r = run_coe(0, NULL,
                COE_ARGS("quantize", "q4_0", dir, "-o", temp_path("large.gguf"), "--dry-run", "--memory", "16M"));
    ran_free(&r);
}

/* 12 MB of FP8 are 48 MB of F32; 6 MB are enough to write them in any form. */
static void packed_weights_are_rewritten_within_a_budget(void **state)
{
    (void)state;
    char dir[1200], out[1200];
    const char *ids = temp_path("ids.npy");
    assert_ok(npy_write(ids, DT_I32, 1, (int64_t[]){ 2 }, (int32_t[]){ 1, 2 }));
    snprintf(dir, sizeof dir, "%s", temp_path("packed"));
    const uint64_t bytes = sparse_llama(dir, &(struct sizes){ 2, 1024, 1024, 128 });
    assert_true(bytes > 12000000);
    snprintf(out, sizeof out, "%s", temp_path("unpacked"));
    struct ran r = run_coe(0, NULL, COE_ARGS("convert", dir, out, "--dtype", "bf16", "--memory", "6M"));
    ran_free(&r);
    snprintf(out, sizeof out, "%s", temp_path("packed.gguf"));
    r = run_coe(0, NULL, COE_ARGS("quantize", "q8_0", dir, "-o", out, "--memory", "6M"));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("convert", out, temp_path("again"), "--dtype", "f32", "--memory", "6M"));
    ran_free(&r);
    r = run_coe(4, NULL, COE_ARGS("logits", dir, "--ids", ids, "-o", temp_path("l.npy"), "--memory", "6M"));
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_gigabytes_are_described_at_once),
        cmocka_unit_test(packed_weights_are_rewritten_within_a_budget),
    };
    return cmocka_run_group_tests_name("end-to-end/large", tests, NULL, NULL);
}
