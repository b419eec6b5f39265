/* convert_rows.h — the values of one tensor of a converted model, from the parameters of the old one. */
#ifndef COE_MODEL_CONVERT_ROWS_H
#define COE_MODEL_CONVERT_ROWS_H

#include "model/row_change.h"
#include "model/stored.h"

struct piece {
    const struct param *from; /* NULL: made here */
    const struct param *also; /* holds the rows behind those of `from`, or NULL */
    const void *data;         /* of a plain type; NULL: read by stored.h */
    enum dtype type;
    int64_t cols;             /* values between which no row begins */
    struct row_change change; /* out of a GGUF file */
};
/* A tensor to be written is one piece after the other, each of piece_count elements; or, with a cut, made of the pieces
 * [expert][part], each [rows, cols]; or, `whole`, another as it is. */
struct source {
    struct conversion *of;
    const struct coe_model *m;
    struct piece *piece;
    int64_t n_pieces, piece_count;
    struct cut cut;
    int64_t rows, cols; /* of a piece; a vector's elements are its rows */
    const struct tensor *whole;
};
/* out = elements first … first + count in `type` (F32, F16, BF16; of `whole` its own). Returns how many finite values
 * F16 could not hold. */
uint64_t source_fill(const struct source *s, enum dtype type, int64_t first, int64_t count, char *out);

#endif
