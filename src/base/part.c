/* part.c — look-ups in the table that the build collects. */
#include "part.h"

#include <string.h>

const struct part *part_find(const char *kind, const char *name)
{
    size_t from = 0, end = coe_n_parts;
    while (from < end) {
        const size_t i = from + (end - from) / 2;
        const int by_kind = strcmp(coe_parts[i]->kind, kind);
        const int order = by_kind ? by_kind : strcmp(coe_parts[i]->name, name);
        if (!order) return coe_parts[i];
        if (order < 0) from = i + 1;
        else end = i;
    }
    return NULL;
}

const struct part *part_at(const char *kind, size_t n)
{
    for (size_t i = 0; i < coe_n_parts; i++)
        if (!strcmp(coe_parts[i]->kind, kind) && !n--) return coe_parts[i];
    return NULL;
}

void part_defaults(const struct part *p, double *value)
{
    const struct part_param *o = p->params;
    for (size_t i = 0; o && o[i].name; i++) value[i] = o[i].choices ? 0 : o[i].otherwise;
}
