/* tok_def.h — a tokenizer as its file defines it, whatever the format: pieces by id, merges, and a JSON object for the
 * rest.
 *
 * tok_json.c, tok_spm.c and tok_gguf.c fill it, tok_image.c compiles it. `config` is laid out like a tokenizer.json
 * without its big tables: normalizer, pre_tokenizer, post_processor, decoder, added_tokens, model (its scalars), and of
 * our own "before", "after"   ids around a text with add_special, where no post-processor says so (arrays) "bos", "eos"
 * ids "spm"               true: SentencePiece's rules for merging by score, unknown pieces and decoding (tok_image.h)
 */
#ifndef COE_TEXT_TOK_DEF_H
#define COE_TEXT_TOK_DEF_H

#include "base/json.h"

#define TOK_MAX_VOCAB (1 << 24)
#define TOK_MAX_PIECE_BYTES (1 << 16)

enum tok_type { /* the values of SentencePiece and GGUF */
                TOK_ABSENT = 0,
                TOK_NORMAL = 1,
                TOK_UNKNOWN = 2,
                TOK_CONTROL = 3,
                TOK_USER_DEFINED = 4,
                TOK_UNUSED = 5,
                TOK_BYTE = 6,
};

struct tok_piece {
    uint32_t at, n; /* text.at[at .. at+n) */
    float score;
    uint8_t type;
};
struct tok_merge_text { /* text.at[at .. at+left) and the n - left bytes behind them */
    uint32_t at, left, n;
};

struct tok_def {
    struct str text;
    VEC(struct tok_piece) piece; /* by id */
    VEC(double) score;           /* unigram of a tokenizer.json: scores in full */
    VEC(struct tok_merge_text) merge;
    json_t *config;
};

/* Puts a piece at an id; the last one stays. COE_E_INPUT for ids and lengths outside the limits. */
coe_status tok_def_set(struct tok_def *d, int64_t id, const char *text, size_t n, double score, enum tok_type type,
                       const char *where);
coe_status tok_def_merge(struct tok_def *d, const char *left, size_t n_left, const char *right, size_t n_right,
                         const char *where);
/* "left right", cut at the first space behind the first character. */
coe_status tok_def_merge_line(struct tok_def *d, const char *line, size_t n, const char *where);
void tok_def_free(struct tok_def *d);

/* `bytes` is the whole file, `where` its name for messages. COE_E_INPUT. */
coe_status tok_read_json(struct tok_def *d, const char *bytes, size_t n, const char *where);
coe_status tok_read_spm(struct tok_def *d, const char *bytes, size_t n, const char *where);
coe_status tok_read_gguf(struct tok_def *d, const char *bytes, size_t n, const char *where);

#endif
