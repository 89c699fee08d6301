/* An optimizer and the vectors that it changes; optimizers.py has its twin. */
#ifndef OPTIMIZERS_H
#define OPTIMIZERS_H

#include <stddef.h>
#include <stdint.h>

enum rule { ADAM, RMSPROP, SGD };

struct optimizer {
    int64_t rule;
    float *parameters, *slots[2];
    size_t size;
    double learning_rate, first_decay, second_decay, epsilon;
};

/* Returns the L2 norm of gradient [parameters]; NaN where one of its squares, or of those of what follows it up to
 * `length`, is not finite. */
double finite_norm(const float *vector, size_t parameters, size_t length);
double clipping_factor(double norm, double most);

/* Applies `scale` times a gradient; step is 1 at the first update. */
void optimizer_step(const struct optimizer *optimizer, const float *gradient, double scale, uint64_t step);

#endif
