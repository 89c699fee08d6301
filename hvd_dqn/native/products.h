/* Products of matrices, with what a network does to their numbers on the way; see products.c. */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include <stddef.h>

/* A matrix, or a transposed one: element (i, j) is at[i * row + j * column]. */
struct matrix {
    const float *at;
    size_t row, column;
};

/* What is done with a product's sums at their end: nothing; max(x, 0), where NaN stays; x where the number at the same
 * place of `gate` is positive, else 0. */
enum epilogue { AS_IS, RECTIFIED, GATED };

int products_supported(void);
size_t product_panel_width(void);
void multiply(enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows, size_t columns, size_t depth,
              float *out, size_t pitch, const float *gate, float *panel);

#endif
