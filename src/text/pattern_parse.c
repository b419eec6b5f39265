/* pattern_parse.c — a pattern into alternatives of items over character classes, where it is of that shape, and the
 * table that gives each code point's classes. */
#include <string.h>

#include "text/pattern.h"

struct parser {
    struct pattern *p;
    const char *at, *end, *where;
    bool fold;       /* inside (?i:…) */
    bool understood; /* false: leave it to PCRE2 */
    struct cpset classes[PATTERN_MAX_CLASSES];
    size_t n_classes;
    VEC(struct pattern_seq) groups; /* moved behind the alternatives at the end */
};

/* The bit of the class `set`, which is taken over. 0 with understood = false when there are too many. */
static coe_status class_bit(struct parser *ps, struct cpset *set, uint32_t *bit)
{
    *bit = 0;
    if (ps->fold) {
        coe_status s = cpset_fold_case(set);
        if (s == COE_E_USAGE) ps->understood = false;
        else if (s) return s;
    }
    for (size_t i = 0; i < ps->n_classes; i++)
        if (cpset_equal(&ps->classes[i], set)) {
            cpset_free(set);
            *bit = 1u << i;
            return COE_OK;
        }
    if (ps->n_classes == PATTERN_MAX_CLASSES) {
        cpset_free(set);
        ps->understood = false;
        return COE_OK;
    }
    *bit = 1u << ps->n_classes;
    ps->classes[ps->n_classes++] = *set;
    *set = (struct cpset){ 0 };
    return COE_OK;
}

/* One character, class or escape. *is_atom false when something else stands here. */
static coe_status parse_atom(struct parser *ps, uint32_t *bit, bool *is_atom)
{
    struct cpset set = { 0 };
    coe_status s = COE_OK;
    char c = *ps->at;
    *is_atom = true;
    *bit = 0;
    if (c == '[') {
        ps->at++;
        s = pattern_parse_class(&set, &ps->at, ps->end, ps->where);
    } else if (c == '\\') {
        if (ps->end - ps->at > 1 && strchr("bBAzZGRXKQEkg", ps->at[1])) ps->understood = false;
        ps->at++;
        if (ps->understood) s = pattern_parse_escape(&set, &ps->at, ps->end, false, ps->where);
    } else if (c == '.') {
        ps->at++;
        s = cpset_add(&set, '\n', '\n');
        if (!s) s = cpset_invert(&set);
    } else if (strchr("(|)^$?*+{", c)) {
        *is_atom = false;
        return COE_OK;
    } else {
        uint32_t cp;
        int len = utf8_decode(ps->at, (size_t)(ps->end - ps->at), &cp);
        if (!len) return coe_fail(COE_E_INPUT, "%s: pattern is not UTF-8", ps->where);
        ps->at += len;
        s = cpset_add(&set, cp, cp);
    }
    if (!s && ps->understood) s = class_bit(ps, &set, bit);
    cpset_free(&set);
    return s;
}

static bool read_number(struct parser *ps, uint32_t *out)
{
    uint64_t x = 0;
    const char *from = ps->at;
    for (; ps->at < ps->end && *ps->at >= '0' && *ps->at <= '9'; ps->at++)
        x = COE_MIN(x * 10 + (uint64_t)(*ps->at - '0'), 1u << 20);
    *out = (uint32_t)x;
    return ps->at > from;
}

/* {n}, {n,} and {n,m} from the brace on. */
static void parse_counts(struct parser *ps, struct pattern_item *it)
{
    ps->at++;
    bool ok = read_number(ps, &it->min);
    it->max = it->min;
    if (ok && ps->at < ps->end && *ps->at == ',') {
        ps->at++;
        if (!read_number(ps, &it->max)) it->max = UINT32_MAX;
    }
    if (!ok || ps->at == ps->end || *ps->at != '}' || it->max < it->min) ps->understood = false;
    else ps->at++;
}

static void parse_repeat(struct parser *ps, struct pattern_item *it)
{
    it->min = it->max = 1;
    if (ps->at == ps->end || !strchr("?*+{", *ps->at)) return;
    char c = *ps->at;
    if (c == '{') {
        parse_counts(ps, it);
    } else {
        ps->at++;
        it->min = c == '+';
        it->max = c == '?' ? 1 : UINT32_MAX;
    }
    if (ps->at == ps->end) return;
    if (*ps->at == '+' && c != '{') {
        it->possessive = true;
        ps->at++;
    } else if (strchr("?*+{", *ps->at)) {
        ps->understood = false; /* lazy or stacked repeats */
    }
}

static bool eat(struct parser *ps, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(ps->end - ps->at) < n || memcmp(ps->at, text, n) != 0) return false;
    ps->at += n;
    return true;
}

/* The choices of a group, behind its opening: each a run of single characters. */
static coe_status parse_choices(struct parser *ps, struct pattern_item *group)
{
    group->kind = ITEM_GROUP;
    group->first = (uint32_t)ps->groups.n;
    struct pattern_seq seq = { (uint32_t)ps->p->item.n, 0, 0 };
    while (ps->understood) {
        if (ps->at == ps->end) return coe_fail(COE_E_INPUT, "%s: pattern: ( without )", ps->where);
        if (*ps->at == '|' || *ps->at == ')') {
            bool last = *ps->at++ == ')';
            seq.n = (uint32_t)ps->p->item.n - seq.at;
            if (!seq.n) ps->understood = false;
            if (!VEC_PUSH(&ps->groups, seq)) return COE_E_NOMEM;
            seq.at = (uint32_t)ps->p->item.n;
            if (last) break;
            continue;
        }
        struct pattern_item it = { .kind = ITEM_SET, .min = 1, .max = 1 };
        bool atom;
        COE_TRY(parse_atom(ps, &it.bits, &atom));
        if (!atom) ps->understood = false;
        if (!VEC_PUSH(&ps->p->item, it)) return COE_E_NOMEM;
    }
    group->n = (uint32_t)ps->groups.n - group->first;
    return COE_OK;
}

/* (?!X) and (?=X), behind the opening. */
static coe_status parse_ahead(struct parser *ps, struct pattern_item *it, bool negative)
{
    bool atom = false;
    it->kind = negative ? ITEM_NOT_AHEAD : ITEM_AHEAD;
    if (ps->at < ps->end) COE_TRY(parse_atom(ps, &it->bits, &atom));
    if (!atom || !eat(ps, ")")) ps->understood = false;
    return COE_OK;
}

/* The items of a group are laid down before the group itself, so an alternative collects its own in `own` first. */
struct own_items {
    struct pattern_item at[64];
    uint32_t n;
};

static coe_status parse_item(struct parser *ps, struct own_items *own)
{
    struct pattern_item it = { 0 };
    coe_status s = COE_OK;
    bool fold = ps->fold, atom = true;
    if (eat(ps, "(?!")) {
        s = parse_ahead(ps, &it, true);
    } else if (eat(ps, "(?=")) {
        s = parse_ahead(ps, &it, false);
    } else if (eat(ps, "(?i:") || eat(ps, "(?:")) {
        ps->fold = fold || ps->at[-2] == 'i';
        s = parse_choices(ps, &it);
        ps->fold = fold;
        if (eat(ps, "?")) it.optional = true;
        if (ps->at < ps->end && strchr("?*+{", *ps->at)) ps->understood = false;
    } else if (eat(ps, "$")) {
        it.kind = ITEM_LINE_END;
    } else {
        s = parse_atom(ps, &it.bits, &atom);
        if (!atom) ps->understood = false;
        else parse_repeat(ps, &it);
    }
    if (own->n == COE_COUNT(own->at)) ps->understood = false;
    else own->at[own->n++] = it;
    return s;
}

static coe_status parse_alternative(struct parser *ps)
{
    struct own_items own = { .n = 0 };
    while (ps->understood && ps->at < ps->end && *ps->at != '|') COE_TRY(parse_item(ps, &own));
    struct pattern_seq seq = { (uint32_t)ps->p->item.n, own.n, 0 };
    for (uint32_t i = 0; i < own.n; i++)
        if (!VEC_PUSH(&ps->p->item, own.at[i])) return COE_E_NOMEM;
    if (ps->p->n_alts == PATTERN_MAX_ALTS || !own.n) ps->understood = false;
    else if (!VEC_PUSH(&ps->p->seq, seq)) return COE_E_NOMEM;
    else ps->p->n_alts++;
    return COE_OK;
}

/* Classes that items it … end-1 can begin with; PATTERN_ANY as soon as they may match nothing or look further. */
static uint32_t starts_of(const struct pattern *p, const struct pattern_item *it, const struct pattern_item *end)
{
    uint32_t bits = 0;
    for (; it < end; it++) {
        if (it->kind == ITEM_GROUP) {
            for (uint32_t i = 0; i < it->n; i++) bits |= p->item.at[p->seq.at[it->first + i].at].bits;
            if (!it->optional) return bits;
        } else if (it->kind == ITEM_SET) {
            bits |= it->bits;
            if (it->min) return bits;
        } else {
            return PATTERN_ANY;
        }
    }
    return PATTERN_ANY;
}

static coe_status finish(struct parser *ps)
{
    struct pattern *p = ps->p;
    for (size_t i = 0; i < ps->groups.n; i++)
        if (!VEC_PUSH(&p->seq, ps->groups.at[i])) return COE_E_NOMEM;
    for (uint32_t i = 0; i < p->item.n; i++)
        if (p->item.at[i].kind == ITEM_GROUP) p->item.at[i].first += p->n_alts;
    for (uint32_t i = 0; i < p->n_alts; i++) {
        struct pattern_seq *alt = &p->seq.at[i];
        struct pattern_item *it = p->item.at + alt->at;
        alt->starts = starts_of(p, it, it + alt->n);
        if (alt->starts & PATTERN_ANY) ps->understood = false; /* may match nothing */
        p->starts |= alt->starts;
        for (uint32_t k = 0; k < alt->n; k++) it[k].after = starts_of(p, it + k + 1, it + alt->n);
    }
    return ps->understood ? pattern_build_table(p, ps->classes, ps->n_classes) : COE_OK;
}

coe_status pattern_parse_fast(struct pattern *p, const char *regex, size_t n, bool *understood, const char *where)
{
    struct parser ps = { .p = p, .at = regex, .end = regex + n, .where = where, .understood = n > 0 };
    coe_status s = COE_OK;
    while (!s && ps.understood) {
        s = parse_alternative(&ps);
        if (ps.at == ps.end) break;
        ps.at++; /* the bar */
        if (ps.at == ps.end) ps.understood = false;
    }
    if (!s && ps.understood) s = finish(&ps);
    *understood = ps.understood;
    for (size_t i = 0; i < ps.n_classes; i++) cpset_free(&ps.classes[i]);
    VEC_FREE(&ps.groups);
    return s;
}

/* Classes of the code points first … first+255. True when all are alike. */
static bool page_of(uint32_t mask[256], const struct cpset *classes, size_t n, size_t *cursor, uint32_t first)
{
    bool uniform = true;
    const uint32_t last = first + 255;
    for (int i = 0; i < 256; i++) mask[i] = PATTERN_ANY;
    for (size_t c = 0; c < n; c++) {
        const struct cpset *set = &classes[c];
        while (cursor[c] < set->n && set->at[cursor[c]].hi < first) cursor[c]++;
        for (size_t i = cursor[c]; i < set->n && set->at[i].lo <= last; i++) {
            uint32_t lo = COE_MAX(set->at[i].lo, first), hi = COE_MIN(set->at[i].hi, last);
            if (lo != first || hi != last) uniform = false;
            for (uint32_t cp = lo; cp <= hi; cp++) mask[cp - first] |= 1u << c;
        }
    }
    return uniform;
}

coe_status pattern_build_table(struct pattern *p, struct cpset *classes, size_t n)
{
    size_t cursor[PATTERN_MAX_CLASSES] = { 0 };
    uint32_t mask[256], last_uniform = UINT32_MAX;
    p->page = mem_alloc("patterns", (CP_MAX + 1) / 256 * sizeof *p->page);
    if (!p->page) return COE_E_NOMEM;
    for (uint32_t first = 0; first <= CP_MAX; first += 256) {
        bool uniform = page_of(mask, classes, n, cursor, first);
        uint32_t *page = &p->page[first >> 8];
        if (uniform && last_uniform != UINT32_MAX && p->mask.at[last_uniform] == mask[0]) {
            *page = last_uniform;
            continue;
        }
        *page = (uint32_t)p->mask.n;
        if (uniform) last_uniform = *page;
        if (!VEC_RESERVE(&p->mask, p->mask.n + 256)) return COE_E_NOMEM;
        memcpy(p->mask.at + p->mask.n, mask, sizeof mask);
        p->mask.n += 256;
        if (!first) memcpy(p->ascii, mask, sizeof p->ascii);
    }
    return COE_OK;
}
