/* input.h — a file as a stream of bytes, decompressed on the way: plain, gzip, xz or zstd, told apart by their first
 * bytes. */
#ifndef COE_INPUT_H
#define COE_INPUT_H

#include "base.h"

struct input;

/* "-" is standard input. COE_E_INPUT naming the path. */
coe_status input_open(struct input **out, const char *path);
/* Up to `cap` bytes into `to`; *n = 0 only at the end. COE_E_INPUT when the file is damaged or ends too early. */
coe_status input_read(struct input *in, char *to, size_t cap, size_t *n);
void input_close(struct input *in);
const char *input_path(const struct input *in);

#endif
