/* tiny_train.h — a recipe for a Chain-of-Experts model of a few thousand parameters, with its tokenizer and texts: a
 * step takes a millisecond. */
#ifndef COE_TESTS_TINY_TRAIN_H
#define COE_TESTS_TINY_TRAIN_H

#include "support.h"

#include "train/train.h"

/* Lines of YAML, each beginning with two spaces, put at the end of a section; NULL: none. Later lines may not repeat
 * keys. */
struct tiny_recipe {
    const char *output; /* name below the temporary directory; NULL: "run" */
    const char *train;  /* besides steps 6, batch 4, warmup 2, lr 1e-2, seed 1, eval_every and save_every 0 */
    const char *data;   /* besides train (two files labelled a and b, 8 documents) and sequence 16 */
    const char *coe;    /* flow-style members of model.config.coe, each followed by a comma */
    const char *init;   /* a model directory to train on from, instead of model.config */
    int32_t steps;      /* 0: 6 */
};
/* The text of the recipe; one of four rotating buffers. */
const char *tiny_recipe_text(const struct tiny_recipe *t);
/* Reads it, or writes it to temp_path(name) and returns that path. */
void tiny_recipe_read(struct recipe *r, const struct tiny_recipe *t);
const char *tiny_recipe_file(const char *name, const struct tiny_recipe *t);

/* Path of the tokenizer.json: <|endoftext|> is id 0. Valid until the program ends, as are the texts. */
const char *tiny_tokenizer(void);
/* Plain text of 5 documents, and of 3. */
const char *tiny_text_a(void);
const char *tiny_text_b(void);

#endif
