/* gguf_form.c — which architecture of llama.cpp computes what a network computes; see gguf_form.h. */
#include "model/gguf_form.h"

#include <math.h>
#include <string.h>

static const struct gguf_arch archs[] = {
    { "llama", "llama", true, false, -1 },
    { "mistral", "llama", true, false, -1 },
    { "mixtral", "llama", true, false, 1 },
    { "olmoe", "olmoe", false, false, 0 },
    { "olmo2", "olmo2", false, false, -1 },
    { "qwen2", "qwen2", false, false, -1 },
    { "qwen3", "qwen3", false, false, -1 },
    { "qwen2_moe", "qwen2moe", false, false, 0 },
    { "qwen3_moe", "qwen3moe", false, false, 1 },
    { "deepseek", "deepseek", true, false, 0 },
    { "deepseek_v2", "deepseek2", false, false, -1 },
    { "deepseek_v3", "deepseek2", false, false, -1 },
    { "dots1", "dots1", false, false, -1 },
    { "gpt_oss", "gpt-oss", false, false, 1 },
    { "gemma2", "gemma2", false, true, -1 },
    { "gemma3", "gemma3", false, true, -1 },
    { "smollm3", "smollm3", true, false, -1 },
    { "granitemoe", "granitemoe", true, false, 1 },
    { "glm4_moe", "glm4moe", false, false, -1 },
    { "minimax_m2", "minimax-m2", false, false, 1 },
    { "hunyuan_v1_moe", "hunyuan-moe", false, false, 1 },
    { "ernie4_5_moe", "ernie4_5-moe", false, false, 1 },
    { "afmoe", "afmoe", false, false, -1 },
    { "lfm2_moe", "lfm2moe", false, false, 1 },
    { "llama4", "llama4", false, false, 0 },
    { "qwen3_next", "qwen3next", false, true, 1 },
};

const struct gguf_arch *gguf_arch_of_family(const char *family)
{
    for (size_t i = 0; i < COE_COUNT(archs); i++)
        if (!strcmp(archs[i].family, family)) return &archs[i];
    return NULL;
}

/* ---- does llama.cpp compute the same? ---- */

static bool attention_fits(const struct attn_spec *a, const struct gguf_arch *arch, const char **why)
{
    const bool conv = a->kind == MIX_CONV && !strcmp(arch->name, "lfm2moe"), next = !strcmp(arch->name, "qwen3next");
    const bool llama4 = !strcmp(arch->name, "llama4"); /* constants_fit knows its chunks and tempers */
    const struct {
        bool wrong;
        const char *text;
    } checks[] = {
        { a->kind != MIX_ATTENTION && a->kind != MIX_LATENT && !conv && !(next && a->kind == MIX_DELTA),
          "layers that are no attention" },
        { conv && a->recurrent.bias, "convolutions with biases" },
        { conv && a->recurrent.kernel < 2, "convolutions of one token" },
        { a->gate != ATTN_GATE_NONE && strcmp(arch->name, "afmoe") && !next, "gated attention" },
        { a->clip > 0, "clamped queries, keys and values" },
        { a->kind == MIX_LATENT && (a->qkv_bias || a->o_bias), "biases of latent attention" },
        { a->temper > 0 && !llama4, "tempered queries" },
        { a->chunk > 0 && !llama4, "attention in chunks" },
        { a->rope.kind == ROPE_LONG, "LongRoPE" },
        { a->rope.kind == ROPE_LLAMA3 && strcmp(arch->name, "llama") && !llama4, "Llama 3's rope" },
        { a->rope.kind == ROPE_YARN && a->rope.attention_factor > 0, "YaRN with a factor of its own" },
        { a->rope.kind == ROPE_YARN && !a->rope.truncate && strcmp(arch->name, "gpt-oss"), "YaRN without rounding" },
        { arch->pairs && a->rope.kind != ROPE_NONE && a->rope.n_rot != a->head_dim, "rope on a part of the head" },
        { arch->pairs && (a->rope.interleaved || a->qk_norm == QK_NORM_HEAD), "another order inside the heads" },
        { a->qkv_bias && (!strcmp(arch->name, "olmoe") || !strcmp(arch->name, "qwen3moe") ||
                          !strcmp(arch->name, "qwen3") || !strcmp(arch->name, "olmo2") || llama4 || next),
          "biases of attention" },
    };
    for (size_t i = 0; i < COE_COUNT(checks); i++)
        if (checks[i].wrong) *why = checks[i].text;
    return !*why;
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(name, *list)) return true;
    return false;
}

static bool routing_fits(const struct moe_spec *m, const struct gguf_arch *arch, const char **why)
{
    static const char *const sigmoids[] = { "deepseek2", "dots1", "glm4moe", "minimax-m2", "afmoe", "lfm2moe", NULL };
    static const char *const beside[] = { "deepseek", "granitemoe", "hunyuan-moe", "ernie4_5-moe", "llama4", NULL };
    const struct router_spec *r = &m->router;
    const bool deepseek = !strcmp(arch->name, "deepseek2"), ernie = !strcmp(arch->name, "ernie4_5-moe"),
               lfm2 = !strcmp(arch->name, "lfm2moe"), sigmoid = is_one_of(arch->name, sigmoids),
               llama4 = !strcmp(arch->name, "llama4");
    const struct {
        bool wrong;
        const char *text;
    } checks[] = {
        { m->chain.n_iterations > 1, "a chain of experts" },
        { m->chain.residual != RESIDUAL_PRENORM, "another residual of the experts" },
        { m->n_identity > 0, "identity experts" },
        { m->n_null > 0, "null experts" },
        { m->n_ranges > 0, "experts of several kinds" },
        { m->pool.layers > 1, "layers that share experts" },
        { m->input_scale != 1 || m->out_bias || r->expert_scale, "experts with extra factors" },
        { m->shared_bias, "biases of shared experts" },
        { m->weigh_input != llama4, "weights at the other end of the experts" },
        { r->kind_param[0] != 1, "a temperature of the router" },
        { strcmp(r->kind, "linear") || strcmp(r->selection, "top_k"), "another router" },
        { r->score != SCORE_SOFTMAX && !((sigmoid || llama4) && r->score == SCORE_SIGMOID), "another score" },
        { llama4 && r->score != SCORE_SIGMOID, "another score" },
        { r->selection_bias && !sigmoid && !ernie, "a selection bias" },
        { r->n_group > 1 && (!deepseek || r->group_score != GROUP_SUM2), "groups of experts" },
        { arch->renormalize >= 0 && r->renormalize != (arch->renormalize == 1), "another rule for the weights" },
        { lfm2 && !r->selection_bias, "no selection bias" },
        { lfm2 && r->scale != 1, "scaled weights" },
        { r->scale != 1 && !sigmoid && strcmp(arch->name, "deepseek"), "scaled weights" },
        { m->shared_ffn > 0 && !m->shared_gate && !sigmoid && !is_one_of(arch->name, beside), "shared experts" },
    };
    for (size_t i = 0; i < COE_COUNT(checks); i++)
        if (checks[i].wrong) *why = checks[i].text;
    return !*why;
}

/* Llama 4: of four layers three turn inside chunks of 8192, with q and k of unit norm unless there are 128 experts. */
static bool llama4_fits(const struct spec *s, int32_t l, const char **why)
{
    const struct attn_spec *a = &s->layer[l].attn;
    const bool turns = (l + 1) % 4 != 0, unit = s->layer[l].moe.n_experts != 128;
    if ((a->rope.kind != ROPE_NONE) != turns) *why = "another order of layers without rope";
    else if (a->chunk != (turns ? 8192 : 0)) *why = "another length of chunks";
    else if (!turns && (a->temper != 0.1f || a->temper_floor != 8192)) *why = "another temper of queries";
    else if (turns && (a->qk_norm == QK_NORM_UNIT) != unit) *why = "another norm of queries and keys";
    else if (turns && a->rope.n_rot != a->head_dim) *why = "rope on a part of the head";
    return !*why;
}

/* Qwen3-Next: one size for all heads of the delta rule, whose unit vectors take the norms' epsilon. */
static bool qwen3_next_fits(const struct spec *s, int32_t l, const char **why)
{
    const struct attn_spec *a = &s->layer[l].attn;
    const struct layer_spec *layer = &s->layer[l];
    if (a->kind == MIX_DELTA && a->recurrent.d_k != a->recurrent.d_v) *why = "keys and values of different widths";
    else if (a->kind == MIX_DELTA && s->norm_eps != 1e-6f) *why = "norms with another epsilon than unit vectors";
    else if (!layer->is_moe) *why = "dense layers among the others";
    else if (!layer->moe.shared_ffn) *why = "experts without a shared one";
    return !*why;
}

/* What llama.cpp knows by heart about an architecture must be so: which layers have a window, how scores are scaled. */
static bool constants_fit(const struct spec *s, int32_t l, const struct gguf_arch *arch, const char **why)
{
    const struct attn_spec *a = &s->layer[l].attn;
    if (!strcmp(arch->name, "llama4")) return llama4_fits(s, l, why);
    if (!strcmp(arch->name, "qwen3next")) return qwen3_next_fits(s, l, why);
    const bool gemma2 = !strcmp(arch->name, "gemma2"), gemma3 = !strcmp(arch->name, "gemma3"),
               gpt_oss = !strcmp(arch->name, "gpt-oss"), afmoe = !strcmp(arch->name, "afmoe");
    if (gemma2 || gemma3) {
        const bool largest = s->n_layers == (gemma2 ? 46 : 62); /* the two of 27 B */
        const double width = largest ? (double)s->d_model / a->n_heads : a->head_dim;
        if (fabs((double)a->scale * sqrt(width) - 1) > 1e-5) *why = "another scale of attention scores";
        if (gemma3 && a->window && (a->rope.kind != ROPE_PLAIN || a->rope.theta != 10000))
            *why = "another rope in windowed layers";
    }
    if ((gemma2 || gpt_oss) && (a->window > 0) != (l % 2 == 0)) *why = "another order of windowed layers";
    if (gemma3 && (a->window > 0) != ((l + 1) % 6 != 0)) *why = "another order of windowed layers";
    if (afmoe && (a->window > 0) != ((l + 1) % 4 != 0)) *why = "another order of windowed layers";
    if (!strcmp(arch->name, "lfm2moe") && a->n_heads * a->head_dim != s->d_model) *why = "heads of another width";
    if (afmoe && s->embed_scale != sqrtf((float)s->d_model)) *why = "embeddings that are not scaled";
    if (gpt_oss && s->layer[l].is_moe && s->layer[l].moe.act_limit != 7) *why = "another limit of the activation";
    if (a->kind == MIX_LATENT && !a->latent.q_rank && s->n_layers != 26 && s->n_layers != 27)
        *why = "queries without a rank at this depth"; /* only the Lite models are loaded without one */
    return !*why;
}

/* Experts in every layer, behind some dense ones, or in every n-th layer (Llama 4), where a key says so; all alike. */
static bool layers_fit(const struct spec *s, const struct gguf_arch *arch, const char **why)
{
    static const char *const leads[] = { "deepseek",     "deepseek2", "dots1",   "glm4moe",
                                         "ernie4_5-moe", "afmoe",     "lfm2moe", NULL };
    const bool lead = is_one_of(arch->name, leads), llama4 = !strcmp(arch->name, "llama4");
    int32_t first = 0;
    while (first < s->n_layers && !s->layer[first].is_moe) first++;
    if (first == s->n_layers && llama4) *why = "this family without experts";
    if (first == s->n_layers) return !*why;
    if (first && !lead && !llama4) *why = "dense layers among the others";
    const int32_t step = llama4 ? first + 1 : 1;
    for (int32_t l = first; l < s->n_layers; l++) {
        const struct moe_spec *m = &s->layer[l].moe, *one = &s->layer[first].moe;
        const bool routes = (l - first) % step == 0;
        if (s->layer[l].is_moe != routes) *why = "dense layers among the others";
        else if (!routes) continue;
        else if (m->n_experts != one->n_experts || m->router.top_k != one->router.top_k ||
                 m->expert_ffn != one->expert_ffn)
            *why = "layers with different experts";
    }
    return !*why;
}

const struct gguf_arch *gguf_arch_of(const struct spec *s, char why[160])
{
    const struct gguf_arch *a = gguf_arch_of_family(s->family);
    const char *reason = NULL;
    if (!a) reason = "this family";
    const bool factors = s->residual_scale != 1 || s->logit_scale != 1;
    if (a && (s->learned_positions || (factors && strcmp(a->name, "granitemoe"))))
        reason = "factors or positions of its own";
    if (a && s->norm != NORM_RMS) reason = "layer norms";
    for (int32_t l = 0; a && l < s->n_layers && !reason; l++) {
        if (attention_fits(&s->layer[l].attn, a, &reason)) (void)constants_fit(s, l, a, &reason);
        if (s->layer[l].is_moe && !reason) (void)routing_fits(&s->layer[l].moe, a, &reason);
    }
    if (a && !reason) (void)layers_fit(s, a, &reason);
    if (reason) snprintf(why, 160, "llama.cpp has no architecture for %s", reason);
    return reason ? NULL : a;
}

/* ---- what changes on the way ---- */

bool gguf_stays_f32(enum slot slot)
{
    const struct slot_info *i = &slot_info[slot];
    return i->is_vector || i->class == CLASS_ROUTER || slot == SLOT_CONV || slot == SLOT_POSITIONS ||
           slot == SLOT_SHARED_EXPERT_GATE;
}

bool gguf_is_norm_weight(enum slot slot)
{
    return slot_info[slot].class == CLASS_NORM && slot != SLOT_ATTN_NORM_BIAS && slot != SLOT_FFN_NORM_BIAS &&
           slot != SLOT_FINAL_NORM_BIAS && slot != SLOT_DELTA_NORM;
}

void gguf_adapt_spec(struct spec *s, const struct gguf_arch *arch, const struct spec *from)
{
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct recurrent_spec *r = &s->layer[l].attn.recurrent;
        r->ungrouped = s->layer[l].attn.kind == MIX_DELTA;
        r->negative_a = arch ? r->ungrouped : from->layer[l].attn.recurrent.negative_a;
    }
    if (!arch) return;
    for (int32_t l = 0; l < s->n_layers && arch->pairs; l++) s->layer[l].attn.rope.interleaved = true;
    if (arch->whole_norms) s->norm_add = 0;
}

/* Of the first matrix; F32 when it is packed. */
static enum dtype type_of_matrices(const struct coe_model *m)
{
    for (size_t i = 0; i < m->n_params; i++) {
        const struct tensor *t = gguf_stays_f32(m->params[i].at.slot) ? NULL : ckpt_find(m->ckpt, m->params[i].w.name);
        if (t) return t->type == DT_F16 || t->type == DT_BF16 ? t->type : DT_F32;
    }
    return DT_F32;
}

coe_status gguf_plain_type(const struct coe_model *m, enum dtype *out)
{
    static const struct {
        const char *name;
        enum dtype type;
    } names[] = { { "bfloat16", DT_BF16 }, { "float16", DT_F16 }, { "float32", DT_F32 } };
    const json_t *config = model_config(m), *text = json_object_get(config, "dtype");
    const char *name = json_string_value(text ? text : json_object_get(config, "torch_dtype"));
    *out = type_of_matrices(m);
    for (size_t i = 0; name && i < COE_COUNT(names); i++)
        if (!strcmp(names[i].name, name)) *out = names[i].type;
    if (gguf_find(ckpt_gguf(m->ckpt), GGUF_KEY_CONFIG) || !ckpt_find(m->ckpt, "rope_freqs.weight")) return COE_OK;
    return coe_fail(COE_E_USAGE,
                    "%s: the numbers behind rope_freqs.weight are not in the file, so no config.json can say them",
                    m->path);
}
