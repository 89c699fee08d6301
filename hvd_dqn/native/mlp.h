/* An MLP and the memory of its passes; mlp.py has the twin of the struct. */
#ifndef MLP_H
#define MLP_H

#include <stddef.h>

struct mlp {
    const size_t *widths; /* inputs, hidden layers, outputs */
    size_t layers;
    size_t pass_rows;         /* rows for which `values` and `gradients` have memory */
    float *const *values;     /* outputs of each layer; those of hidden layers end each row in a one */
    float *const *gradients;  /* of the loss with respect to `values` */
    float *panel;             /* for the products, see products.h */
};

/* Outputs of x [rows, widths[0] + 1], rows that end in a one, into the last of `values`; rows <= pass_rows. */
void mlp_forward(const struct mlp *mlp, const float *parameters, const float *x, size_t rows);

/* Outputs of any number of rows into out [rows, outputs]. */
void mlp_outputs(const struct mlp *mlp, const float *parameters, const float *x, size_t rows, float *out);

/* The flat gradient of a loss, from what the forward pass left in `values` and the loss' gradient with respect to the
 * outputs, the last of `gradients`. */
void mlp_backward(const struct mlp *mlp, const float *parameters, const float *x, size_t rows, float *gradient);

#endif
