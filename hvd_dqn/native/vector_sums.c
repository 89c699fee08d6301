/* What every exchange of vectors between ranks has in common: the same parts, the same order of additions. */
#include "vector_sums.h"

#include <string.h>

#include "optimizers.h"

#define FLOATS_PER_LINE (64 / sizeof(float))

static size_t rounded_up(size_t length, size_t grain) { return (length + grain - 1) / grain * grain; }

/* Returns the floats between the beginnings of two vectors of this length that lie one behind the other. */
size_t vector_stride(size_t length) { return rounded_up(length, FLOATS_PER_LINE); }

/* Returns where a rank's part of a vector begins, and the last one's ends: of a large one whole blocks of its norm. */
size_t shared_part(size_t rank, size_t ranks, size_t length) {
    const size_t grain = length > SMALL_GRADIENT ? NORM_BLOCK : FLOATS_PER_LINE;
    const size_t start = rank * rounded_up((length + ranks - 1) / ranks, grain);
    return start < length ? start : length;
}

WIDEST static void set_to_sum(float *restrict sum, const float *restrict one, const float *restrict other, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] = one[i] + other[i];
}

WIDEST static void add(float *restrict sum, const float *restrict values, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] += values[i];
}

/* Sums a part of the ranks' vectors in the order of ranks: the same bits whoever does it. Of two the result may lie where one
 * of them does. */
void add_up(float *result, const float *const *vectors, size_t ranks, size_t start, size_t end) {
    if (ranks == 1) {
        memcpy(result + start, vectors[0] + start, (end - start) * sizeof(float));
        return;
    }
    if (ranks == 2 && (result == vectors[0] || result == vectors[1])) {
        add(result + start, vectors[result == vectors[0]] + start, end - start);
        return;
    }
    for (size_t i = start; i < end; i += SUM_BLOCK) {
        const size_t size = end - i < SUM_BLOCK ? end - i : SUM_BLOCK;
        set_to_sum(result + i, vectors[0] + i, vectors[1] + i, size);
        for (size_t rank = 2; rank < ranks; rank++) add(result + i, vectors[rank] + i, size);
    }
}
