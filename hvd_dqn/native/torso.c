/* Convolutions forwards and backwards, as products of patches: what lies below a filter is a row of a matrix [positions,
 * numbers of a filter], which is read where it lies in the image. The kernel [size, size, channels, filters] is the
 * matrix's right operand as it is, and the bias [filters], its neighbour in the flat parameter vector, what sums begin with.
 *
 * All arrays are float32, channels last, and the caller's. Filters are whole vectors (products.c).
 */
#include "torso.h"

#include <string.h>

#include "kernels.h"
#include "products.h"

static size_t side(size_t in, const struct convolution *own) { return (in - own->size) / own->stride + 1; }

/* Filter positions per image. */
static size_t positions(const struct convolution *own) { return side(own->height, own) * side(own->width, own); }

/* Numbers below a filter. */
static size_t inputs(const struct convolution *own) { return own->size * own->size * own->channels; }

static size_t outputs(const struct convolution *own) { return positions(own) * own->filters; }

static size_t image_floats(const struct convolution *own) { return own->height * own->width * own->channels; }

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

WIDEST static void scale_bytes(const uint8_t *restrict bytes, size_t count, float scale, float *restrict out) {
    for (size_t i = 0; i < count; i++) out[i] = (float)bytes[i] * scale;
}

WIDEST static void sum_columns(const float *restrict values, size_t rows, size_t columns, float *restrict sums) {
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < columns; i++) sums[i] += values[row * columns + i];
}

/* Adds up the gradients of an image's patches where they overlap. */
WIDEST static void add_patches(const struct convolution *own, const float *restrict patches, float *restrict image) {
    const size_t run = own->size * own->channels, line = own->width * own->channels;
    const size_t high = side(own->height, own), wide = side(own->width, own);
    memset(image, 0, image_floats(own) * sizeof(float));
    for (size_t y = 0; y < high; y++)
        for (size_t x = 0; x < wide; x++) {
            float *to = image + y * own->stride * line + x * own->stride * own->channels;
            for (size_t row = 0; row < own->size; row++, to += line, patches += run)
                for (size_t i = 0; i < run; i++) to[i] += patches[i];
        }
}

/* Returns a convolution's input for images from `first` on: what the one before put out, or the torso's own images. */
static const float *input_of(const struct torso *torso, size_t layer, const void *images, size_t first, size_t count,
                             const struct torso_pass *pass) {
    const size_t floats = image_floats(torso->convolutions + layer);
    if (layer) return pass->values[layer - 1] + first * floats;
    if (torso->bytes != 1) return (const float *)images + first * floats;
    scale_bytes((const uint8_t *)images + first * floats, count * floats, torso->scale, pass->images);
    return pass->images;
}

/* Features [rows, outputs of the last convolution + 1], which end in a one, of images [rows, height, width, channels]. */
void torso_forward(const struct torso *torso, const float *parameters, const void *images, size_t rows,
                   const struct torso_pass *pass, float *features, float *panel) {
    const size_t image_bytes = image_floats(torso->convolutions) * torso->bytes;
    const size_t width = outputs(torso->convolutions + torso->depth - 1);
    for (size_t done = 0; done < rows; done += pass->rows) {
        const size_t part = smaller(rows - done, pass->rows);
        const void *part_images = (const char *)images + done * image_bytes;
        const float *kernel = parameters;
        for (size_t layer = 0; layer < torso->depth; layer++) {
            const struct convolution *own = torso->convolutions + layer;
            const float *bias = kernel + inputs(own) * own->filters;
            for (size_t first = 0; first < part; first += own->at_once) {
                const size_t count = smaller(part - first, own->at_once);
                const float *input = input_of(torso, layer, part_images, first, count, pass);
                multiply_rectified((struct gathered){input, own->positions, own->numbers},
                                   (struct matrix){kernel, own->filters, 1}, bias, count * positions(own), own->filters,
                                   inputs(own), pass->values[layer] + first * outputs(own), panel);
            }
            kernel = bias + own->filters;
        }
        rows_with_ones(pass->values[torso->depth - 1], part, width, 1.0f, features + done * (width + 1));
    }
}

/* The flat gradient of a loss, from what the forward pass of these rows, no more than the pass has memory for, left in
 * `values`, and the loss' gradient with respect to the features before their ReLU. */
void torso_backward(const struct torso *torso, const float *parameters, const void *images, size_t rows,
                    const struct torso_pass *pass, const float *feature_gradient, float *gradient, float *panel) {
    const size_t width = outputs(torso->convolutions + torso->depth - 1);
    for (size_t row = 0; row < rows; row++)
        memcpy(pass->gradients[torso->depth - 1] + row * width, feature_gradient + row * (width + 1), width * sizeof(float));
    size_t place = torso->parameters;
    for (size_t layer = torso->depth; layer-- > 0;) {
        const struct convolution *own = torso->convolutions + layer;
        const size_t in = inputs(own), floats = image_floats(own), kernel_floats = in * own->filters;
        float *bias_gradient = gradient + place - own->filters;
        place -= kernel_floats + own->filters;
        memset(bias_gradient, 0, own->filters * sizeof(float));
        for (size_t first = 0; first < rows; first += own->at_once) {
            const size_t count = smaller(rows - first, own->at_once), patches = count * positions(own);
            const float *input = input_of(torso, layer, images, first, count, pass);
            const float *delta = pass->gradients[layer] + first * outputs(own);
            const struct matrix delta_matrix = {delta, own->filters, 1};
            multiply_gathered(first > 0, (struct gathered){input, own->numbers, own->positions}, delta_matrix, in,
                              own->filters, patches, gradient + place, panel);
            sum_columns(delta, patches, own->filters, bias_gradient);
            if (!layer) continue;
            multiply(AS_IS, delta_matrix, (struct matrix){parameters + place, 1, own->filters}, patches, in, own->filters,
                     pass->patch_gradients, in, NULL, panel);
            float *input_gradient = pass->gradients[layer - 1] + first * floats;
            for (size_t i = 0; i < count; i++)
                add_patches(own, pass->patch_gradients + i * positions(own) * in, input_gradient + i * floats);
            relu_gradient(input_gradient, input, count * floats);
        }
    }
}
