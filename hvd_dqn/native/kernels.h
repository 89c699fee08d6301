/* What kernels.c offers to other C files. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>
#include <stdint.h>

void rows_with_ones(const float *restrict rows_in, size_t rows, size_t width, float scale, float *restrict out);
void relu_gradient(float *restrict gradient, const float *restrict rectified, size_t size);
void q_learning_targets(const float *chooser, const float *q_t, const float *r_t, const float *discount_t, size_t rows,
                        size_t actions, float *restrict targets);
void q_learning_gradient(const float *restrict q, const int32_t *restrict action, const float *restrict target,
                         size_t rows, size_t actions, float scale, int huber, float *restrict gradient,
                         float *restrict statistics);

#endif
