/* gguf_pre.c — what `tokenizer.ggml.pre` of a GGUF file means: its names, and the pre-tokeniser that the models of each
 * kind publish, as a tokenizer.json would have it. */
#include "text/gguf_pre.h"

#include <string.h>

static const char unnamed[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\p{P}"
    "\\\\$\\\\+<=>\\\\^~\\\\|]+\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Rege"
    "x\":\"'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S"
    ")|\\\\s+\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}+\"}"
    ",\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9][0-9][0-9]\"},\"be"
    "havior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char gpt2[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";

static const char llama3[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t"
    "|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p"
    "{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},{\"t"
    "ype\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char qwen2[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t"
    "|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+"
    "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},{\"type\""
    ":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char qwen35[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t"
    "|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}| ?[^\\\\s\\\\p{L}"
    "\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Iso"
    "lated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char digits[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},{\"ty"
    "pe\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}";

static const char dsv2[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\r\\n]"
    "\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s?[A-Za-zµÀ-Ö"
    "Ø-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ"
    "Ა-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ"
    "-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭ"
    "ℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎ"
    "ꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-"
    "𞥃]+\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s?[!-/:-~"
    "！-／：-～‘-‟　-。]+\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\""
    "Regex\":\"\\\\s+$\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"["
    "一-龥ࠀ-一가-퟿]+\"},\"behavior\":\"Isolated\"},{\"type\":\"Digits\",\"individual_digits\""
    ":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char dsv3[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{"
    "1,3}\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[一-龥぀-ゟ"
    "゠-ヿ]+\"},\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[!\\\"#$%&'"
    "()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{"
    "L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior"
    "\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char o200k[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[^\\\\r\\"
    "\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}"
    "\\\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{L"
    "m}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\\\p{N"
    "}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":fals"
    "e}]}";

static const char tekken[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[^\\\\r\\"
    "\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}"
    "\\\\p{M}]+|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{L"
    "l}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\"
    "\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_"
    "space\":false,\"use_regex\":false}]}";

static const char kimi[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\p{Ha"
    "n}]+|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]"
    "*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\\\r\\\\n"
    "\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]+[\\\\p{Ll}\\\\p{"
    "Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{"
    "L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated"
    "\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char bailing[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"'(?i:[sdm"
    "t]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]++[\\\\"
    "r\\\\n]*|\\\\s*[\\\\r\\\\n]|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},{\"type\":\"Byt"
    "eLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static const char falcon[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}"
    ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},{\"type\":\"Digits\",\"i"
    "ndividual_digits\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9][0-9][0-9]\"},\"beha"
    "vior\":\"Isolated\"}]}";

/* names: separated by spaces; a name ending in * is a beginning. "default" is also for files that name none. */
static const struct {
    const char *names, *pre_tokenizer;
    bool ignore_merges, bos;
} table[] = {
    { "default", unnamed, false, false },
    { "gpt-2 mpt olmo phi-2 jais trillion granite-docling "
      "exaone4 gigachat a.x-4.0 mellum modern-bert roberta-bpe jina-*",
      gpt2, false, false },
    { "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2", llama3, true, true },
    { "dbrx smaug-bpe glm4 chatglm-bpe", llama3, false, false },
    { "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open grok-2 kormo", qwen2, false, false },
    { "qwen35", qwen35, false, false },
    { "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", digits, false, false },
    { "deepseek-llm", dsv2, false, false },
    { "deepseek-v3 hunyuan-dense joyai-llm", dsv3, false, false },
    { "gpt-4o llama4 kanana2 minimax-m2", o200k, false, false },
    { "tekken", tekken, true, true },
    { "kimi-k2", kimi, false, false },
    { "bailingmoe bailingmoe2 llada-moe", bailing, false, false },
    { "falcon", falcon, false, false },
    { "chameleon", gpt2, false, true },
};

static bool named(const char *names, const char *name, size_t n)
{
    for (; *names; names += *names == ' ') {
        size_t k = strcspn(names, " ");
        bool open = names[k - 1] == '*';
        if (open ? n >= k - 1 && !memcmp(names, name, k - 1) : n == k && !memcmp(names, name, n)) return true;
        names += k;
    }
    return false;
}

bool gguf_pre_find(struct gguf_pre *out, const char *name, size_t n)
{
    for (size_t i = 0; i < COE_COUNT(table); i++)
        if (named(table[i].names, name, n)) {
            *out = (struct gguf_pre){ table[i].pre_tokenizer, table[i].ignore_merges, table[i].bos };
            return true;
        }
    return false;
}

bool gguf_pre_at(struct gguf_pre *out, char name[32], size_t i)
{
    if (i >= COE_COUNT(table)) return false;
    const size_t n = COE_MIN(strcspn(table[i].names, " "), (size_t)31);
    memcpy(name, table[i].names, n);
    name[n] = 0;
    *out = (struct gguf_pre){ table[i].pre_tokenizer, table[i].ignore_merges, table[i].bos };
    return true;
}
