/* K updates of an MLP by (Double) Q-learning in one call; learner.py has the twins of the structs. */
#ifndef UPDATES_H
#define UPDATES_H

#include <stddef.h>
#include <stdint.h>

#include "mlp.h"
#include "optimizers.h"

#define STATISTICS 3

/* MPI_Allreduce by its address: handles are pointers in Open MPI and integers in MPICH, and travel alike. */
typedef int allreduce_function(const void *own, void *total, int count, void *datatype, void *operation,
                               void *communicator);

struct learner {
    const struct mlp *mlp;
    const struct optimizer *optimizer;
    float *online;
    const float *target;
    size_t parameters, length; /* of the flat vector: gradient, statistics, signals */
    float *own, *total;        /* this rank's vector and the sum; the same memory where this rank is alone */
    allreduce_function *allreduce; /* none where this rank is alone */
    void *datatype, *operation, *communicator;
    double max_grad_norm, scale; /* scale is 1 / global batch size */
    int64_t huber, double_dqn;
    uint64_t step;
};

/* K batches of B rows, and memory for what is computed of each row. */
struct batches {
    size_t updates, rows;
    const float *x_tm1, *x_t; /* [K * B, inputs + 1] */
    const int32_t *a_tm1;
    const float *r_t, *discount_t, *weights;
    float *q_t;                 /* [K * B, actions], the target network's */
    float *targets, *priorities; /* [K * B] */
};

struct report {
    int64_t healthy;
    uint64_t applied, locally_finite;
    double sums[STATISTICS];
};

/* Makes the updates; writes when each gradient was computed, summed and applied into `marks` [3 * K], in seconds. Returns
 * 0, or the error of the allreduce that failed. */
int learner_updates(struct learner *learner, const struct batches *batches, struct report *report, double *marks);

#endif
