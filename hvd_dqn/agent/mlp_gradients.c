/* The gradient of one batch in one call: compiled_gradients.py has the twin of the struct, and mlp_gradients.py the same
 * steps one by one.
 */
#include <stddef.h>
#include <stdint.h>

#include "../maths/kernels.h"
#include "mlp.h"

/* Memory of a forward and a backward pass; see mlp.c. */
struct pass {
    float *const *values, *const *gradients;
    float *panel;
};

struct mlp_gradients {
    const float *online;
    const size_t *widths;
    size_t layers;
    struct pass pass, next_pass;
    float *vector, *statistics, *dq; /* dq is the last of the pass' gradients */
    double scale;
    int64_t huber, double_dqn;
    /* Of the present K batches: */
    size_t batch;
    const float *x_tm1, *x_t;
    const int32_t *a_tm1;
    const float *r_t, *discount_t;
    float *targets;
    const float *q_t;
};

/* Returns this rank's part of the global vector of batch k. */
const float *mlp_gradient(const struct mlp_gradients *own, size_t k) {
    const size_t layers = own->layers, batch = own->batch, first = k * batch;
    const size_t inputs = own->widths[0] + 1, actions = own->widths[layers];
    const float *x_tm1 = own->x_tm1 + first * inputs;
    const struct pass *pass = &own->pass, *next = &own->next_pass;
    float *targets = own->targets + first;
    if (own->double_dqn) {
        mlp_forward(own->online, own->widths, layers, own->x_t + first * inputs, batch, next->values, next->panel);
        q_learning_targets(next->values[layers - 1], own->q_t + first * actions, own->r_t + first, own->discount_t + first,
                           batch, actions, targets);
    }
    mlp_forward(own->online, own->widths, layers, x_tm1, batch, pass->values, pass->panel);
    q_learning_gradient(pass->values[layers - 1], own->a_tm1 + first, targets, batch, actions, (float)own->scale,
                        (int)own->huber, own->dq, own->statistics);
    mlp_backward(own->online, own->widths, layers, x_tm1, batch, pass->values, pass->gradients, own->vector, pass->panel);
    return own->vector;
}
