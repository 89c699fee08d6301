/* An optimizer and the vectors that it changes; kernel_optimizers.py has its twin. */
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

/* Numbers of a gradient up to which its norm is taken as a whole; of a longer one in blocks, whoever takes them. */
#define SMALL_GRADIENT 131072
#define NORM_BLOCK 16384

/* Returns how many numbers of a gradient a block has. */
size_t norm_block(size_t parameters);
/* Returns the sum of the squares of the block of gradient [parameters] that begins at `start`. */
double squares_of_block(const float *gradient, size_t parameters, size_t start);
/* Returns the L2 norm of gradient [parameters]; NaN where one of its squares, or of those of what follows it up to
 * `length`, is not finite. `squares` are the sums of the blocks' squares, where they are known. */
double finite_norm(const float *vector, size_t parameters, size_t length, const double *squares);
double clipping_factor(double norm, double most);

/* Applies `scale` times a gradient; step is 1 at the first update. */
void optimizer_step(const struct optimizer *optimizer, const float *gradient, double scale, uint64_t step);

#endif
