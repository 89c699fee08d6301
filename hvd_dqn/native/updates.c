/* K updates in one call: between two products of a small network, Python's own steps take as long as a product does. */
#define _GNU_SOURCE
#include "updates.h"

#include <math.h>
#include <time.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "q_learning.h"

/* Momentum of weights whose gradient has become zero decays into denormal numbers, over each of which a processor takes
 * a hundred times longer: they count as zero here, as in TensorFlow's own threads. Returns the mode before. */
static unsigned flush_denormals(void) {
#ifdef __SSE2__
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static void restore_mode(unsigned before) {
#ifdef __SSE2__
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Computes this rank's part of the global vector of batch k. */
static void compute_gradient(const struct learner *learner, const struct batches *batches, size_t k) {
    const struct mlp *mlp = learner->mlp;
    const size_t rows = batches->rows, first = k * rows, width = mlp->widths[0] + 1, last = mlp->layers - 1;
    const size_t actions = mlp->widths[last + 1];
    const float *x_tm1 = batches->x_tm1 + first * width;
    if (learner->double_dqn) {
        mlp_forward(mlp, learner->online, batches->x_t + first * width, rows);
        q_learning_targets(mlp->values[last], batches->q_t + first * actions, batches->r_t + first,
                           batches->discount_t + first, rows, actions, batches->targets + first);
    }
    mlp_forward(mlp, learner->online, x_tm1, rows);
    const struct q_learning_rows chosen = {batches->a_tm1 + first, batches->targets + first, batches->weights + first,
                                           batches->priorities + first};
    q_learning_gradient(mlp->values[last], chosen, rows, actions, (float)learner->scale, (int)learner->huber,
                        mlp->gradients[last], learner->own + learner->parameters);
    mlp_backward(mlp, learner->online, x_tm1, rows, learner->own);
}

/* Applies the global gradient unless it, or one before it, is not finite: the same verdict on all ranks. Of the first
 * that is not, notes whether this rank's part is: the updates after it may be tried again. */
static void apply(struct learner *learner, struct report *report) {
    const size_t parameters = learner->parameters;
    const double norm = finite_norm(learner->total, parameters, learner->length);
    const int finite = !isnan(norm), first = report->healthy && !finite;
    report->locally_finite += !first || !isnan(finite_norm(learner->own, parameters, learner->length));
    report->healthy = report->healthy && finite;
    if (!report->healthy) return;
    learner->step++;
    report->applied++;
    for (size_t i = 0; i < STATISTICS; i++) report->sums[i] += learner->total[parameters + i];
    optimizer_step(learner->optimizer, learner->total, clipping_factor(norm, learner->max_grad_norm), learner->step);
}

int learner_updates(struct learner *learner, const struct batches *batches, struct report *report, double *marks) {
    const unsigned mode = flush_denormals();
    const size_t all = batches->updates * batches->rows, actions = learner->mlp->widths[learner->mlp->layers];
    int error = 0;
    /* The target network stays the same for all updates. */
    mlp_outputs(learner->mlp, learner->target, batches->x_t, all, batches->q_t);
    if (!learner->double_dqn)
        q_learning_targets(batches->q_t, batches->q_t, batches->r_t, batches->discount_t, all, actions,
                           batches->targets);
    for (size_t k = 0; k < batches->updates && !error; k++) {
        compute_gradient(learner, batches, k);
        *marks++ = seconds();
        if (learner->allreduce)
            error = learner->allreduce(learner->own, learner->total, (int)learner->length, learner->datatype,
                                       learner->operation, learner->communicator); /* COLLECTIVE */
        *marks++ = seconds();
        if (!error) apply(learner, report);
        *marks++ = seconds();
    }
    restore_mode(mode);
    return error;
}

/* Sizes that learner.py and mlp.py compare with those of their twins. */
size_t struct_bytes(int which) {
    const size_t bytes[] = {sizeof(struct mlp), sizeof(struct optimizer), sizeof(struct learner), sizeof(struct batches),
                            sizeof(struct report)};
    return bytes[which];
}
