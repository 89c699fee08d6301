/* The passes of a whole network; see network.h, and mlp.c and torso.c for those of its parts. */
#include "network.h"

#include <string.h>

#include "mlp.h"

/* Q-values of observations x, into the last of the pass' values. */
void network_forward(const struct network *network, const float *parameters, const void *x, size_t rows,
                     const struct pass *pass) {
    const float *features = x;
    if (network->torso) {
        torso_forward(network->torso, parameters, x, rows, &pass->torso, pass->features, pass->panel);
        parameters += network->torso->parameters;
        features = pass->features;
    }
    mlp_forward(parameters, network->widths, network->layers, features, rows, pass->values, pass->panel);
}

/* Q-values of observations x into q [rows, actions], by passes that have memory for `pass_rows`. */
void network_values(const struct network *network, const float *parameters, const void *x, size_t rows,
                    const struct pass *pass, size_t pass_rows, float *q) {
    const size_t last = network->layers - 1, actions = network->widths[last + 1];
    for (size_t done = 0; done < rows; done += pass_rows) {
        const size_t count = rows - done < pass_rows ? rows - done : pass_rows;
        network_forward(network, parameters, (const char *)x + done * network->row_bytes, count, pass);
        memcpy(q + done * actions, pass->values[last], count * actions * sizeof(float));
    }
}

/* The flat gradient of a loss, from what the forward pass left and the loss' gradient with respect to the Q-values, the
 * last of the pass' gradients. */
void network_backward(const struct network *network, const float *parameters, const void *x, size_t rows,
                      const struct pass *pass, float *gradient) {
    const struct torso *torso = network->torso;
    const size_t place = torso ? torso->parameters : 0;
    mlp_backward(parameters + place, network->widths, network->layers, torso ? pass->features : x, rows, pass->values,
                 pass->gradients, torso ? pass->feature_gradients : NULL, gradient + place, pass->panel);
    if (torso) torso_backward(torso, parameters, x, rows, &pass->torso, pass->feature_gradients, gradient, pass->panel);
}
