/* gguf.h — GGUF files as models: their metadata as a family's config, their names as slots.
 *
 * A GGUF model goes the way of a directory: gguf_config makes the config.json that the family would have, the family
 * translates it, gguf_adjust sets what the converters of such files changed, and gguf_family binds llama.cpp's tensor
 * names. */
#ifndef COE_MODEL_GGUF_H
#define COE_MODEL_GGUF_H

#include "ckpt/gguf.h"
#include "model/model.h"

/* *out: a new reference; the config.json that the file carries, where it was written here. COE_E_INPUT for an
 * architecture nobody here knows or metadata that is missing or wrong. */
coe_status gguf_config(json_t **out, const struct ckpt *c);
/* Whether the file says that it is a model of an architecture known here; false for importance matrices, vocabularies
 * without tensors, other architectures. */
bool gguf_is_known(const struct ckpt *c);
/* Interleaved ropes of permuted q and k, norms stored whole, frequency factors from rope_freqs.weight. */
coe_status gguf_adjust(struct spec *s, struct arena *a, const struct ckpt *c);
/* The family with the names of that file; in the arena. NULL when memory is out. */
const struct family *gguf_family(struct arena *a, const struct family *f, const struct ckpt *c);
/* The name under which a place is written in a file of architecture `arch` (NULL: coe), with the experts of a layer in
 * one tensor or each apart; false when there is none. */
bool gguf_name(const char *arch, const struct spec *s, struct place p, bool separate, char *out, size_t cap);

#endif
