/* Convolutions forwards and backwards, as products of patches: what lies below a filter is a row of a matrix, whose last
 * column holds ones, so that kernel [size, size, channels, filters] and bias [filters], neighbours in the flat parameter
 * vector, are one matrix as an MLP's are. Patches are laid out for a few images at a time, which a core's cache holds.
 *
 * All arrays are float32, channels last, and the caller's.
 */
#include "torso.h"

#include <stdint.h>
#include <string.h>

#include "../maths/kernels.h"
#include "products.h"

/* Rows of patches at which a product is as fast as it gets; of fewer per image, several images are taken together. */
#define ENOUGH_ROWS 240
/* Floats of a row of patches are a multiple of this: a vector that lies across two of the cache's lines takes twice as
 * long to write. */
#define LINE 16

#define INLINE static inline __attribute__((always_inline))

static size_t side(size_t in, const struct convolution *own) { return (in - own->size) / own->stride + 1; }

/* Filter positions per image. */
static size_t positions(const struct convolution *own) { return side(own->height, own) * side(own->width, own); }

static size_t inputs(const struct convolution *own) { return own->size * own->size * own->channels; }

static size_t outputs(const struct convolution *own) { return positions(own) * own->filters; }

static size_t image_floats(const struct convolution *own) { return own->height * own->width * own->channels; }

static size_t pitch(const struct convolution *own) { return (inputs(own) + 1 + LINE - 1) / LINE * LINE; }

static size_t images_at_once(const struct convolution *own) { return (ENOUGH_ROWS + positions(own) - 1) / positions(own); }

/* Floats of memory for patches. */
size_t torso_patch_floats(const struct convolution *own) { return images_at_once(own) * positions(own) * pitch(own); }

/* Makes numbers of bytes. */
WIDEST static void numbers(const uint8_t *restrict bytes, size_t count, float scale, float *restrict out) {
    for (size_t i = 0; i < count; i++) out[i] = (float)bytes[i] * scale;
}

/* Copies a run of numbers, mostly whole lines. */
INLINE void copy_run(const float *restrict from, size_t run, float *restrict to) {
    size_t i = 0;
    for (; i + LINE <= run; i += LINE) memcpy(to + i, from + i, LINE * sizeof(float));
    for (; i < run; i++) to[i] = from[i];
}

/* Adds it instead. */
INLINE void add_run(const float *restrict from, size_t run, float *restrict to) {
    size_t i = 0;
    for (; i + LINE <= run; i += LINE)
        for (size_t j = 0; j < LINE; j++) to[i + j] += from[i + j];
    for (; i < run; i++) to[i] += from[i];
}

/* Lays out an image's patches, [positions, pitch]. */
WIDEST static void lay_out(const struct convolution *own, const float *restrict image, float *restrict patches) {
    const size_t run = own->size * own->channels, line = own->width * own->channels, last = inputs(own);
    const size_t high = side(own->height, own), wide = side(own->width, own), width = pitch(own);
    for (size_t y = 0; y < high; y++)
        for (size_t x = 0; x < wide; x++, patches += width) {
            const float *from = image + y * own->stride * line + x * own->stride * own->channels;
            float *to = patches;
            for (size_t row = 0; row < own->size; row++, from += line, to += run) copy_run(from, run, to);
            patches[last] = 1.0f;
        }
}

/* Adds up the gradients of an image's patches where they overlap. */
WIDEST static void gather(const struct convolution *own, const float *restrict patches, float *restrict image) {
    const size_t run = own->size * own->channels, line = own->width * own->channels;
    const size_t high = side(own->height, own), wide = side(own->width, own), width = pitch(own);
    memset(image, 0, image_floats(own) * sizeof(float));
    for (size_t y = 0; y < high; y++)
        for (size_t x = 0; x < wide; x++, patches += width) {
            float *to = image + y * own->stride * line + x * own->stride * own->channels;
            const float *from = patches;
            for (size_t row = 0; row < own->size; row++, to += line, from += run) add_run(from, run, to);
        }
}

/* Lays out the patches of images [count, ...], numbers of the torso's own input or a convolution's output. */
static void patches_of(const struct torso *torso, size_t layer, const void *images, size_t count,
                       const struct torso_pass *pass) {
    const struct convolution *own = torso->convolutions + layer;
    const size_t floats = image_floats(own), step = positions(own) * pitch(own);
    for (size_t i = 0; i < count; i++) {
        const float *image = (const float *)images + i * floats;
        if (!layer && torso->bytes == 1) {
            numbers((const uint8_t *)images + i * floats, floats, torso->scale, pass->images);
            image = pass->images;
        }
        lay_out(own, image, pass->patches + i * step);
    }
}

/* Of images from `first` on, at their place in the torso's own input or in the output of the convolution before. */
static const void *input_of(const struct torso *torso, size_t layer, const void *images, size_t first,
                            const struct torso_pass *pass) {
    const size_t floats = image_floats(torso->convolutions + layer);
    return layer ? (const void *)(pass->values[layer - 1] + first * floats)
                 : (const void *)((const char *)images + first * floats * torso->bytes);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

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
            const size_t most = images_at_once(own), in = inputs(own) + 1;
            for (size_t first = 0; first < part; first += most) {
                const size_t count = smaller(part - first, most);
                patches_of(torso, layer, input_of(torso, layer, part_images, first, pass), count, pass);
                multiply(RECTIFIED, (struct matrix){pass->patches, pitch(own), 1},
                         (struct matrix){kernel, own->filters, 1}, count * positions(own), own->filters, in,
                         pass->values[layer] + first * outputs(own), own->filters, NULL, panel);
            }
            kernel += in * own->filters;
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
        const size_t most = images_at_once(own), in = inputs(own) + 1, step = positions(own) * pitch(own);
        place -= in * own->filters;
        for (size_t first = 0; first < rows; first += most) {
            const size_t count = smaller(rows - first, most), patch_rows = count * positions(own);
            const struct matrix delta = {pass->gradients[layer] + first * outputs(own), own->filters, 1};
            const struct matrix transposed = {pass->patches, 1, pitch(own)};
            patches_of(torso, layer, input_of(torso, layer, images, first, pass), count, pass);
            if (first)
                multiply_onto(transposed, delta, in, own->filters, patch_rows, gradient + place, own->filters, panel);
            else
                multiply(AS_IS, transposed, delta, in, own->filters, patch_rows, gradient + place, own->filters, NULL,
                         panel);
            if (!layer) continue;
            const struct matrix kernel = {parameters + place, 1, own->filters};
            multiply(AS_IS, delta, kernel, patch_rows, in - 1, own->filters, pass->patch_gradients, pitch(own), NULL,
                     panel);
            const size_t floats = image_floats(own);
            float *input_gradient = pass->gradients[layer - 1] + first * floats;
            for (size_t i = 0; i < count; i++)
                gather(own, pass->patch_gradients + i * step, input_gradient + i * floats);
            relu_gradient(input_gradient, pass->values[layer - 1] + first * floats, count * floats);
        }
    }
}
