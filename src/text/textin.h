/* textin.h — documents of a text file: what training, evaluation and traces read.
 *
 * Plain text: the stretches between "<|endoftext|>" marks, without the line ends next to the marks. JSONL: one document
 * for each line, made from a field or a template. Files may be compressed (base/input.h).
 *
 *     struct text_docs *d;
 *     COE_TRY(text_docs_open(&d, "stories.txt.xz", NULL));
 *     while (!(s = text_docs_next(d, &text, &n, &more)) && more) …
 *     text_docs_close(d); */
#ifndef COE_TEXT_TEXTIN_H
#define COE_TEXT_TEXTIN_H

#include "base/base.h"

struct text_docs_opts {
    /* JSONL when set: a field ("text", "messages.0.content") or a template ("query : {query} response : {response}"; {{
     * and
     * }} are braces). When NULL, a file named *.jsonl (before .gz, .xz, .zst) is JSONL with the field "text". */
    const char *field;
    /* Plain text: the mark between documents; NULL: "<|endoftext|>"; "": the file is one document. */
    const char *separator;
};

struct text_docs;

/* opts may be NULL; its strings are copied. COE_E_INPUT, COE_E_USAGE for a bad template. */
coe_status text_docs_open(struct text_docs **out, const char *path, const struct text_docs_opts *opts);
/* *text is valid until the next call. Empty documents are left out. COE_E_INPUT names file and line. */
coe_status text_docs_next(struct text_docs *d, const char **text, size_t *n, bool *more);
void text_docs_close(struct text_docs *d);

#endif
