/* codes_product.h — the definition of products with quantised weights (tensor/codes.h), as the tests need it. */
#ifndef COE_TESTS_CODES_PRODUCT_H
#define COE_TESTS_CODES_PRODUCT_H

#include "tensor/codes.h"

/* y[i*ldy + j] = the product of row (xrow ? xrow[i] : first + i) of x and row j of w; i < m, j < n; w is n rows of type
 * t as stored. */
void codes_product(float *y, int64_t ldy, const struct codes *x, const int32_t *xrow, int64_t first, int64_t m,
                   const void *w, enum dtype t, int64_t n);

#endif
