/* per_layer.c — "experts_per_layer" and "top_k_per_layer" of the "coe" object: a list with one number for each layer,
 * or { "shape": "descending", "min": 4, "max": 16, "cycles": 1, "budget": true }, a shape over the MoE layers whose
 * numbers add up, unless budget is false, to what the layers have otherwise. */
#include "model/per_layer.h"

#include <string.h>

#include "base/mem.h"
#include "moe/layer_schedule.h"

static int32_t *number_of(struct spec *s, int32_t layer, bool top_k)
{
    return top_k ? &s->layer[layer].moe.router.top_k : &s->layer[layer].moe.n_experts;
}

static coe_status from_list(struct spec *s, const json_t *list, const char *key, bool top_k, const char *where)
{
    if (json_array_size(list) != (size_t)s->n_layers)
        return coe_fail(COE_E_INPUT, "%s: %s has %zu numbers, expected one for each of %d layers", where, key,
                        json_array_size(list), s->n_layers);
    for (int32_t l = 0; l < s->n_layers; l++) {
        const json_t *v = json_array_get(list, (size_t)l);
        const int64_t n = json_integer_value(v);
        if (!json_is_integer(v) || n < 0 || n > 65536)
            return coe_fail(COE_E_INPUT, "%s: %s[%d] is not a number of experts", where, key, l);
        if (s->layer[l].is_moe) *number_of(s, l, top_k) = (int32_t)n;
    }
    return COE_OK;
}

static coe_status read_shape(struct layer_schedule *out, bool *budget, const json_t *o, const char *where)
{
    static const char *const keys[] = { "shape", "min", "max", "cycles", "budget", NULL };
    const char *shape = NULL;
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_str(o, "shape", &shape, where));
    for (int i = 0; i < LAYER_SHAPE_COUNT; i++)
        if (!strcmp(layer_shape_name[i], shape)) {
            *out = (struct layer_schedule){ .shape = (enum layer_shape)i, .min = 1, .max = 1, .cycles = 1 };
            COE_TRY(json_get_num(o, "min", &out->min, where));
            COE_TRY(json_get_num(o, "max", &out->max, where));
            COE_TRY(json_get_num(o, "cycles", &out->cycles, where));
            if (!(out->min >= 1 && out->min <= out->max && out->max <= 65536) ||
                !(out->cycles > 0 && out->cycles < 100))
                return coe_fail(COE_E_INPUT, "%s: min %g, max %g, cycles %g", where, out->min, out->max, out->cycles);
            return json_get_bool(o, "budget", budget, where);
        }
    return coe_fail(COE_E_INPUT, "%s: shape '%s' is unknown", where, shape);
}

static coe_status from_shape(struct spec *s, const json_t *o, bool top_k, const char *where)
{
    struct layer_schedule schedule;
    bool keeps_budget = true;
    int32_t n = 0;
    int64_t budget = 0;
    COE_TRY(read_shape(&schedule, &keeps_budget, o, where));
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe) n++, budget += *number_of(s, l, top_k);
    double *exact = mem_alloc("spec", ((size_t)n + 1) * sizeof *exact);
    int32_t *number = mem_alloc("spec", ((size_t)n + 1) * sizeof *number);
    const coe_status status = exact && number ? COE_OK : COE_E_NOMEM;
    if (!status) layer_schedule(&schedule, n, keeps_budget ? COE_MAX(budget, n) : 0, exact, number);
    for (int32_t l = 0, i = 0; l < s->n_layers && !status; l++)
        if (s->layer[l].is_moe) *number_of(s, l, top_k) = number[i++];
    mem_free(exact);
    mem_free(number);
    return status;
}

coe_status spec_per_layer(struct spec *s, const json_t *o, const char *key, bool top_k, const char *where)
{
    const json_t *v = json_object_get(o, key);
    char place[700];
    snprintf(place, sizeof place, "%.500s: %s", where, key);
    if (!v) return COE_OK;
    if (json_is_array(v)) return from_list(s, v, key, top_k, where);
    if (json_is_object(v)) return from_shape(s, v, top_k, place);
    return coe_fail(COE_E_INPUT, "%s is %s, expected a list or a shape", place, json_kind(v));
}
