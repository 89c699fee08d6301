/* Measures what one core's units do at most: multiplications of float32 that are added up, in nothing but such instructions.
 *
 *   peak        prints "vector N" and, where there is a matrix unit for bfloat16, "matrix N": billions per second
 *
 * bench/limits.py compiles it with -march=native.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REPETITIONS 40

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#if defined(__AVX512F__)
#define LANES 16
#define REGISTER "zmm"
#else
#define LANES 8
#define REGISTER "ymm"
#endif
#define ADD(n) "vfmadd231ps %%" REGISTER "15, %%" REGISTER "14, %%" REGISTER #n "\n"

static void vectors(long rounds) {
    for (long i = 0; i < rounds; i++)
        __asm__ volatile(ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) ADD(8) ADD(9) ADD(10) ADD(11)::: "memory");
}

#if defined(__AMX_BF16__)
static int matrix_unit(void) {
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes_per_row[16];
        uint8_t rows[16];
    } tiles = {.palette = 1,
               .bytes_per_row = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return 0; /* Linux wants to be asked for these registers */
    _tile_loadconfig(&tiles);
    return 1;
}

static void matrices(long rounds) {
    for (long i = 0; i < rounds; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}
#else
static int matrix_unit(void) { return 0; }
static void matrices(long rounds) { (void)rounds; }
#endif

static void measure(const char *name, void (*work)(long), double each, long rounds) {
    double best = 1e9;
    for (int i = 0; i < REPETITIONS; i++) {
        const double start = seconds();
        work(rounds);
        const double taken = seconds() - start;
        best = taken < best ? taken : best;
    }
    printf("%s %.1f\n", name, each * (double)rounds / best / 1e9);
}

int main(void) {
    measure("vector", vectors, 12.0 * LANES, 500000);
    if (matrix_unit()) measure("matrix", matrices, 4.0 * 16 * 16 * 32, 50000);
    return 0;
}
