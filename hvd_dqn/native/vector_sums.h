/* How ranks share out a vector, and how vectors are added up; see vector_sums.c. */
#ifndef VECTOR_SUMS_H
#define VECTOR_SUMS_H

#include <stddef.h>

/* Floats that are added up while they stay in the innermost cache. */
#define SUM_BLOCK 2048
/* A rank that waits looks again at once, then gives its core away between two looks, then sleeps. */
#define LOOKS 20
#define YIELDS 2000

size_t vector_stride(size_t length);
size_t shared_part(size_t rank, size_t ranks, size_t length);
void add_up(float *result, const float *const *vectors, size_t ranks, size_t start, size_t end);

#endif
