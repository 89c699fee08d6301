/* A Q-network whose passes are compiled: an MLP, with or without convolutions in front; compiled_mlp.py and
 * compiled_cnn.py have the twins of the structs.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <stddef.h>

#include "torso.h"

struct network {
    const size_t *widths; /* of the MLP: inputs, hidden layers, actions */
    size_t layers;
    size_t row_bytes; /* of an observation: of a row of the MLP's input, or an image */
    const struct torso *torso; /* none in an MLP; its parameters come first */
};

/* Memory of a forward and a backward pass. */
struct pass {
    float *const *values, *const *gradients; /* of the MLP's layers, see mlp.c */
    float *panel;
    struct torso_pass torso;
    float *features, *feature_gradients; /* the MLP's input behind convolutions */
};

void network_forward(const struct network *network, const float *parameters, const void *x, size_t rows,
                     const struct pass *pass);
void network_values(const struct network *network, const float *parameters, const void *x, size_t rows,
                    const struct pass *pass, size_t pass_rows, float *q);
void network_backward(const struct network *network, const float *parameters, const void *x, size_t rows,
                      const struct pass *pass, float *gradient);

#endif
