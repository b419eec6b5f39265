/* text.h — text into token ids and back: tokenizers, their training, and chat templates.
 *
 * Enters here: everything between bytes and ids. Knows nothing of tensors or models. Reading order: text.h, tok.h (the
 * parts), tokenizer.c (loading), pretok.c and pattern.h (splits), bpe.c, unigram.c, decode.c, bpe_train.c.
 *
 * Works on any bytes. Ids are int32. A tokenizer never changes after opening; many threads may use one. */
#ifndef COE_TEXT_H
#define COE_TEXT_H

#include "base/json.h"

struct tokenizer;
struct ids {
    int32_t *at;
    size_t n, cap;
};

/* `path`: a model directory (tokenizer.json, else tokenizer.model), one such file, or a .gguf file. */
coe_status tokenizer_open(struct tokenizer **out, const char *path);
/* From the bytes of such a file; `config` is the document of its tokenizer_config.json or NULL, `name` is for messages.
 * Nothing is cached and no other file is read. */
coe_status tokenizer_from_memory(struct tokenizer **out, const char *bytes, size_t n, const json_t *config,
                                 const char *name);
void tokenizer_close(struct tokenizer *t);
/* A tokenizer.json that says what the metadata of a GGUF file (all of its bytes) say; NULL with COE_OK for kinds that
 * have no such form (unigram). A new reference. */
coe_status tokenizer_json_of_gguf(json_t **out, const char *bytes, size_t n, const char *where);
int32_t tokenizer_vocab_size(const struct tokenizer *t);
/* xxh3 of the definition, 16 hex digits */
void tokenizer_fingerprint(const struct tokenizer *t, char hex[17]);
/* -1 when the tokenizer has none */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
/* Id of the token spelled so (added tokens first), or -1. */
int32_t tokenizer_token_id(const struct tokenizer *t, const char *token);

/* Appends the ids of text[0..n). Special and added tokens written in the text become their ids; add_special also adds
 * what the post-processor adds (BOS/EOS). */
coe_status tokenizer_encode(const struct tokenizer *t, struct ids *out, const char *text, size_t n, bool add_special);
/* Appends the text of the ids; skip_special leaves special tokens out. Byte-level tokenizers give the exact bytes,
 * which need not be UTF-8 (utf8_lossy makes them so). COE_E_USAGE for an id outside the vocabulary. */
coe_status tokenizer_decode(const struct tokenizer *t, struct str *out, const int32_t *ids, size_t n,
                            bool skip_special);

/* Decoding one id at a time: only whole characters come out; stream_flush gives what is left. */
struct decode_stream;
coe_status decode_stream_open(struct decode_stream **out, const struct tokenizer *t, bool skip_special);
void decode_stream_close(struct decode_stream *s);
coe_status decode_stream_push(struct decode_stream *s, struct str *out, int32_t id);
coe_status decode_stream_flush(struct decode_stream *s, struct str *out);

/* Appends the text with a U+FFFD for each maximal part that is not UTF-8 (as the Unicode standard advises), or for each
 * byte of such parts. */
void utf8_lossy(struct str *out, const char *text, size_t n);
void utf8_lossy_bytes(struct str *out, const char *text, size_t n);

/* Training. `next` hands over pieces of text until it answers false through *more. Writes a tokenizer.json. */
typedef coe_status text_next_fn(void *user, const char **text, size_t *n, bool *more);
struct bpe_train_opts {
    int32_t vocab_size;         /* with the 256 bytes and the special tokens */
    const char *const *special; /* first ids; default: "<|endoftext|>" alone */
    size_t n_special;
    int32_t min_count; /* of a pair; 0: 2 */
};
coe_status bpe_train(const char *out_path, text_next_fn *next, void *user, const struct bpe_train_opts *opts);
/* A unigram vocabulary with byte fallback: special tokens, <unk>, 256 bytes, then the pieces. min_count is not used. */
coe_status unigram_train(const char *out_path, text_next_fn *next, void *user, const struct bpe_train_opts *opts);

#endif
