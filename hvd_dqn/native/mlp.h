/* What mlp.c offers to other C files. */
#ifndef MLP_H
#define MLP_H

#include <stddef.h>

void mlp_forward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                 float *const *values, float *panel);
void mlp_backward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                  float *const *values, float *const *gradients, float *x_gradient, float *gradient, float *panel);

#endif
