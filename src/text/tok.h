/* tok.h — an open tokenizer, as the files of this room see it.
 *
 * A text goes through: added tokens that match as they are written (added.c) → normaliser (normal.c) → added tokens of
 * the normalised text → pre-tokeniser, a chain of steps each of which cuts or rewrites what the one before hands it
 * (pretok.c) → model (bpe.c, unigram.c). Ids go through the decoder's steps (decode.c). */
#ifndef COE_TEXT_TOK_H
#define COE_TEXT_TOK_H

#include <stdatomic.h>

#include "base/file.h"
#include "text/pattern.h"
#include "text/text.h"
#include "text/tok_image.h"

#define TOK_MAX_STEPS 64
#define TOK_SCRATCHES 16

enum norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP_ACCENTS,
    NORM_NMT,
    NORM_STRIP,
    NORM_PREPEND,
    NORM_REPLACE,
    NORM_CHARSMAP,
    NORM_BYTE_LEVEL,
    NORM_SPM
};

struct charsmap { /* SentencePiece's "precompiled" map: a double array over bytes, and the replacements, each ending in
                     NUL */
    uint32_t *unit;
    size_t n_units;
    char *text;
    size_t n_text;
};

struct norm_step {
    enum norm_kind kind;
    bool left, right;                                   /* STRIP */
    struct str text;                                    /* PREPEND, REPLACE */
    struct pattern *pattern;                            /* REPLACE */
    struct charsmap map;                                /* CHARSMAP, SPM */
    bool dummy_prefix, extra_spaces_go, escape, suffix; /* SPM */
};

enum pre_kind { PRE_SPLIT, PRE_BYTE_LEVEL, PRE_METASPACE, PRE_CHARACTER };
enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_CONTIGUOUS, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT };
enum prepend_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct pre_step {
    enum pre_kind kind;
    struct pattern *pattern;       /* SPLIT, and BYTE_LEVEL with a pattern of its own; NULL there: no split */
    bool (*is_match)(uint32_t cp); /* CHARACTER: matches are single characters */
    enum split_behavior behavior;
    bool invert;
    bool prefix_space; /* BYTE_LEVEL */
    bool maps;         /* BYTE_LEVEL with steps behind it: they see the mapped characters */
    bool split;        /* METASPACE */
    enum prepend_scheme scheme;
    struct str replacement;
};

enum dec_kind {
    DEC_BYTE_LEVEL,
    DEC_REPLACE,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_STRIP,
    DEC_METASPACE,
    DEC_SPM,
    DEC_LLAMA
};

struct dec_step {
    enum dec_kind kind;
    struct pattern *pattern; /* REPLACE */
    struct str text;         /* REPLACE: content; STRIP: character; METASPACE: replacement */
    size_t start, stop;      /* STRIP */
    bool drop_first; /* METASPACE: the first token's replacements vanish; SPM and LLAMA: its leading space does */
    bool all_spaces; /* SPM: remove_extra_whitespaces */
};

struct added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    uint32_t at, n;             /* content: added_text.at[at .. at+n) */
    uint32_t shown_at, shown_n; /* what it decodes to: the content, normalised if it is matched so */
};
struct added_set {        /* the tokens of one pass */
    struct trie trie;     /* content → index into added */
    uint64_t pairs[1024]; /* first two bytes of a content: bit 256·a + b; one-byte contents set all of their row */
    bool any;
};

struct encoder;
struct tokenizer {
    struct tok_image_head *owned; /* the image, when it is not mapped */
    struct file_map map;
    struct tok_tables tab;
    char fingerprint[17];
    const char *name; /* for messages; arena */
    struct arena arena;

    VEC(struct norm_step) norm;
    VEC(struct pre_step) pre;
    VEC(struct dec_step) dec;
    VEC(struct added_token) added;
    VEC(uint32_t) added_by_id; /* indices of added */
    struct str added_text;
    struct added_set raw, normal;
    struct trie user; /* SentencePiece: user-defined pieces → id */
    VEC(int32_t) before, after;

    int32_t unit[256];            /* byte-level: id of each byte, -1 when there is none */
    int32_t byte_id[256];         /* byte fallback: id of <0xNN>; -1 */
    int32_t unk, bos, eos, n_ids; /* n_ids: one more than the largest id */
    bool all_bytes;               /* byte_id is complete */
    bool byte_fallback, fuse_unk, ignore_merges, fuse_across, single_precision, whole_run_lookup;
    double unk_score, max_score;
    atomic_uintptr_t scratch[TOK_SCRATCHES]; /* idle encoders */
};

/* One 64-byte line: a short word and its ids. */
#define WORD_MAX_BYTES 26
#define WORD_MAX_IDS 8
struct word_line {
    uint32_t tag;
    uint8_t n_bytes, n_ids;
    char bytes[WORD_MAX_BYTES];
    int32_t ids[WORD_MAX_IDS];
};
#define WORD_LINES (1u << 14)

struct best_path { /* of unigram: the best way to the end of a prefix */
    double score;
    int32_t id;
    uint32_t from; /* UINT32_MAX: none yet */
};

/* The working memory of one call; kept by the tokenizer between calls. */
struct encoder {
    const struct tokenizer *t;
    struct ids *out;
    bool mapped;   /* pieces are in mapped characters */
    bool ends_unk; /* the last id given out was unk */
    struct word_line *line;
    VEC(int32_t) symbol; /* BPE: ids, their byte lengths, links, ranks of the pair that begins here */
    VEC(uint32_t) length;
    VEC(uint32_t) next, previous;
    VEC(int32_t) rank;
    VEC(uint64_t) heap;
    VEC(struct best_path) path;
    struct ids word; /* ids of the word being encoded */
    struct str raw;  /* mapped characters back to bytes */
    struct str norm[2];
    struct str pre[TOK_MAX_STEPS];  /* text that a step of the pre-tokeniser rewrote */
    struct str lead[TOK_MAX_STEPS]; /* and with a space in front */
};

/* tok_beside.c: BOS and EOS as tokenizer_config.json and config.json beside `path` say */
coe_status tok_read_config_beside(struct tokenizer *t, const char *path);
/* The same from their documents, either of which may be NULL. */
coe_status tok_take_config(struct tokenizer *t, const json_t *tokens, const json_t *model);
/* tok_steps.c: the members of a tokenizer.json */
coe_status tok_read_normalizer(struct tokenizer *t, const json_t *step, int depth);
coe_status tok_read_pre_tokenizer(struct tokenizer *t, const json_t *step, int depth);
coe_status tok_read_decoder(struct tokenizer *t, const json_t *step, int depth);
coe_status tok_read_post_processor(struct tokenizer *t, const json_t *step, int depth);
void tok_free_steps(struct tokenizer *t);

/* added.c */
coe_status added_read(struct tokenizer *t, const json_t *list);
/* Calls stretch() for what lies between the tokens of the set and puts the tokens' ids out. `first`: text begins the
 * input. */
typedef coe_status stretch_fn(struct encoder *e, const char *text, size_t n, bool first);
coe_status added_split(struct encoder *e, const struct added_set *set, const char *text, size_t n, bool first,
                       stretch_fn *stretch);

/* normal.c: *text and *n become the normalised text, in the encoder's memory where it differs */
coe_status normalize(struct encoder *e, const char **text, size_t *n);
/* charsmap.c */
coe_status charsmap_read(struct charsmap *m, const char *bytes, size_t n, const char *where);
void charsmap_free(struct charsmap *m);
/* Length of the longest (or shortest) key text begins with and its replacement; 0: none. */
size_t charsmap_longest(const struct charsmap *m, const char *text, size_t n, const char **to);
size_t charsmap_shortest(const struct charsmap *m, const char *text, size_t n, const char **to);
/* spm_normal.c */
coe_status spm_normalize(const struct tokenizer *t, const struct norm_step *step, struct str *out, const char *text,
                         size_t n);

/* pretok.c */
coe_status pretokenize(struct encoder *e, const char *text, size_t n, bool first);
/* model.c */
coe_status encode_piece(struct encoder *e, const char *text, size_t n);
coe_status emit_id(struct encoder *e, int32_t id);
/* Without the cache; appends to e->word. bpe.c, unigram.c */
coe_status bpe_encode(struct encoder *e, const char *text, size_t n);
coe_status unigram_encode(struct encoder *e, const char *text, size_t n);
/* Ids of an unknown stretch: its bytes, or the unknown token. */
coe_status encode_unknown(struct encoder *e, const char *text, size_t n);

/* Spelling of an id as the file has it, added tokens first. False for an id that is not there. */
bool tok_spelling(const struct tokenizer *t, int32_t id, struct str *out);
const struct added_token *tok_added(const struct tokenizer *t, int32_t id);
bool tok_is_special(const struct tokenizer *t, int32_t id);
/* The byte of a token spelled <0xNN>, or -1. */
int tok_byte_of(const char *text, size_t n);
/* Byte-level tokenizers whose decoder is the byte level alone: the bytes of one id. COE_E_USAGE for an id that is not
 * there. */
bool tok_is_plain_bytes(const struct tokenizer *t);
coe_status tok_add_bytes(const struct tokenizer *t, struct str *out, int32_t id);
/* One token's text through one step that works on tokens. */
coe_status tok_decode_token(const struct dec_step *d, struct str *out, const char *text, size_t n, bool first);
coe_status tok_no_such_id(const struct tokenizer *t, int32_t id);

/* spm_decode.c: SentencePiece's own decoding, one id at a time */
struct spm_state {
    bool begun, at_start; /* something came out; leading space still to be dropped */
    struct str run;       /* byte pieces waiting for the rest of their character */
};
coe_status spm_decode_id(const struct tokenizer *t, struct spm_state *state, struct str *out, int32_t id,
                         bool skip_special);
coe_status spm_decode_end(const struct tokenizer *t, struct spm_state *state, struct str *out);

#endif
