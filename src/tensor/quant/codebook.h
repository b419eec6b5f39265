/* codebook.h — the code books of the IQ types, packed.
 *
 * An entry is eight levels of two bits (four levels of three bits in the IQ3 books), the first in the lowest bits. They
 * are part of the file format: chosen once by its authors by search, they follow no formula. Unpacked from decoded
 * blocks of the reference implementation (ggml, MIT licence). */
#ifndef COE_TENSOR_QUANT_CODEBOOK_H
#define COE_TENSOR_QUANT_CODEBOOK_H

#include <stdint.h>

extern const uint16_t book_iq2_xxs[256], book_iq2_xs[512], book_iq2_s[1024];
extern const uint16_t book_iq3_xxs[256], book_iq3_s[512];
extern const uint16_t book_iq1[2048];

#endif
