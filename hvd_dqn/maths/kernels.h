/* What kernels.c offers to other C files. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>
#include <stdint.h>

void q_learning_targets(const float *chooser, const float *q_t, const float *r_t, const float *discount_t, size_t rows,
                        size_t actions, float *restrict targets);
void q_learning_gradient(const float *restrict q, const int32_t *restrict action, const float *restrict target,
                         size_t rows, size_t actions, float scale, int huber, float *restrict gradient,
                         float *restrict statistics);

#endif
