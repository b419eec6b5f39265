/* gguf_form.h — how a model is written into a GGUF file: its architecture there and the metadata (reading: gguf.h).
 *
 * Two forms are written. Architectures that llama.cpp knows and computes alike take its names and keys. Everything else
 * (chains, families without a counterpart, experts of one layer in several types) has the architecture "coe": the same
 * names as far as they go. Both carry the config.json as one string under "coe.config", so that a file turns back into
 * the directory it came from.
 *
 * Experts of a layer are one tensor [E, rows, cols], or, in form coe only, E tensors "blk.0.ffn_up.3.weight". */
#ifndef COE_MODEL_GGUF_FORM_H
#define COE_MODEL_GGUF_FORM_H

#include "model/gguf.h"
#include "model/row_change.h"

#define GGUF_KEY_CONFIG "coe.config"
#define GGUF_KEY_FILE "coe.file." /* + the name of a small file beside the config */
#define GGUF_ARCH_COE "coe"

struct gguf_arch {
    const char *family; /* name of the family part */
    const char *name;   /* general.architecture */
    bool pairs;         /* rope turns neighbours (2j, 2j + 1) where the family turns halves: rows of q and k move */
    bool whole_norms;   /* norm weights are stored with norm_add added */
    int8_t renormalize; /* of chosen weights: 1 always, 0 never, -1 as a key says */
};

/* The row for a family; NULL when llama.cpp has no such architecture. */
const struct gguf_arch *gguf_arch_of_family(const char *family);
/* The same, and this very network computes alike there; otherwise NULL and a reason in why [160]. */
const struct gguf_arch *gguf_arch_of(const struct spec *s, char why[160]);

/* Slots that are F32 in every file: vectors, routers and what is too small to gain. */
bool gguf_stays_f32(enum slot slot);
/* Weights that norm_add belongs to. */
bool gguf_is_norm_weight(enum slot slot);

/* Sizes, rope, routing and the rest under ARCH.*, and general.architecture, .type, .name, .quantization_version. */
coe_status gguf_add_spec(struct gguf_out *o, const struct spec *s, const struct gguf_arch *arch, const char *name);
/* Vocabulary, special tokens and chat template of a model directory (or, as they are, of a GGUF file), and its small
 * files as they are, so that they come back. A tokenizer that has no form in GGUF is left out with a note. */
coe_status gguf_add_tokenizer(struct gguf_out *o, const struct coe_model *m);
/* The pieces of a tokenizer.model (which goes along as it is), or of a tokenizer.json with a unigram vocabulary. */
coe_status gguf_add_pieces(struct gguf_out *o, const struct coe_model *m, const char *path, bool spm);
/* Ids of the first and last token of a text, and whether they are put around it. */
coe_status gguf_add_special(struct gguf_out *o, const struct coe_model *m);
/* What F32 vectors and packed matrices of a file become in a directory: the type its config names, else that of its
 * matrices, else F32. COE_E_USAGE for a file whose config cannot say everything. */
coe_status gguf_plain_type(const struct coe_model *m, enum dtype *out);
/* The files that gguf_add_tokenizer put away, into a directory; of other files a tokenizer.json made from the metadata,
 * and the chat template. */
coe_status gguf_write_companions(const struct coe_model *m, const char *dir);

/* Changes a spec made from the config into what a file of that architecture holds: heads of neighbours, whole norms,
 * the delta rule's projections and decay; in our own form decays stay as `from`, the model to be written, has them. */
void gguf_adapt_spec(struct spec *s, const struct gguf_arch *arch, const struct spec *from);

#endif
