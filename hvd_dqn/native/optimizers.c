/* The optimizers' steps, each as one pass over memory, and the norm that decides about them.
 *
 * As in q_learning.c every loop gives the same bits whatever vector instructions the processor has; sums go over a fixed
 * number of strips.
 */
#include "optimizers.h"

#include <math.h>

#define STRIPS 64
/* Numbers of a gradient up to which its squares are summed at once; those of a longer one in blocks, in double precision
 * between them. */
#define SMALL_GRADIENT 131072
#define NORM_BLOCK 16384

/* Returns the sum of the squares of some numbers. */
WIDEST static double sum_of_squares(const float *values, size_t size) {
    float strips[STRIPS] = {0};
    size_t i = 0;
    for (; i + STRIPS <= size; i += STRIPS)
        for (size_t strip = 0; strip < STRIPS; strip++) strips[strip] += values[i + strip] * values[i + strip];
    for (size_t strip = 0; i < size; i++, strip++) strips[strip] += values[i] * values[i];
    double sum = 0.0;
    for (size_t strip = 0; strip < STRIPS; strip++) sum += strips[strip];
    return sum;
}

double finite_norm(const float *vector, size_t parameters, size_t length) {
    const size_t block = parameters > SMALL_GRADIENT ? NORM_BLOCK : parameters;
    double sum = 0.0;
    for (size_t i = 0; i < parameters; i += block)
        sum += sum_of_squares(vector + i, parameters - i < block ? parameters - i : block);
    float rest = 0.0f;
    for (size_t i = parameters; i < length; i++) rest += vector[i] * vector[i];
    return isfinite(sum) && isfinite(rest) ? sqrt(sum) : NAN;
}

/* Adam (Kingma & Ba 2015), section 2's efficient form. The gradient is taken times to_momentum = scale (1 - beta_1)
 * for the mean, and times to_velocity = scale sqrt(1 - beta_2) before it is squared. */
WIDEST static void adam(float *restrict parameters, float *restrict momentum, float *restrict velocity,
                        const float *restrict gradient, size_t size, float to_momentum, float to_velocity, float beta_1,
                        float beta_2, float epsilon, float rate) {
    for (size_t i = 0; i < size; i++) {
        const float root = gradient[i] * to_velocity;
        velocity[i] = velocity[i] * beta_2 + root * root;
        momentum[i] = momentum[i] * beta_1 + gradient[i] * to_momentum;
        parameters[i] -= momentum[i] / (sqrtf(velocity[i]) + epsilon) * rate;
    }
}

/* Centred RMSProp (Mnih et al. 2015). The gradient is taken times to_mean = scale (1 - rho), and times
 * to_square = scale sqrt(1 - rho) before it is squared; rate = scale * learning rate. */
WIDEST static void rmsprop(float *restrict parameters, float *restrict mean, float *restrict mean_square,
                           const float *restrict gradient, size_t size, float to_mean, float to_square, float rho,
                           float epsilon, float rate) {
    for (size_t i = 0; i < size; i++) {
        const float root = gradient[i] * to_square;
        mean[i] = mean[i] * rho + gradient[i] * to_mean;
        mean_square[i] = mean_square[i] * rho + root * root;
        parameters[i] -= gradient[i] / sqrtf(mean_square[i] - mean[i] * mean[i] + epsilon) * rate;
    }
}

/* Stochastic gradient descent; rate = scale * learning rate. */
WIDEST static void sgd(float *restrict parameters, const float *restrict gradient, size_t size, float rate) {
    for (size_t i = 0; i < size; i++) parameters[i] -= gradient[i] * rate;
}

/* The factor that brings a gradient of this L2 norm down to `most` where that is not 0 and less. */
double clipping_factor(double norm, double most) { return 0.0 < most && most < norm ? most / norm : 1.0; }

void optimizer_step(const struct optimizer *optimizer, const float *gradient, double scale, uint64_t step) {
    const double first = optimizer->first_decay, second = optimizer->second_decay, rate = optimizer->learning_rate;
    float *const parameters = optimizer->parameters, *const *slots = optimizer->slots;
    const size_t size = optimizer->size;
    switch (optimizer->rule) {
    case ADAM:
        adam(parameters, slots[0], slots[1], gradient, size, (float)(scale * (1.0 - first)),
             (float)(scale * sqrt(1.0 - second)), (float)first, (float)second, (float)optimizer->epsilon,
             (float)(rate * sqrt(1.0 - pow(second, (double)step)) / (1.0 - pow(first, (double)step))));
        break;
    case RMSPROP:
        rmsprop(parameters, slots[0], slots[1], gradient, size, (float)(scale * (1.0 - first)),
                (float)(scale * sqrt(1.0 - first)), (float)first, (float)optimizer->epsilon, (float)(scale * rate));
        break;
    case SGD: sgd(parameters, gradient, size, (float)(scale * rate)); break;
    }
}
