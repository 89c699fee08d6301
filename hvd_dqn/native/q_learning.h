/* What stands around the matrix products of a Q-learning update; see q_learning.c. */
#ifndef Q_LEARNING_H
#define Q_LEARNING_H

#include <stddef.h>
#include <stdint.h>

/* What a gradient needs of each transition, and where its priority |td| goes; arrays [rows]. */
struct q_learning_rows {
    const int32_t *action;
    const float *target, *weight;
    float *priority;
};

void rows_with_ones(const float *restrict rows_in, size_t rows, size_t width, float scale, float *restrict out);
void q_learning_targets(const float *chooser, const float *q_t, const float *r_t, const float *discount_t, size_t rows,
                        size_t actions, float *restrict targets);
void q_learning_gradient(const float *restrict q, struct q_learning_rows own, size_t rows, size_t actions, float scale,
                         int huber, float *restrict gradient, float *restrict statistics);

#endif
