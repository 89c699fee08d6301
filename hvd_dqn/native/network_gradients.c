/* The gradient of one batch in one call: compiled_gradients.py has the twin of the struct, and host_gradients.py the same
 * steps one by one.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "network.h"

struct network_gradients {
    const struct network *network;
    const float *online;
    const struct pass *pass, *next_pass;
    float *vector, *statistics, *dq; /* dq is the last of the pass' gradients */
    double scale;
    int64_t huber, double_dqn;
    /* Of the present K batches: */
    size_t batch;
    const char *x_tm1, *x_t;
    const int32_t *a_tm1;
    const float *r_t, *discount_t;
    float *targets;
    const float *q_t;
};

/* Returns this rank's part of the global vector of batch k. */
const float *network_gradient(const struct network_gradients *own, size_t k) {
    const struct network *network = own->network;
    const size_t batch = own->batch, first = k * batch, last = network->layers - 1, actions = network->widths[last + 1];
    const char *x_tm1 = own->x_tm1 + first * network->row_bytes;
    const struct pass *pass = own->pass, *next = own->next_pass;
    float *targets = own->targets + first;
    if (own->double_dqn) {
        network_forward(network, own->online, own->x_t + first * network->row_bytes, batch, next);
        q_learning_targets(next->values[last], own->q_t + first * actions, own->r_t + first, own->discount_t + first,
                           batch, actions, targets);
    }
    network_forward(network, own->online, x_tm1, batch, pass);
    q_learning_gradient(pass->values[last], own->a_tm1 + first, targets, batch, actions, (float)own->scale,
                        (int)own->huber, own->dq, own->statistics);
    network_backward(network, own->online, x_tm1, batch, pass, own->vector);
    return own->vector;
}
