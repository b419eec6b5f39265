/* adapter.h — low-rank adapters (LoRA) on the weights of a model: made anew to be trained, read from and written to the
 * directories of the PEFT library, used live or merged when a model is converted.
 *
 * Paper: LoRA: Low-Rank Adaptation of Large Language Models, 2021. Each adapted matrix W acts as W + alpha/r · B A; the
 * base stays as it is stored. Experts of a family whose other implementations hold them in one 3-D tensor are named as
 * PEFT names adapters of such tensors (`target_parameters`): A of all experts in one [E r, in], B in one [out, r E],
 * and gate and up of an expert, one matrix there, share their A. Over a GGUF file of any types an adapter has the names
 * and the rows of the directory that the file stands for, so it serves both.
 *
 *     COE_TRY(adapter_open(m, "runs/tuned/adapter"));       m behaves like the tuned model from here on */
#ifndef COE_MODEL_ADAPTER_H
#define COE_MODEL_ADAPTER_H

#include "model/model.h"
#include "tensor/low_rank.h"

struct adapter {
    int32_t rank;
    double alpha;
    bool root;             /* scaled by alpha / sqrt r */
    struct low_rank *part; /* [n_params of the model], a NULL where a parameter has none */
    struct weight *matrix; /* [n] every A and B once; with master and gradient where they learn */
    size_t n, made;
    float *values, *gradients; /* of the next matrix; gradients NULL where nothing learns */
    char *memory;              /* owned */
};

struct adapter_opts {
    int32_t rank;
    double alpha;
    /* Each is a class (attention, expert, shared, dense, router, head), a place (q, expert_down, …), or the last part
     * of a module's name (q_proj, w1, …); all: attention, experts, shared and dense networks */
    const char *const *target;
    size_t n_targets;
};

/* Fresh adapters with gradients: A uniform in ±1/sqrt(in), a function of (seed, parameter, element), B zero, so that
 * the model's outputs keep their bits. COE_E_USAGE when a target names nothing, or the model has an adapter. */
coe_status adapter_attach(struct coe_model *m, const struct adapter_opts *o, uint64_t seed);
/* Reads adapter_config.json and adapter_model.safetensors of `dir`. COE_E_INPUT for kinds of adapters that are not LoRA
 * on weights, and for tensors that fit nothing in the model, by name. */
coe_status adapter_open(struct coe_model *m, const char *dir);
/* Writes such a directory as a whole. base: what adapter_config.json calls the model. */
coe_status adapter_write(const struct coe_model *m, const char *dir, const char *base);
/* Appends what tells this adapter from others: a hash of its values and scales. */
coe_status adapter_add_text(const struct coe_model *m, struct str *out);
void adapter_free(struct adapter *a);

/* ---- for the files of this part ---- */

/* Where the two matrices of a parameter lie in a PEFT file. */
struct adapter_key {
    char parameter[256]; /* of stacked experts: the tensor, as PEFT's target_parameters calls it */
    char module[256];    /* without "base_model.model." and ".lora_A.weight" */
    bool stacked;        /* experts in one tensor */
    int32_t n_experts;   /* then */
    struct cut cut;      /* how the rows of B are shared between parameters */
};
/* The i-th name under which a parameter may be found, the first is written; false behind the last. */
bool adapter_key(const struct coe_model *m, const struct param *p, int i, struct adapter_key *out);
/* Whether a parameter may have an adapter: matrices whose products know of it. */
bool adapter_fits(const struct param *p);
/* COE_E_USAGE for a model that has an adapter. */
coe_status adapter_allowed(const struct coe_model *m);
/* The network as a directory of it is described; a GGUF file may hold rows of q and k in another order, and those of B
 * follow them (gguf_form.h). *out shares the model's memory and a's. */
coe_status adapter_spec(const struct coe_model *m, struct arena *a, struct spec *out);
/* Room for n matrices with `floats` values in all, twice that with gradients; m->adapter. */
coe_status adapter_make(struct coe_model *m, size_t n, size_t floats, bool learns);
/* The next matrix of the adapter, from its room; name is kept in the model's arena. */
struct weight *adapter_matrix(struct coe_model *m, const char *name, int64_t rows, int64_t cols);

#endif
