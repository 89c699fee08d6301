/* The ranks of one host sum vectors, and keep what they all change, in memory that they share.
 *
 * A short vector takes one meeting point: each rank copies its own in, and once all have, adds up all of them for itself. The
 * slots are there twice, so that nobody writes where somebody still reads. A long one takes two: after the first each
 * rank adds up its part for all, and reads the whole after the second.
 *
 * The memory, zero at the start: one flag per rank, then slots [stride], where stride is the length, rounded up to whole
 * cache lines: of a short vector two and a result for each rank, of a long one one for each and one result. A rank's flag
 * counts the meeting points that it has come to.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "optimizers.h"
#include "exchanges.h"
#include "vector_sums.h"

#define LINE 64
/* Floats of the other ranks up to which a vector is short: from there on reading them all takes longer than meeting again. */
#define SHORT 131072
#define NAP_MICROSECONDS 50

struct flag {
    _Alignas(LINE) _Atomic uint64_t meetings;
};

int shared_is_short(size_t ranks, size_t length) { return (ranks - 1) * length <= SHORT; }

/* Returns the bytes that so many vectors take that stay: flags and slots again, one for each. */
size_t shared_state_bytes(size_t ranks, size_t length, size_t vectors) {
    return ranks * sizeof(struct flag) + vectors * vector_stride(length) * sizeof(float);
}

/* Returns the bytes that the sums of vectors of this length take. */
size_t shared_bytes(size_t ranks, size_t length) {
    return shared_state_bytes(ranks, length, shared_is_short(ranks, length) ? 3 * ranks : ranks + 1);
}

/* Returns where a slot begins. */
float *shared_slot(char *memory, size_t ranks, size_t length, size_t slot) {
    return (float *)(memory + ranks * sizeof(struct flag)) + slot * vector_stride(length);
}

/* Returns where a rank finds sums. */
float *shared_result(char *memory, size_t rank, size_t ranks, size_t length) {
    return shared_slot(memory, ranks, length, shared_is_short(ranks, length) ? 2 * ranks + rank : ranks);
}

/* The memory of some vectors and what was done there; shared_vectors.py has the struct's twin. */
struct shared_exchange {
    char *memory;
    size_t rank, ranks, length;
    uint64_t meetings, sums;
    double *squares; /* of the blocks of a long sum's first `parameters` numbers, where all ranks see them; or none */
    size_t parameters;
};

/* Comes to the next meeting point and returns when all ranks have; what each wrote before, all see after. */
void shared_meeting(struct shared_exchange *exchange) {
    struct flag *flags = (struct flag *)exchange->memory;
    const uint64_t meeting = ++exchange->meetings;
    atomic_store_explicit(&flags[exchange->rank].meetings, meeting, memory_order_release);
    for (size_t other = 0; other < exchange->ranks; other++)
        for (unsigned looks = 0; atomic_load_explicit(&flags[other].meetings, memory_order_acquire) < meeting; looks++) {
            if (looks < LOOKS) continue;
            if (looks < LOOKS + YIELDS)
                sched_yield();
            else
                usleep(NAP_MICROSECONDS);
        }
}

/* Adds up this rank's part of a long vector, and takes the squares of its blocks while they are at hand. */
static void add_up_part(const struct shared_exchange *exchange, float *result, const float *const *slots) {
    const size_t ranks = exchange->ranks, parameters = exchange->squares ? exchange->parameters : 0;
    const size_t end = shared_part(exchange->rank + 1, ranks, exchange->length);
    for (size_t i = shared_part(exchange->rank, ranks, exchange->length); i < end; i += NORM_BLOCK) {
        add_up(result, slots, ranks, i, end - i < NORM_BLOCK ? end : i + NORM_BLOCK);
        if (i < parameters) exchange->squares[i / NORM_BLOCK] = squares_of_block(result, parameters, i);
    }
}

/* Sums a vector over the ranks. The result stays until this rank's next meeting point. A long vector may lie in this
 * rank's slot already. */
const float *shared_exchange(struct shared_exchange *exchange, const float *own) {
    const size_t rank = exchange->rank, ranks = exchange->ranks, length = exchange->length;
    const size_t turn = exchange->sums++ % 2;
    float *result = shared_result(exchange->memory, rank, ranks, length);
    const int one_meeting = shared_is_short(ranks, length);
    float *slots[ranks];
    for (size_t i = 0; i < ranks; i++)
        slots[i] = shared_slot(exchange->memory, ranks, length, (one_meeting ? turn * ranks : 0) + i);
    if (own != slots[rank]) memcpy(slots[rank], own, length * sizeof(float));
    shared_meeting(exchange);
    if (one_meeting) {
        add_up(result, (const float *const *)slots, ranks, 0, length);
    } else {
        add_up_part(exchange, result, (const float *const *)slots);
        shared_meeting(exchange);
    }
    return result;
}
