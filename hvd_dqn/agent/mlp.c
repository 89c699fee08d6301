/* An MLP forwards and backwards, one call per pass: a small network's products take no longer than a dozen calls do.
 *
 * Every number of a product is one chain of fused multiplications and additions in the order of the inner dimension. So
 * the same bits come out whatever vector instructions the processor has, and however many rows are computed together.
 * Arrays are contiguous float32 and the caller's. A matrix of inputs [rows, in + 1] ends in a column of ones; with it the
 * kernel [in, out] and the bias [out], neighbours in the flat parameter vector, are one matrix [in + 1, out].
 */
#include "mlp.h"

/* Floats of memory for a pass' right operands, per row of the deepest: the widest block of any instruction set. */
#define PANEL_WIDTH 48

size_t mlp_panel_width(void) { return PANEL_WIDTH; }

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")

/* A matrix, or a transposed one: element (i, j) is at[i * row + j * column]. */
struct matrix {
    const float *at;
    size_t row, column;
};

/* What a product does with its numbers: nothing; max(x, 0), where NaN stays; x where the number at the same place of
 * `gate` is positive, else 0. */
enum epilogue { AS_IS, RECTIFIED, GATED };

/* out [rows, columns], whose rows are `pitch` floats apart, = epilogue(a [rows, depth] b [depth, columns]) */
typedef void multiply_function(enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows, size_t columns,
                               size_t depth, float *out, size_t pitch, const float *gate, float *panel);

#define SET avx512
#define INSTRUCTIONS "avx512f,avx512bw,avx512dq,avx512vl,fma"
#define LANES 16
#define MOST_VECTORS 3
#define MOST_ROWS 8
#include "products.h"

#define SET avx2
#define INSTRUCTIONS "avx2,fma"
#define LANES 8
#define MOST_VECTORS 2
#define MOST_ROWS 6
#include "products.h"

static multiply_function *choose(void) {
#ifndef NO_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return avx512_multiply;
#endif
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2_multiply : NULL;
}

/* Whether this processor can: without fused operations the bits would be others. */
int mlp_supported(void) { return choose() != NULL; }

/* Q-values of x [rows, widths[0] + 1]: values[l] is layer l's output, [rows, widths[l + 1] + 1] with ones at the end of
 * each row, the last [rows, widths[layers]]. */
void mlp_forward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                 float *const *values, float *panel) {
    multiply_function *multiply = choose();
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
 * Q-values, gradients[layers - 1]. The other gradients, shaped as `values`, are overwritten. */
void mlp_backward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                  float *const *values, float *const *gradients, float *gradient, float *panel) {
    multiply_function *multiply = choose();
    size_t place = 0;
    for (size_t layer = 0; layer < layers; layer++) place += (widths[layer] + 1) * widths[layer + 1];
    for (size_t layer = layers; layer-- > 0;) {
        const size_t in = widths[layer] + 1, out = widths[layer + 1];
        const float *input = layer ? values[layer - 1] : x;
        const struct matrix delta = {gradients[layer], layer + 1 == layers ? out : out + 1, 1};
        place -= in * out;
        multiply(AS_IS, (struct matrix){input, 1, in}, delta, in, out, rows, gradient + place, out, NULL, panel);
        if (layer)
            multiply(GATED, delta, (struct matrix){parameters + place, 1, out}, rows, in - 1, out, gradients[layer - 1], in,
                     input, panel);
    }
}

#else

int mlp_supported(void) { return 0; }
void mlp_forward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                 float *const *values, float *panel) {
    (void)parameters, (void)widths, (void)layers, (void)x, (void)rows, (void)values, (void)panel;
}
void mlp_backward(const float *parameters, const size_t *widths, size_t layers, const float *x, size_t rows,
                  float *const *values, float *const *gradients, float *gradient, float *panel) {
    (void)parameters, (void)widths, (void)layers, (void)x, (void)rows, (void)values, (void)gradients, (void)gradient,
        (void)panel;
}

#endif
