/* K updates in one call: between two products of a small network, Python's own steps take as long as a product does.
 *
 * host_learner.py makes the same updates one by one where a part of them is not compiled: gradients by TensorFlow or
 * NumPy, sums by MPI or Horovod. It has the twin of the struct.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "optimizers.h"

#define STATISTICS 3

/* Returns when all ranks have come here. */
typedef void meeting_function(void *meeting);

struct learner {
    const struct optimizer *optimizer; /* of the parameters from `start` on that this rank updates */
    size_t start, parameters;
    size_t length;          /* of an exchanged vector: gradient, statistics, flags */
    meeting_function *meet; /* none where this rank updates all parameters */
    void *meeting;
    const double *squares; /* of the blocks of the last sum's gradient, see finite_norm; none where this rank takes them */
    double max_grad_norm;
    uint64_t step;
    /* Of the present call: */
    int64_t healthy;
    uint64_t applied, locally_finite;
    double sums[STATISTICS];
};

/* Returns this rank's part of the global vector of batch k. */
typedef const float *compute_function(void *gradients, size_t k);
/* Returns the sum over the ranks, which stays until the next call; NULL if a rank was lost. */
typedef const float *exchange_function(void *exchange, const float *own);

/* Applies a global gradient unless it, or one before it, is not finite: the same verdict on all ranks. Of the first that is
 * not, `own` tells whether this rank's part is: the updates after it may be tried again. Where the ranks have the
 * parameters in common, each updates its part: nobody reads them before all have. */
void learner_apply(struct learner *learner, const float *total, const float *own) {
    const size_t parameters = learner->parameters;
    const double norm = finite_norm(total, parameters, learner->length, learner->squares);
    const int finite = !isnan(norm), first = learner->healthy && !finite;
    learner->locally_finite += !first || !isnan(finite_norm(own, parameters, learner->length, NULL));
    learner->healthy = learner->healthy && finite;
    if (!learner->healthy) return;
    learner->step++;
    learner->applied++;
    for (size_t i = 0; i < STATISTICS; i++) learner->sums[i] += total[parameters + i];
    const double scale = clipping_factor(norm, learner->max_grad_norm);
    optimizer_step(learner->optimizer, total + learner->start, scale, learner->step);
    if (learner->meet) learner->meet(learner->meeting); /* COLLECTIVE */
}

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Makes the updates, K >= 1 of them. Without an exchange this rank is the only one. Writes when each gradient was
 * computed, summed and applied into `marks` [3 * K], and the flags of the last sum, the vector's end, into `flags`. Returns
 * whether all sums were made. */
int learner_updates(struct learner *learner, size_t updates, compute_function *compute, void *gradients,
                    exchange_function *exchange, void *context, double *marks, float *flags) {
    const float *total = NULL;
    for (size_t k = 0; k < updates; k++) {
        const float *own = compute(gradients, k);
        *marks++ = seconds();
        total = exchange ? exchange(context, own) : own; /* COLLECTIVE */
        if (!total) return 0;
        *marks++ = seconds();
        learner_apply(learner, total, own);
        *marks++ = seconds();
    }
    const size_t place = learner->parameters + STATISTICS;
    memcpy(flags, total + place, (learner->length - place) * sizeof(float));
    return 1;
}
