/* info.h — the parts of `coe info`: info.c (a model), info_file.c (a file of weights without a known family),
 * info_build.c (this program). */
#ifndef COE_CLI_INFO_H
#define COE_CLI_INFO_H

#include "cli/cli.h"
#include "ckpt/ckpt.h"

/* What a checkpoint holds, whatever it means: format, metadata of GGUF, tensors and bytes of each type. */
coe_status info_file(struct cli *c, const struct ckpt *file);
/* The metadata of a GGUF file, long arrays cut short; a new reference, NULL for other formats. */
coe_status info_metadata_json(json_t **out, const struct ckpt *file);
/* One line a key. */
void info_print_metadata(json_t *metadata);
/* Compiler, libraries, instruction sets, threads. */
coe_status info_build(struct cli *c);
/* One line a tensor: name, type, shape, bytes. */
void info_tensors(const struct ckpt *file);
json_t *info_tensors_json(const struct ckpt *file);

/* Bytes by storage type. */
struct type_bytes {
    uint64_t of[DT_COUNT];
};
uint64_t tensor_stored_bytes(const struct tensor *t);
/* "F32 12.3 MB, BF16 …" on stdout; {"F32": …} as a new reference. */
void info_print_types(const struct type_bytes *t);
json_t *info_types_json(const struct type_bytes *t);

#endif
