/* What stands around the matrix products of a small MLP's update, each as one pass over memory.
 *
 * Every loop gives the same bits with any vector instructions, so that ranks on unlike hosts stay equal:
 * packaging/compile_kernels.py forbids the compiler to fuse a multiplication with an addition, and defines WIDEST.
 * All arrays are contiguous, float32 where not said otherwise, and belong to the caller.
 */
#include "q_learning.h"

#include <math.h>

/* Which C files this library was made from. */
const char *source_digest(void) { return SOURCE_DIGEST; }

/* Four floats anywhere in memory. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* Floats of a row in which whole wide vectors do not pay. */
#define NARROW 32

/* Copies rows [rows, width] times `scale` into rows [rows, width + 1] that end in a one. */
WIDEST void rows_with_ones(const float *restrict rows_in, size_t rows, size_t width, float scale, float *restrict out) {
    size_t row = 0;
    if (width < NARROW) /* the up to three floats behind a row are the next ones', which are written later */
        for (; row + 4 < rows; row++, rows_in += width, out += width + 1) {
            for (size_t i = 0; i < width; i += 4) *(four *)(out + i) = *(const four *)(rows_in + i) * scale;
            out[width] = 1.0f;
        }
    for (; row < rows; row++, rows_in += width, out += width + 1) {
        for (size_t i = 0; i < width; i++) out[i] = rows_in[i] * scale;
        out[width] = 1.0f;
    }
}

/* Targets [rows]: r_t + discount_t times q_t's value of the action that `chooser` values most, the first of equals.
 * Both are Q-values [rows, actions]; Q-learning gives q_t twice, Double Q-learning the online network's as chooser. */
WIDEST void q_learning_targets(const float *chooser, const float *q_t, const float *r_t, const float *discount_t,
                               size_t rows, size_t actions, float *restrict targets) {
    for (size_t row = 0; row < rows; row++) {
        const float *values = chooser + row * actions, *of_best = q_t + row * actions;
        float highest = values[0], chosen = of_best[0];
        for (size_t action = 1; action < actions; action++) { /* a value that is NaN is taken, and shows in the loss */
            const int better = (values[action] > highest) | (values[action] != values[action]);
            highest = better ? values[action] : highest;
            chosen = better ? of_best[action] : chosen;
        }
        targets[row] = r_t[row] + discount_t[row] * chosen;
    }
}

/* From Q-values [rows, actions]: the gradient [rows, actions] of the weighted losses' sum times `scale`, each row's
 * priority |td|, and the sums times `scale` of weighted loss, |td| and the actions' values. The loss is (target - Q)^2, or
 * Huber's with threshold 1. */
WIDEST void q_learning_gradient(const float *restrict q, struct q_learning_rows own, size_t rows, size_t actions,
                                float scale, int huber, float *restrict gradient, float *restrict statistics) {
    float loss = 0.0f, abs_td_error = 0.0f, mean_q = 0.0f;
    for (size_t i = 0; i < rows * actions; i++) gradient[i] = 0.0f;
    for (size_t row = 0; row < rows; row++) {
        const size_t place = row * actions + (size_t)own.action[row];
        const float td_error = own.target[row] - q[place], weight = own.weight[row];
        const float cut = td_error < -1.0f ? -1.0f : td_error > 1.0f ? 1.0f : td_error;
        loss += (huber ? cut * (td_error - 0.5f * cut) : td_error * td_error) * weight;
        gradient[place] = (huber ? cut : 2.0f * td_error) * -scale * weight;
        own.priority[row] = fabsf(td_error);
        abs_td_error += own.priority[row];
        mean_q += q[place];
    }
    statistics[0] = loss * scale;
    statistics[1] = abs_td_error * scale;
    statistics[2] = mean_q * scale;
}
