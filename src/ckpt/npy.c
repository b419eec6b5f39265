/* npy.c — numpy's array files.
 *
 *     "\x93NUMPY" major minor | length of the text: u16 (version 1), u32 (2, 3) | text | data
 *
 * The text is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. */
#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "reader.h"

static const char magic[6] = { '\x93', 'N', 'U', 'M', 'P', 'Y' };

static const struct {
    const char *descr;
    enum dtype type;
} descrs[] = {
    { "<f4", DT_F32 }, { "<f8", DT_F64 }, { "<f2", DT_F16 }, { "<i4", DT_I32 },  { "<i8", DT_I64 },
    { "<i2", DT_I16 }, { "|i1", DT_I8 },  { "|u1", DT_U8 },  { "|b1", DT_BOOL },
};

/* A cursor over the header's text; `where` for messages. */
struct literal {
    const char *at, *end, *where;
};

static void skip_space(struct literal *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t')) p->at++;
}

static bool take(struct literal *p, const char *token)
{
    size_t n = strlen(token);
    skip_space(p);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, token, n)) return false;
    p->at += n;
    return true;
}

/* 'text' into out[size) */
static bool take_string(struct literal *p, char *out, size_t size)
{
    if (!take(p, "'")) return false;
    const char *quote = memchr(p->at, '\'', (size_t)(p->end - p->at));
    if (!quote || (size_t)(quote - p->at) >= size) return false;
    memcpy(out, p->at, (size_t)(quote - p->at));
    out[quote - p->at] = 0;
    p->at = quote + 1;
    return true;
}

static bool take_number(struct literal *p, int64_t *out)
{
    skip_space(p);
    const char *from = p->at;
    int64_t x = 0;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        if (__builtin_mul_overflow(x, 10, &x) || __builtin_add_overflow(x, *p->at - '0', &x)) return false;
    *out = x;
    return p->at > from;
}

static coe_status read_descr(struct npy *a, struct literal *p)
{
    char text[16];
    if (!take_string(p, text, sizeof text))
        return coe_fail(COE_E_INPUT, "%s: descr is not a short string; arrays of records are not read here", p->where);
    for (size_t i = 0; i < COE_COUNT(descrs); i++)
        if (!strcmp(descrs[i].descr, text)) {
            a->type = descrs[i].type;
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: type '%s', expected one of <f4 <f8 <f2 <i4 <i8 <i2 |i1 |u1 |b1", p->where, text);
}

/* (), (3,) or (3, 4) */
static coe_status read_shape(struct npy *a, struct literal *p)
{
    a->n_dims = 0;
    if (!take(p, "(")) goto wrong;
    while (!take(p, ")")) {
        int64_t d;
        if (!take_number(p, &d)) goto wrong;
        if (a->n_dims == MAX_DIMS) return coe_fail(COE_E_INPUT, "%s: more than %d dimensions", p->where, MAX_DIMS);
        a->dim[a->n_dims++] = d;
        if (!take(p, ",")) {
            if (!take(p, ")") || a->n_dims == 1) goto wrong; /* (3) is a number, not a shape */
            break;
        }
    }
    return COE_OK;
wrong:
    return coe_fail(COE_E_INPUT, "%s: shape is not a tuple of whole numbers", p->where);
}

static coe_status read_order(bool *fortran, struct literal *p)
{
    *fortran = take(p, "True");
    if (*fortran || take(p, "False")) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: fortran_order is neither True nor False", p->where);
}

static coe_status read_dict(struct npy *a, struct literal *p)
{
    static const char *const keys[] = { "descr", "fortran_order", "shape" };
    char key[32];
    bool seen[3] = { false }, fortran = false;
    if (!take(p, "{")) return coe_fail(COE_E_INPUT, "%s: header is not a dictionary", p->where);
    while (!take(p, "}")) {
        if (!take_string(p, key, sizeof key) || !take(p, ":"))
            return coe_fail(COE_E_INPUT, "%s: header: expected 'key': before '%.*s'", p->where,
                            (int)COE_MIN(p->end - p->at, 20), p->at);
        size_t which = 0;
        while (which < 3 && strcmp(key, keys[which])) which++;
        if (which == 3 || seen[which])
            return coe_fail(COE_E_INPUT, "%s: header: key '%s' is %s", p->where, key,
                            which < 3 ? "there twice" : "unknown");
        seen[which] = true;
        COE_TRY(which == 0 ? read_descr(a, p) : which == 1 ? read_order(&fortran, p) : read_shape(a, p));
        if (!take(p, ",") && !take(p, "}"))
            return coe_fail(COE_E_INPUT, "%s: header: expected ',' behind '%s'", p->where, key);
        if (p->at[-1] == '}') break;
    }
    if (!seen[0] || !seen[1] || !seen[2])
        return coe_fail(COE_E_INPUT, "%s: header lacks descr, fortran_order or shape", p->where);
    if (fortran && a->n_dims > 1)
        return coe_fail(COE_E_INPUT, "%s: is in Fortran order; save numpy.ascontiguousarray of it", p->where);
    return COE_OK;
}

/* Where the header's text lies: from *begin to *end. */
static coe_status find_text(uint64_t *begin, uint64_t *end, const unsigned char *bytes, uint64_t n, const char *where)
{
    if (n < 10 || memcmp(bytes, magic, sizeof magic))
        return coe_fail(COE_E_INPUT, "%s: does not begin like a .npy file", where);
    int version = bytes[6];
    if (version < 1 || version > 3)
        return coe_fail(COE_E_INPUT, "%s: .npy version %d, expected 1 to 3", where, version);
    *begin = version == 1 ? 10 : 12;
    if (n < *begin) return coe_fail(COE_E_INPUT, "%s: %llu bytes, cut in the header", where, (unsigned long long)n);
    *end = *begin + (version == 1 ? load_u16(bytes + 8) : load_u32(bytes + 8));
    if (*end > n)
        return coe_fail(COE_E_INPUT, "%s: header ends at byte %llu, the file at %llu", where, (unsigned long long)*end,
                        (unsigned long long)n);
    return COE_OK;
}

static coe_status data_bytes(uint64_t *bytes, enum dtype type, int32_t n_dims, const int64_t *dim, const char *where)
{
    int64_t count = 1;
    const bool fits = shape_fits(dim, n_dims);
    for (int32_t i = 0; fits && i < n_dims; i++) count *= dim[i];
    if (fits && dtype_bytes(type, (uint64_t)count, bytes)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: shape has more elements than 64 bits can count", where);
}

coe_status npy_parse(struct npy *out, const unsigned char *bytes, uint64_t n, const char *where)
{
    struct npy a = { 0 };
    uint64_t begin = 0, end = 0, need = 0;
    *out = a;
    COE_TRY(find_text(&begin, &end, bytes, n, where));
    struct literal p = { (const char *)bytes + begin, (const char *)bytes + end, where };
    COE_TRY(read_dict(&a, &p));
    COE_TRY(data_bytes(&need, a.type, a.n_dims, a.dim, where));
    if (need != n - end)
        return coe_fail(COE_E_INPUT, "%s: has %llu bytes of data, its shape needs %llu", where,
                        (unsigned long long)(n - end), (unsigned long long)need);
    a.data = mem_alloc("arrays", (size_t)need);
    if (!a.data) return COE_E_NOMEM;
    memcpy(a.data, bytes + end, (size_t)need);
    *out = a;
    return COE_OK;
}

coe_status npy_read(struct npy *out, const char *path)
{
    struct file_map m;
    *out = (struct npy){ 0 };
    COE_TRY(file_map_open(&m, path));
    coe_status s = npy_parse(out, m.at, m.bytes, path);
    file_map_close(&m);
    return s;
}

void npy_free(struct npy *a)
{
    mem_free(a->data);
    *a = (struct npy){ 0 };
}

static coe_status header_text(struct str *h, enum dtype type, int32_t n_dims, const int64_t *dim, const char *path)
{
    const char *descr = NULL;
    for (size_t i = 0; i < COE_COUNT(descrs); i++)
        if (descrs[i].type == type) descr = descrs[i].descr;
    if (!descr) return coe_fail(COE_E_USAGE, "%s: .npy has no type for %s", path, dtype_info[type].name);
    str_add(h, magic, sizeof magic);
    str_add(h, "\x01\x00\x00\x00", 4);
    str_addf(h, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int32_t i = 0; i < n_dims; i++) str_addf(h, i ? ", %lld" : "%lld", (long long)dim[i]);
    str_addz(h, n_dims == 1 ? ",), }" : "), }");
    while (h->n % 64 != 63) str_addc(h, ' '); /* data begins at a multiple of 64, as numpy writes it */
    str_addc(h, '\n');
    COE_TRY(str_check(h));
    h->at[8] = (char)((h->n - 10) & 255);
    h->at[9] = (char)((h->n - 10) >> 8);
    return COE_OK;
}

coe_status npy_write(const char *path, enum dtype type, int32_t n_dims, const int64_t *dim, const void *data)
{
    struct str h = { 0 };
    struct file_out f;
    uint64_t bytes;
    coe_status s = data_bytes(&bytes, type, n_dims, dim, path);
    if (!s) s = header_text(&h, type, n_dims, dim, path);
    if (!s) s = file_begin(&f, path);
    if (s) goto out;
    s = file_put(&f, h.at, h.n);
    if (!s) s = file_put(&f, data, (size_t)bytes);
    if (s) file_abort(&f);
    else s = file_commit(&f);
out:
    str_free(&h);
    return s;
}
