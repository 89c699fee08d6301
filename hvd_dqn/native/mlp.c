/* An MLP forwards and backwards, one call per pass: a small network's products take no longer than a dozen calls do.
 *
 * Arrays are contiguous float32 and the caller's. A matrix of inputs [rows, in + 1] ends in a column of ones; with it the
 * kernel [in, out] and the bias [out], neighbours in the flat parameter vector, are one matrix [in + 1, out].
 */
#include "mlp.h"

#include <string.h>

#include "products.h"

void mlp_forward(const struct mlp *mlp, const float *parameters, const float *x, size_t rows) {
    for (size_t layer = 0; layer < mlp->layers; layer++) {
        const size_t in = mlp->widths[layer] + 1, out = mlp->widths[layer + 1];
        const int last = layer + 1 == mlp->layers;
        multiply(last ? AS_IS : RECTIFIED, (struct matrix){x, in, 1}, (struct matrix){parameters, out, 1}, rows, out, in,
                 mlp->values[layer], last ? out : out + 1, NULL, mlp->panel);
        parameters += in * out;
        x = mlp->values[layer];
    }
}

void mlp_outputs(const struct mlp *mlp, const float *parameters, const float *x, size_t rows, float *out) {
    const size_t width = mlp->widths[0] + 1, outputs = mlp->widths[mlp->layers];
    for (size_t done = 0; done < rows; done += mlp->pass_rows) {
        const size_t count = rows - done < mlp->pass_rows ? rows - done : mlp->pass_rows;
        mlp_forward(mlp, parameters, x + done * width, count);
        memcpy(out + done * outputs, mlp->values[mlp->layers - 1], count * outputs * sizeof(float));
    }
}

void mlp_backward(const struct mlp *mlp, const float *parameters, const float *x, size_t rows, float *gradient) {
    size_t place = 0;
    for (size_t layer = 0; layer < mlp->layers; layer++) place += (mlp->widths[layer] + 1) * mlp->widths[layer + 1];
    for (size_t layer = mlp->layers; layer-- > 0;) {
        const size_t in = mlp->widths[layer] + 1, out = mlp->widths[layer + 1];
        const float *input = layer ? mlp->values[layer - 1] : x;
        const struct matrix delta = {mlp->gradients[layer], layer + 1 == mlp->layers ? out : out + 1, 1};
        place -= in * out;
        multiply(AS_IS, (struct matrix){input, 1, in}, delta, in, out, rows, gradient + place, out, NULL, mlp->panel);
        if (layer) /* zero where the rectified input is */
            multiply(GATED, delta, (struct matrix){parameters + place, 1, out}, rows, in - 1, out,
                     mlp->gradients[layer - 1], in, input, mlp->panel);
    }
}
