/* Convolutions in front of an MLP; see torso.c, and compiled_structs.py for the twins of the structs. */
#ifndef TORSO_H
#define TORSO_H

#include <stddef.h>
#include <stdint.h>

/* A convolution of images [height, width, channels] without a border, followed by ReLU. */
struct convolution {
    size_t height, width, channels;
    size_t size, stride, filters;
    size_t at_once; /* images of one product */
    /* Where a filter's positions in so many images begin, and its numbers at a position, counted from there. */
    const uint32_t *positions, *numbers;
};

struct torso {
    const struct convolution *convolutions;
    size_t depth; /* how many */
    size_t parameters;
    size_t bytes; /* of a number of an image: 1 for 0 to 255, which are scaled; 4 for float */
    float scale;
};

/* Memory of a forward and a backward pass of `rows` images; more go forwards in parts. */
struct torso_pass {
    size_t rows;
    float *images;          /* of the first convolution, at once */
    float *patch_gradients; /* of the largest of the other convolutions, at once: [positions, numbers of a filter] */
    float *const *values, *const *gradients; /* of each convolution [rows, height, width, filters] */
};

void torso_forward(const struct torso *torso, const float *parameters, const void *images, size_t rows,
                   const struct torso_pass *pass, float *features, float *panel);
void torso_backward(const struct torso *torso, const float *parameters, const void *images, size_t rows,
                    const struct torso_pass *pass, const float *feature_gradient, float *gradient, float *panel);

#endif
