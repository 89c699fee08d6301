/* The ranks of one host sum a vector in memory that they share: one copy in, then each rank adds up its part of all.
 *
 * The memory, zero at the start: one flag per rank, one slot [stride] per rank, and the result [stride], where stride
 * is the length, rounded up to whole cache lines. A rank's flag counts the meeting points that it has come to.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define LINE 64
#define FLOATS_PER_LINE (LINE / sizeof(float))
/* A part's sums stay in the innermost cache. */
#define BLOCK 2048
/* A rank that waits looks again at once, then gives its core away between two looks, then sleeps. */
#define LOOKS 20
#define YIELDS 2000
#define NAP_MICROSECONDS 50

struct flag {
    _Alignas(LINE) _Atomic uint64_t meetings;
};

static size_t stride_of(size_t length) { return (length + FLOATS_PER_LINE - 1) / FLOATS_PER_LINE * FLOATS_PER_LINE; }

/* Returns the bytes that a vector of this length takes. */
size_t shared_bytes(size_t ranks, size_t length) {
    return ranks * sizeof(struct flag) + (ranks + 1) * stride_of(length) * sizeof(float);
}

/* Returns where slot number `slot` lies; the result is the one behind the last rank's. */
float *shared_slot(char *memory, size_t ranks, size_t length, size_t slot) {
    return (float *)(memory + ranks * sizeof(struct flag)) + slot * stride_of(length);
}

/* Comes to a meeting point (1, 2, ...) and returns when all ranks have; what each wrote before, all see after. */
void shared_meet(char *memory, size_t rank, size_t ranks, uint64_t meeting) {
    struct flag *flags = (struct flag *)memory;
    atomic_store_explicit(&flags[rank].meetings, meeting, memory_order_release);
    for (size_t other = 0; other < ranks; other++)
        for (unsigned looks = 0; atomic_load_explicit(&flags[other].meetings, memory_order_acquire) < meeting; looks++) {
            if (looks < LOOKS) continue;
            if (looks < LOOKS + YIELDS)
                sched_yield();
            else
                usleep(NAP_MICROSECONDS);
        }
}

WIDEST static void set_to_sum(float *restrict sum, const float *restrict one, const float *restrict other, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] = one[i] + other[i];
}

WIDEST static void add(float *restrict sum, const float *restrict values, size_t size) {
    for (size_t i = 0; i < size; i++) sum[i] += values[i];
}

/* A vector's place in the memory and the meeting points come to; shared_memory.py has the struct's twin. */
struct shared_exchange {
    char *memory;
    size_t rank, ranks, length;
    uint64_t meetings;
};

/* Sums a vector over two ranks or more, in the order of ranks, into the shared result: the same bits for all. It stays
 * until this rank's next meeting point. Takes two meeting points. */
const float *shared_exchange(struct shared_exchange *exchange, const float *own) {
    const size_t rank = exchange->rank, ranks = exchange->ranks, length = exchange->length;
    const size_t stride = stride_of(length), part = stride_of((length + ranks - 1) / ranks);
    float *first = shared_slot(exchange->memory, ranks, length, 0);
    float *result = shared_slot(exchange->memory, ranks, length, ranks);
    memcpy(first + rank * stride, own, length * sizeof(float));
    shared_meet(exchange->memory, rank, ranks, ++exchange->meetings);
    const size_t end = (rank + 1) * part < length ? (rank + 1) * part : length;
    for (size_t i = rank * part; i < end; i += BLOCK) {
        const size_t size = end - i < BLOCK ? end - i : BLOCK;
        set_to_sum(result + i, first + i, first + stride + i, size);
        for (size_t other = 2; other < ranks; other++) add(result + i, first + other * stride + i, size);
    }
    shared_meet(exchange->memory, rank, ranks, ++exchange->meetings);
    return result;
}
