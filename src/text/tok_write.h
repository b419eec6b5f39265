/* tok_write.h — tokenizer.json as the trainers write it, and what they share. */
#ifndef COE_TEXT_TOK_WRITE_H
#define COE_TEXT_TOK_WRITE_H

#include "text/pattern.h"
#include "text/text.h"
#include "text/wordcount.h"

struct tok_merge {
    int32_t left, right; /* ids */
};
struct tok_merges {
    struct tok_merge *at;
    size_t n, cap;
};

/* How training text is cut into words: GPT-2's alternatives with Llama-3's treatment of line ends, digits in threes. */
#define TOK_TRAIN_PATTERN                                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"            \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Byte-level BPE: ids are the special tokens, the 256 bytes, one for each merge. Written atomically. */
coe_status tok_write_bpe(const char *path, const char *const *special, size_t n_special, const struct tok_merges *merges);

/* Counts the words that p finds in the texts of `next`, cut at special tokens. COE_E_INPUT when there are none. */
coe_status text_count_words(struct wordcount *c, const struct pattern *p, text_next_fn *next, void *user,
                            const char *const *special, size_t n_special);

/* A JSON string with its quotes. */
void tok_write_quoted(struct str *out, const char *text, size_t n);
/* The "added_tokens" member: ids 0 … n-1, special. */
void tok_write_added(struct str *out, const char *const *special, size_t n);

#endif
