/* jinja_string.h — work on texts that filters and methods share. */
#ifndef COE_TEXT_JINJA_STRING_H
#define COE_TEXT_JINJA_STRING_H

#include "text/jinja.h"

enum jinja_case { CASE_UPPER, CASE_LOWER, CASE_CAPITAL, CASE_TITLE, CASE_PYTHON_TITLE };

/* chars NULL: white space */
struct jvalue jinja_strip(struct jvalue v, const struct jvalue *chars, bool left, bool right);
/* count -1: all */
coe_status jinja_replace(struct jstate *s, struct jvalue v, struct jvalue from, struct jvalue to, int64_t count,
                         struct jvalue *out);
coe_status jinja_recase(struct jstate *s, struct jvalue v, enum jinja_case how, struct jvalue *out);
/* Sorted copy by the values themselves or an attribute of theirs ("a.b"); stable. */
coe_status jinja_sort(struct jstate *s, struct jlist *l, bool reverse, bool case_sensitive, struct jvalue attribute);
/* x.a.b, whole numbers being indices */
coe_status jinja_dotted(struct jstate *s, struct jvalue v, struct jvalue path, struct jvalue *out);

#endif
