/* data.c — the corpus as one stream of tokens, and rows of it.
 *
 *   stream   E d0 d0 d0 E d1 d1 E          E = end token; it closes a document and opens the next
 *   row      input  s … s+S-1, target s+1 … s+S
 * With boundaries a token sees back to the last E at or before it. Each pass over the corpus starts at its own offset
 * below S and takes its rows in its own order, both functions of (seed, pass). */
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "text/textin.h"
#include "train/train.h"

struct reading {
    struct ids stream;
    VEC(size_t) first;   /* index of each document's opening E */
    VEC(uint64_t) bytes; /* text bytes of each document */
    VEC(size_t) file;    /* index of the first document behind each file */
};

static coe_status read_file(struct reading *r, const struct tokenizer *t, const struct data_source *file,
                            int32_t end_id, struct progress *bar)
{
    const struct text_docs_opts opts = { .field = file->field };
    struct text_docs *docs = NULL;
    COE_TRY(text_docs_open(&docs, file->path, &opts));
    coe_status s = COE_OK;
    for (;;) {
        const char *text;
        size_t n;
        bool more;
        if ((s = text_docs_next(docs, &text, &n, &more)) || !more) break;
        if (coe_interrupted()) {
            s = coe_fail(COE_E_FAILED, "interrupted while reading %s", file->path);
            break;
        }
        if (!VEC_PUSH(&r->first, r->stream.n) || !VEC_PUSH(&r->bytes, (uint64_t)n) || !VEC_PUSH(&r->stream, end_id)) {
            s = COE_E_NOMEM;
            break;
        }
        if ((s = tokenizer_encode(t, &r->stream, text, n, false))) break;
        progress_set(bar, 0, "%s: %zu documents, %zu tokens", path_base(file->path), r->first.n, r->stream.n);
    }
    text_docs_close(docs);
    return s;
}

/* The part of documents doc0 … doc1-1 that lies in file i. Files of one label share the index of the first. */
static void take_part(struct corpus *c, const struct reading *r, const struct data_source *files, size_t i, size_t doc0,
                      size_t doc1)
{
    const size_t from = COE_MAX(doc0, i ? r->file.at[i - 1] : 0), to = COE_MIN(doc1, r->file.at[i]);
    if (from >= to) return;
    struct corpus_part *part = &c->parts[c->n_parts];
    *part = (struct corpus_part){ .label = files[i].label,
                                   .first_alike = (int32_t)c->n_parts,
                                   .task = files[i].task };
    for (size_t k = c->n_parts; k-- > 0;)
        if (!strcmp(c->parts[k].label, part->label)) part->first_alike = (int32_t)k;
    for (size_t d = from; d < to; d++) part->bytes += r->bytes.at[d];
    part->end = (to < r->first.n ? r->first.at[to] : r->stream.n) - r->first.at[doc0];
    c->bytes += part->bytes;
    c->n_parts++;
}

static coe_status take(struct corpus *c, const struct reading *r, const struct data_source *files, size_t doc0,
                       size_t doc1, int32_t end_id)
{
    const size_t from = r->first.at[doc0], to = doc1 < r->first.n ? r->first.at[doc1] : r->stream.n;
    *c = (struct corpus){ .n = to - from + 1, .n_documents = doc1 - doc0, .end_id = end_id };
    c->ids = mem_alloc("training tokens", c->n * sizeof *c->ids);
    c->parts = mem_alloc("training tokens", r->file.n * sizeof *c->parts);
    if (!c->ids || !c->parts) return COE_E_NOMEM;
    memcpy(c->ids, r->stream.at + from, (to - from) * sizeof *c->ids);
    c->ids[c->n - 1] = end_id;
    for (size_t i = 0; i < r->file.n; i++) take_part(c, r, files, i, doc0, doc1);
    c->parts[c->n_parts - 1].end = c->n;
    c->hash = XXH3_64bits(c->ids, c->n * sizeof *c->ids);
    return COE_OK;
}

coe_status corpus_read(struct corpus *train, struct corpus *valid, const struct tokenizer *t,
                       const struct data_source *files, size_t n_files, int32_t hold_out)
{
    struct reading r = { 0 };
    coe_status s = COE_OK;
    const int32_t end_id = tokenizer_eos(t);
    struct progress bar = progress_start("tokenizing", 0);
    *train = (struct corpus){ 0 };
    if (end_id < 0) s = coe_fail(COE_E_INPUT, "the tokenizer has no end-of-text token");
    for (size_t i = 0; i < n_files && !s; i++) {
        s = read_file(&r, t, &files[i], end_id, &bar);
        if (!s && !VEC_PUSH(&r.file, r.first.n)) s = COE_E_NOMEM;
    }
    progress_end(&bar);
    if (!s && r.first.n <= (size_t)hold_out)
        s = coe_fail(COE_E_INPUT, "%s: %zu documents in the training files, %d of them to be held out", files[0].path,
                     r.first.n, hold_out);
    const size_t n_kept = r.first.n - (size_t)hold_out;
    if (!s) s = take(train, &r, files, 0, n_kept, end_id);
    if (!s && hold_out) s = take(valid, &r, files, n_kept, r.first.n, end_id);
    VEC_FREE(&r.stream);
    VEC_FREE(&r.first);
    VEC_FREE(&r.bytes);
    VEC_FREE(&r.file);
    return s;
}

coe_status corpus_random(struct corpus *c, uint64_t seed, int32_t vocab, size_t n)
{
    *c = (struct corpus){ .n = n, .bytes = n, .n_documents = 1, .n_parts = 1 };
    c->ids = mem_alloc("training tokens", n * sizeof *c->ids);
    c->parts = mem_alloc("training tokens", sizeof *c->parts);
    if (!c->ids || !c->parts) return COE_E_NOMEM;
    const uint64_t stream = rng_stream(RNG_TEST, 0);
    for (size_t i = 0; i < n; i++) c->ids[i] = (int32_t)(rng_at(seed, stream, i) % (uint64_t)vocab);
    c->parts[0] = (struct corpus_part){ .label = "random", .end = n, .bytes = n };
    c->end_id = -1;
    return COE_OK;
}

void corpus_free(struct corpus *c)
{
    mem_free(c->ids);
    mem_free(c->parts);
    *c = (struct corpus){ 0 };
}

/* One token less than the stream can be predicted, and an offset below S must fit too. */
int64_t corpus_rows(const struct corpus *c, int32_t sequence)
{
    const int64_t usable = (int64_t)c->n - 1 - (sequence - 1);
    return usable < sequence ? 0 : usable / sequence;
}

/* A permutation of 0 … n-1 without a table: a four-round Feistel network over the next even number of bits, walked
 * until the value falls below n. */
static uint64_t permute(uint64_t i, uint64_t n, uint64_t seed, uint64_t pass)
{
    int half = 1;
    while (half < 31 && (uint64_t)1 << (2 * half) < n) half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            const uint64_t mixed = (left ^ rng_at(seed, rng_stream(RNG_DATA, pass << 8 | round), right)) & mask;
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

static void cut(const struct corpus *c, size_t at, int32_t n, int32_t *input, int32_t *target, int64_t *start)
{
    memcpy(input, c->ids + at, (size_t)n * sizeof *input);
    memcpy(target, c->ids + at + 1, (size_t)n * sizeof *target);
    int64_t first = 0;
    for (int32_t i = 0; start && i < n; i++) {
        if (input[i] == c->end_id) first = i;
        start[i] = first;
    }
}

size_t corpus_row_at(const struct corpus *c, uint64_t seed, int64_t index, int32_t sequence)
{
    const int64_t rows = corpus_rows(c, sequence);
    const uint64_t pass = (uint64_t)(index / rows), i = (uint64_t)(index % rows);
    const uint64_t offset = rng_at(seed, rng_stream(RNG_DATA, 0xFFFFFFFFu), pass) % (uint64_t)sequence;
    return (size_t)(offset + permute(i, (uint64_t)rows, seed, pass) * (uint64_t)sequence);
}

void corpus_tasks(const struct corpus *c, size_t at, int32_t n, int32_t *task)
{
    size_t part = 0;
    for (int32_t i = 0; i < n; i++) {
        while (at + (size_t)i >= c->parts[part].end) part++;
        task[i] = c->parts[part].task;
    }
}

coe_status corpus_row(struct corpus *c, uint64_t seed, int64_t index, int32_t sequence, int32_t *input, int32_t *target,
                      int64_t *start)
{
    const int64_t rows = corpus_rows(c, sequence);
    if (!rows) return coe_fail(COE_E_INPUT, "the training text has %zu tokens, too few for rows of %d", c->n, sequence);
    cut(c, corpus_row_at(c, seed, index, sequence), sequence, input, target, start);
    return COE_OK;
}

int32_t corpus_window(const struct corpus *c, int64_t i, int32_t sequence, int32_t *input, int32_t *target,
                      int64_t *start)
{
    const int64_t at = i * sequence, left = (int64_t)c->n - 1 - at;
    if (left <= 0) return 0;
    const int32_t n = (int32_t)COE_MIN((int64_t)sequence, left);
    cut(c, (size_t)at, n, input, target, start);
    return n;
}
