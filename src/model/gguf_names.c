/* gguf_names.c — tensor names of GGUF files, one table for all architectures: what a slot is called does not depend on
 * them. */
#include "model/families/names.h"
#include "model/gguf.h"

#define BLK "blk.{l}."
#define EXPERTS(slot, name) CUT(slot, BLK name "_exps.weight", CUT_EXPERT, 0, 1), NAME(slot, BLK name ".{e}.weight")
#define EXPERT_BIAS(slot, name) CUT(slot, BLK name "_exps.bias", CUT_EXPERT, 0, 1)

static const struct name_row names[] = {
    NAME(SLOT_EMBED, "token_embd.weight"),
    NAME(SLOT_POSITIONS, "position_embd.weight"),
    NAME(SLOT_FINAL_NORM, "output_norm.weight"),
    NAME(SLOT_FINAL_NORM, "token_embd_norm.weight"), /* LFM2 */
    NAME(SLOT_FINAL_NORM_BIAS, "output_norm.bias"),
    NAME(SLOT_HEAD, "output.weight"),
    NAME(SLOT_HEAD_BIAS, "output.bias"),

    NAME(SLOT_ATTN_NORM, BLK "attn_norm.weight"),
    NAME(SLOT_ATTN_NORM_BIAS, BLK "attn_norm.bias"),
    NAME(SLOT_Q, BLK "attn_q.weight"),
    NAME(SLOT_K, BLK "attn_k.weight"),
    NAME(SLOT_V, BLK "attn_v.weight"),
    CUT(SLOT_Q, BLK "attn_qkv.weight", 0, 0, 3),
    CUT(SLOT_K, BLK "attn_qkv.weight", 0, 1, 3),
    CUT(SLOT_V, BLK "attn_qkv.weight", 0, 2, 3),
    NAME(SLOT_O, BLK "attn_output.weight"),
    NAME(SLOT_Q_BIAS, BLK "attn_q.bias"),
    NAME(SLOT_K_BIAS, BLK "attn_k.bias"),
    NAME(SLOT_V_BIAS, BLK "attn_v.bias"),
    CUT(SLOT_Q_BIAS, BLK "attn_qkv.bias", 0, 0, 3),
    CUT(SLOT_K_BIAS, BLK "attn_qkv.bias", 0, 1, 3),
    CUT(SLOT_V_BIAS, BLK "attn_qkv.bias", 0, 2, 3),
    NAME(SLOT_O_BIAS, BLK "attn_output.bias"),
    NAME(SLOT_Q_NORM, BLK "attn_q_norm.weight"),
    NAME(SLOT_K_NORM, BLK "attn_k_norm.weight"),
    NAME(SLOT_SINK, BLK "attn_sinks.weight"),
    NAME(SLOT_ATTN_GATE, BLK "attn_gate.weight"),
    NAME(SLOT_ATTN_POST_NORM, BLK "post_attention_norm.weight"),

    NAME(SLOT_Q, BLK "attn_q_b.weight"),
    NAME(SLOT_Q_A, BLK "attn_q_a.weight"),
    NAME(SLOT_Q_A_BIAS, BLK "attn_q_a.bias"),
    NAME(SLOT_Q_A_NORM, BLK "attn_q_a_norm.weight"),
    NAME(SLOT_KV_A, BLK "attn_kv_a_mqa.weight"),
    NAME(SLOT_KV_A_BIAS, BLK "attn_kv_a_mqa.bias"),
    NAME(SLOT_KV_A_NORM, BLK "attn_kv_a_norm.weight"),
    NAME(SLOT_KV_B, BLK "attn_kv_b.weight"),
    CUT(SLOT_KV_B, BLK "attn_k_b.weight", CUT_HEAD_PAIR, 0, 0),

    NAME(SLOT_CONV_IN, BLK "shortconv.in_proj.weight"),
    NAME(SLOT_CONV, BLK "shortconv.conv.weight"),
    NAME(SLOT_O, BLK "shortconv.out_proj.weight"),
    NAME(SLOT_CONV_IN_BIAS, BLK "shortconv.in_proj.bias"),
    NAME(SLOT_CONV_BIAS, BLK "shortconv.conv.bias"),

    NAME(SLOT_DELTA_QKV, BLK "attn_qkv.weight"),
    NAME(SLOT_DELTA_Z, BLK "attn_gate.weight"),
    NAME(SLOT_DELTA_QKVZ, BLK "ssm_in.weight"), /* files of 2025 */
    NAME(SLOT_DELTA_QKVZ, BLK "delta_qkvz.weight"),
    NAME(SLOT_DELTA_BA, BLK "ssm_ba.weight"),
    NAME(SLOT_DELTA_BA, BLK "delta_ba.weight"),
    NAME(SLOT_DELTA_A, BLK "ssm_a"),
    NAME(SLOT_DELTA_A, BLK "delta_a.bias"), /* of our own: as the directory has it */
    NAME(SLOT_DELTA_DT, BLK "ssm_dt.bias"),
    NAME(SLOT_DELTA_DT, BLK "delta_dt.bias"),
    NAME(SLOT_DELTA_NORM, BLK "ssm_norm.weight"),
    NAME(SLOT_DELTA_NORM, BLK "delta_norm.weight"),
    NAME(SLOT_CONV, BLK "ssm_conv1d.weight"),
    NAME(SLOT_O, BLK "ssm_out.weight"),

    /* names of our own, in files of architecture coe */
    NAME(SLOT_ATTN_ROUTER, BLK "attn_gate_inp.weight"),
    CUT(SLOT_ATTN_EXPERT_IN, BLK "attn_in_exps.weight", CUT_EXPERT, 0, 1),
    CUT(SLOT_ATTN_EXPERT_OUT, BLK "attn_out_exps.weight", CUT_EXPERT, 0, 1),
    NAME(SLOT_ATTN_EXPERT_BIAS, BLK "attn_exps.bias"),
    NAME(SLOT_EXPERT_SCALE, BLK "ffn_exp_scale.weight"),
    NAME(SLOT_MOE_BIAS, BLK "ffn_exps.bias"),
    NAME(SLOT_COE_WEIGHT, BLK "coe_weight.weight"),

    NAME(SLOT_FFN_NORM, BLK "ffn_norm.weight"),
    NAME(SLOT_FFN_NORM, BLK "post_attention_norm.weight"), /* gpt-oss, GLM: it is the norm before the experts */
    NAME(SLOT_FFN_NORM_BIAS, BLK "ffn_norm.bias"),
    NAME(SLOT_FFN_POST_NORM, BLK "post_ffw_norm.weight"),
    NAME(SLOT_GATE, BLK "ffn_gate.weight"),
    NAME(SLOT_UP, BLK "ffn_up.weight"),
    NAME(SLOT_DOWN, BLK "ffn_down.weight"),
    NAME(SLOT_GATE_BIAS, BLK "ffn_gate.bias"),
    NAME(SLOT_UP_BIAS, BLK "ffn_up.bias"),
    NAME(SLOT_DOWN_BIAS, BLK "ffn_down.bias"),

    NAME(SLOT_ROUTER, BLK "ffn_gate_inp.weight"),
    NAME(SLOT_ROUTER_BIAS, BLK "ffn_gate_inp.bias"),
    NAME(SLOT_SELECTION_BIAS, BLK "exp_probs_b.bias"),
    NAME(SLOT_SELECTION_BIAS, BLK "exp_probs_b"),
    EXPERTS(SLOT_EXPERT_GATE, "ffn_gate"),
    EXPERTS(SLOT_EXPERT_UP, "ffn_up"),
    EXPERTS(SLOT_EXPERT_DOWN, "ffn_down"),
    CUT(SLOT_EXPERT_GATE, BLK "ffn_gate_up_exps.weight", CUT_EXPERT, 0, 2),
    CUT(SLOT_EXPERT_UP, BLK "ffn_gate_up_exps.weight", CUT_EXPERT, 1, 2),
    EXPERT_BIAS(SLOT_EXPERT_GATE_BIAS, "ffn_gate"),
    EXPERT_BIAS(SLOT_EXPERT_UP_BIAS, "ffn_up"),
    EXPERT_BIAS(SLOT_EXPERT_DOWN_BIAS, "ffn_down"),
    NAME(SLOT_SHARED_GATE, BLK "ffn_gate_shexp.weight"),
    NAME(SLOT_SHARED_UP, BLK "ffn_up_shexp.weight"),
    NAME(SLOT_SHARED_DOWN, BLK "ffn_down_shexp.weight"),
    NAME(SLOT_SHARED_GATE_BIAS, BLK "ffn_gate_shexp.bias"),
    NAME(SLOT_SHARED_UP_BIAS, BLK "ffn_up_shexp.bias"),
    NAME(SLOT_SHARED_DOWN_BIAS, BLK "ffn_down_shexp.bias"),
    NAME(SLOT_SHARED_EXPERT_GATE, BLK "ffn_gate_inp_shexp.weight"),
    NAMES_END,
};
static const char *const ignore[] = { "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight",
                                      NULL };

/* Layers that predict several tokens at once stand behind the last. */
static bool has_extra_layers(const struct gguf *g)
{
    struct gguf_text arch = { NULL, 0 };
    char key[128];
    int64_t extra = 0;
    if (gguf_str(g, "general.architecture", &arch) || !arch.n) return false;
    snprintf(key, sizeof key, "%.*s.nextn_predict_layers", (int)COE_MIN(arch.n, (size_t)80), arch.at);
    return !gguf_int(g, key, 0, INT32_MAX, &extra) && extra > 0;
}

const struct family *gguf_family(struct arena *a, const struct family *f, const struct ckpt *c)
{
    struct family *copy = arena_push(a, sizeof *copy);
    if (!copy) return NULL;
    *copy = (struct family){ .model_types = f->model_types,
                             .translate = f->translate,
                             .names = names,
                             .ignore = ignore,
                             .extra_layers = f->extra_layers || has_extra_layers(ckpt_gguf(c)) };
    return copy;
}

static const struct family of_files = { .names = names, .ignore = ignore };

/* The part of a name that tells it from the others of its slot; NULL: the first counts. */
static const char *wanted(const char *arch, const struct spec *s, struct place p, bool separate)
{
    const struct attn_spec *a = &s->layer[p.layer].attn;
    if (p.slot == SLOT_Q && a->kind == MIX_LATENT && a->latent.q_rank) return "attn_q_b";
    const bool next = arch && !strcmp(arch, "qwen3next");
    if (p.slot == SLOT_FFN_NORM && arch && (next || !strcmp(arch, "gpt-oss") || !strcmp(arch, "glm4moe")))
        return "post_attention_norm";
    if (p.slot == SLOT_DELTA_A) return a->recurrent.negative_a ? "ssm_a" : "delta_a";
    if (p.slot == SLOT_CONV && a->kind == MIX_DELTA) return "ssm_conv1d";
    if (p.slot == SLOT_O && a->kind == MIX_DELTA) return "ssm_out";
    if (arch && !strcmp(arch, "lfm2moe")) {
        if (p.slot == SLOT_FINAL_NORM) return "token_embd_norm";
        if (p.slot == SLOT_O && a->kind == MIX_CONV) return "shortconv.out_proj";
    }
    if (separate && slot_info[p.slot].scope == SCOPE_EXPERT && !slot_info[p.slot].is_vector && !place_part(s, p))
        return p.slot == SLOT_EXPERT_GATE ? "ffn_gate." : p.slot == SLOT_EXPERT_UP ? "ffn_up." : "ffn_down.";
    return NULL;
}

bool gguf_name(const char *arch, const struct spec *s, struct place p, bool separate, char *out, size_t cap)
{
    const char *part = wanted(arch, s, p, separate);
    for (int i = 0; family_name(&of_files, s, p, i, out, cap); i++)
        if (!part || strstr(out, part)) return true;
    return false;
}
