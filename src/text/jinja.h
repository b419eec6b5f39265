/* jinja.h — inside the template engine: values, syntax tree, the state of a rendering.
 *
 * Reading order: jinja_lex.c (source → tokens), jinja_parse.c and jinja_stmt.c (tokens → tree), jinja_exec.c
 * (statements), jinja_eval.c (expressions), jinja_value.c (what values do), jinja_filters.c, jinja_lists.c,
 * jinja_tests.c, jinja_methods.c. Values live in the rendering's arena until it ends; nothing is freed before. */
#ifndef COE_TEXT_JINJA_H
#define COE_TEXT_JINJA_H

#include "text/template.h"

#define JINJA_MAX_SOURCE ((size_t)1 << 22)
#define JINJA_MAX_NESTING 120 /* of expressions and statements in the source */
#define JINJA_MAX_DEPTH 1200  /* of calls while rendering */
#define JINJA_MAX_STEPS 5000000u
#define JINJA_MAX_OUTPUT ((size_t)1 << 26)
#define JINJA_MAX_MEMORY ((size_t)1 << 28)
#define JINJA_MAX_RANGE 100000 /* as in Jinja's sandbox */
#define JINJA_MAX_ARGS 32

enum jkind {
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STRING,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_VIEW,
    J_GENERATOR,
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_METHOD,
    J_GLOBAL
};

struct jlist;
struct jdict;
struct jvalue {
    uint8_t kind;
    bool safe;  /* J_STRING: went through |safe; BOOL: the value is i */
    uint32_t n; /* bytes of a J_STRING or of the name of an undefined */
    union {
        int64_t i;
        double f;
        const char *s;
        struct jlist *list; /* LIST, TUPLE, VIEW, GENERATOR */
        struct jdict *dict; /* DICT, NAMESPACE */
        struct jloop *loop;
        const struct jmacro *macro;
        const struct jmethod *method;
        const struct jglobal *global;
    };
};
struct jlist {
    struct jvalue *at;
    size_t n, cap;
};
struct jdict { /* in order of insertion */
    struct jvalue *key, *value;
    uint32_t n, cap;
    uint32_t *slot; /* index + 1, once there are many keys */
    uint32_t n_slots;
};
struct jloop {
    struct jlist *items;
    size_t index;
    int depth;
    struct jvalue seen; /* of changed() */
    bool has_seen;
};
struct jmethod { /* a method bound to its object */
    struct jvalue self;
    const char *name;
    uint32_t n;
};

/* ---- syntax tree ---- */
enum jnode_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_NEG,
    N_POS,
    N_BINARY,
    N_AND,
    N_OR,
    N_COMPARE,
    N_COND,
    N_CONCAT,
    N_CAPTURED,
    N_KEYWORD,
    N_STAR,
    N_STAR_STAR,
    /* statements */
    N_TEXT,
    N_PRINT,
    N_IF,
    N_FOR,
    N_SET,
    N_SET_BLOCK,
    N_MACRO,
    N_CALL_BLOCK,
    N_FILTER_BLOCK,
    N_WITH,
    N_SCOPE,
    N_BREAK,
    N_CONTINUE,
};
enum jop {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOOR_DIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_GT,
    OP_LE,
    OP_GE,
    OP_IN,
    OP_NOT_IN
};

struct jnode {
    uint8_t kind, op;
    bool negated; /* TEST: is not */
    uint32_t line, column;
    uint32_t id;                     /* NAME, KEYWORD, MACRO: number of the name in the template */
    struct jnode *next;              /* in a list of children */
    struct jnode *a, *b, *c, *d, *e; /* see jinja_parse.c and jinja_stmt.c for who means what */
    struct jvalue value;             /* CONST, TEXT; the name of ATTR, FILTER, TEST, NAME */
};

struct template
{
    struct arena arena;
    char *name;
    char *source; /* line ends normalised */
    size_t n;
    struct jnode *body;
    struct {
        struct jvalue *at; /* names by number */
        size_t n, cap;
    } names;
};

/* ---- lexer ---- */
enum jtoken_kind {
    T_END,
    T_TEXT,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP
};
struct jtoken {
    enum jtoken_kind kind;
    uint32_t line, column;
    const char *at; /* TEXT, NAME; STRING: decoded; OP: its characters */
    size_t n;
    int64_t i;
    double f;
};
struct jlexer {
    struct template *t;
    size_t at, line_start, line;
    enum { IN_TEXT, IN_BLOCK, IN_PRINT } mode;
    int brackets;
    bool line_starting; /* the text that comes begins a line */
};
coe_status jinja_next(struct jlexer *lx, struct jtoken *out);

/* ---- parser ---- */
struct jparser {
    struct jlexer lx;
    struct jtoken now, ahead;
    bool has_ahead;
    struct template *t;
    int nesting;
    int loops; /* around this place, for break and continue */
};
coe_status jinja_parse(struct template *t);
coe_status jinja_parse_error(const struct jparser *p, const char *format, ...) COE_PRINTF(2, 3);
coe_status jinja_advance(struct jparser *p);
struct jnode *jinja_node(struct jparser *p, enum jnode_kind kind); /* at the current token; NULL: no memory */
coe_status jinja_expression(struct jparser *p, struct jnode **out, bool with_condition);
coe_status jinja_tuple(struct jparser *p, struct jnode **out, bool with_condition, bool names_only);
/* `in` ends a loop's targets, so they are parsed apart. */
coe_status jinja_targets(struct jparser *p, struct jnode **out);
coe_status jinja_filters_behind(struct jparser *p, struct jnode **node);
coe_status jinja_call_args(struct jparser *p, struct jnode **args);
bool jinja_is_op(const struct jparser *p, const char *op);
bool jinja_is_name(const struct jparser *p, const char *name);
coe_status jinja_expect_op(struct jparser *p, const char *op);
uint32_t jinja_name_number(struct template *t, const char *name, size_t n); /* UINT32_MAX: no memory */

/* ---- rendering ---- */
struct jframe { /* variables of a scope */
    struct jframe *parent;
    struct {
        uint32_t id;
        struct jvalue value;
    } * var;
    uint32_t n, cap;
};
struct jmacro {
    const struct jnode *node;
    struct jframe *scope;
    bool is_caller;
};
struct jargs {
    struct jvalue at[JINJA_MAX_ARGS];
    uint32_t key[JINJA_MAX_ARGS]; /* of the keyword arguments, which stand behind the others: name numbers */
    int n, n_keys;                /* at[n .. n+n_keys) are keyword arguments */
};
struct jstate {
    const struct template *t;
    struct arena arena;
    char *bump;
    size_t bump_left, memory;
    struct str *out;
    struct jframe *frame;
    const struct tm *now;
    const struct jnode *node; /* where we are, for messages */
    struct jvalue captured;   /* what a filter or set block rendered, for the filters behind it */
    uint32_t steps;
    int depth, loop_depth;
    enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
};

/* COE_E_INPUT with the template's name, line and column of s->node. */
coe_status jinja_error(struct jstate *s, const char *format, ...) COE_PRINTF(2, 3);
void *jinja_alloc(struct jstate *s, size_t n); /* NULL: message set */
/* The status behind such a NULL. */
static inline coe_status jinja_failed(void)
{
    coe_status s = coe_last_status();
    return s ? s : COE_E_NOMEM;
}
coe_status jinja_exec(struct jstate *s, const struct jnode *list);
coe_status jinja_eval(struct jstate *s, const struct jnode *node, struct jvalue *out);
coe_status jinja_call(struct jstate *s, struct jvalue fn, const struct jargs *args, struct jvalue *out);
coe_status jinja_assign(struct jstate *s, uint32_t id, struct jvalue value);
/* Renders a list of statements into a string. */
coe_status jinja_capture(struct jstate *s, const struct jnode *list, struct jvalue *out);

/* values */
static inline struct jvalue jv_bool(bool b) { return (struct jvalue){ .kind = J_BOOL, .i = b }; }
static inline struct jvalue jv_int(int64_t i) { return (struct jvalue){ .kind = J_INT, .i = i }; }
static inline struct jvalue jv_float(double f) { return (struct jvalue){ .kind = J_FLOAT, .f = f }; }
static inline struct jvalue jv_text(const char *s, size_t n)
{
    return (struct jvalue){ .kind = J_STRING, .n = (uint32_t)n, .s = s };
}
static inline struct jvalue jv_none(void) { return (struct jvalue){ .kind = J_NONE }; }
static inline struct jvalue jv_undefined(const char *name, size_t n)
{
    return (struct jvalue){ .kind = J_UNDEFINED, .n = (uint32_t)n, .s = name };
}
static inline bool jv_is(struct jvalue v, const char *text)
{
    size_t n = __builtin_strlen(text);
    return v.kind == J_STRING && v.n == n && !__builtin_memcmp(v.s, text, n);
}
coe_status jv_copy_text(struct jstate *s, const char *text, size_t n, struct jvalue *out);
coe_status jv_take_str(struct jstate *s, struct str *text, struct jvalue *out); /* frees text */
coe_status jv_new_list(struct jstate *s, enum jkind kind, struct jvalue *out);
coe_status jv_push(struct jstate *s, struct jlist *l, struct jvalue v);
coe_status jv_new_dict(struct jstate *s, enum jkind kind, struct jvalue *out);
coe_status jv_set(struct jstate *s, struct jdict *d, struct jvalue key, struct jvalue value);
/* NULL: no such key */
struct jvalue *jv_get(const struct jdict *d, struct jvalue key);
const char *jv_type(struct jvalue v); /* Python's name of the type */
bool jv_true(struct jvalue v);
bool jv_equal(struct jvalue a, struct jvalue b, int depth);
coe_status jv_compare(struct jstate *s, struct jvalue a, struct jvalue b, int *out);
coe_status jv_contains(struct jstate *s, struct jvalue container, struct jvalue item, bool *out);
coe_status jv_binary(struct jstate *s, enum jop op, struct jvalue a, struct jvalue b, struct jvalue *out);
/* The items of anything that can be iterated, as a list that may be shared with it. */
coe_status jv_items(struct jstate *s, struct jvalue v, struct jlist **out);
coe_status jv_length(struct jstate *s, struct jvalue v, int64_t *out);
/* str() and repr(); appended */
coe_status jv_str(struct jstate *s, struct jvalue v, struct str *out);
coe_status jv_repr(struct jstate *s, struct jvalue v, struct str *out, int depth);
coe_status jv_to_text(struct jstate *s, struct jvalue v, struct jvalue *out);
void jv_float_text(double f, char out[40]);
size_t jv_characters(const char *text, size_t n);
/* The byte at which character i of a text stands. */
size_t jv_character_at(const char *text, size_t n, size_t i);
coe_status jv_slice(struct jstate *s, struct jvalue v, const struct jvalue part[3], struct jvalue *out);
coe_status jv_item(struct jstate *s, struct jvalue v, struct jvalue key, struct jvalue *out);
coe_status jv_attribute(struct jstate *s, struct jvalue v, struct jvalue name, struct jvalue *out);
coe_status jv_of_json(struct jstate *s, const json_t *j, struct jvalue *out, int depth);

struct jtojson {
    bool ascii, sort;
    struct jvalue indent, item, key; /* undefined: the defaults */
};
coe_status jv_to_json(struct jstate *s, struct jvalue v, const struct jtojson *how, struct str *out, int depth);

/* arguments: argument i, or the keyword `name`, or *out as it was */
coe_status jinja_arg(struct jstate *s, const struct jargs *a, int i, const char *name, struct jvalue *out);
coe_status jinja_arg_int(struct jstate *s, const struct jargs *a, int i, const char *name, int64_t *out);
coe_status jinja_arg_bool(struct jstate *s, const struct jargs *a, int i, const char *name, bool *out);
coe_status jinja_arg_text(struct jstate *s, const struct jargs *a, int i, const char *name, struct jvalue *out);

typedef coe_status jfilter_fn(struct jstate *s, struct jvalue v, const struct jargs *args, struct jvalue *out);
struct jfilter {
    const char *name;
    jfilter_fn *fn;
};
extern const struct jfilter jinja_text_filters[], jinja_list_filters[];
coe_status jinja_filter(struct jstate *s, struct jvalue name, struct jvalue v, const struct jargs *args,
                        struct jvalue *out);
coe_status jinja_test(struct jstate *s, struct jvalue name, struct jvalue v, const struct jargs *args, bool *out);
coe_status jinja_method(struct jstate *s, const struct jmethod *m, const struct jargs *args, struct jvalue *out);
/* Is there such a method on this kind of value? */
bool jinja_has_method(struct jvalue v, struct jvalue name, bool *unsafe);
const struct jglobal *jinja_find_global(struct jvalue name);
coe_status jinja_call_global(struct jstate *s, const struct jglobal *g, const struct jargs *args, struct jvalue *out);

#endif
