/* An MLP forwards and backwards, one call per pass: a small network's products take no longer than a dozen calls do.
 *
 * Arrays are contiguous float32 and the caller's. A matrix of inputs [rows, in + 1] ends in a column of ones; with it the
 * kernel [in, out] and the bias [out], neighbours in the flat parameter vector, are one matrix [in + 1, out].
 */
#include "mlp.h"

#include "products.h"

/* Q-values of x [rows, widths[0] + 1]: values[l] is layer l's output, [rows, widths[l + 1] + 1] with ones at the end of
 * each row, the last [rows, widths[layers]]. */
void mlp_forward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                 float *const *values, float *panel) {
    for (size_t layer = 0; layer < layers; layer++) {
        const size_t in = widths[layer] + 1, out = widths[layer + 1];
        const int last = layer + 1 == layers;
        multiply(last ? AS_IS : RECTIFIED, (struct matrix){x, in, 1}, (struct matrix){parameters, out, 1}, rows, out, in,
                 values[layer], last ? out : out + 1, NULL, panel);
        parameters += in * out;
        x = values[layer];
    }
}

/* The flat gradient of a loss, from what the forward pass left in `values` and the loss' gradient with respect to the
 * Q-values, gradients[layers - 1]. The other gradients, shaped as `values`, are overwritten, and so is `x_gradient`,
 * shaped as x, unless there is none: it goes through where x is positive. */
void mlp_backward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                  float *const *values, float *const *gradients, float *x_gradient, float *gradient, float *panel) {
    size_t place = 0;
    for (size_t layer = 0; layer < layers; layer++) place += (widths[layer] + 1) * widths[layer + 1];
    for (size_t layer = layers; layer-- > 0;) {
        const size_t in = widths[layer] + 1, out = widths[layer + 1];
        const float *input = layer ? values[layer - 1] : x;
        float *input_gradient = layer ? gradients[layer - 1] : x_gradient;
        const struct matrix delta = {gradients[layer], layer + 1 == layers ? out : out + 1, 1};
        place -= in * out;
        multiply(AS_IS, (struct matrix){input, 1, in}, delta, in, out, rows, gradient + place, out, NULL, panel);
        if (input_gradient)
            multiply(GATED, delta, (struct matrix){parameters + place, 1, out}, rows, in - 1, out, input_gradient, in,
                     input, panel);
    }
}
