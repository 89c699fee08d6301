/* Products of matrices of float32, where libraries spend their time on more than the arithmetic.
 *
 * Every number of a product is one chain of fused multiplications and additions in the order of the inner dimension. So
 * the same bits come out whatever vector instructions the processor has, and however many rows are computed together.
 */
#include "products.h"

/* Floats of memory for a product's right operand, per row of it: the widest block of any instruction set. */
#define PANEL_WIDTH 48

size_t product_panel_width(void) { return PANEL_WIDTH; }

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")

/* What a product's sums begin with: nothing, or what the result holds already. */
enum start { FROM_ZERO, ONTO };

typedef void multiply_function(enum start start, enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows,
                               size_t columns, size_t depth, float *out, size_t pitch, const float *gate,
                               float *panel);

#define SET avx512
#define INSTRUCTIONS "avx512f,avx512bw,avx512dq,avx512vl,fma"
#define LANES 16
#define MOST_VECTORS 3
#define MOST_ROWS 8
#include "blocks.h"

#define SET avx2
#define INSTRUCTIONS "avx2,fma"
#define LANES 8
#define MOST_VECTORS 2
#define MOST_ROWS 6
#include "blocks.h"

#define MOST_LANES 16

/* Floats of an operand that no core's own cache holds. */
#define LARGE (1 << 18)
/* Rows of a large right operand that are read for all of the result before the next, in the order in which they lie. */
#define DEPTH_AT_ONCE 64
/* Rows of a large result that are written before the next. */
#define ROWS_AT_ONCE 64

static multiply_function *choose(void) {
#ifndef NO_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return avx512_multiply;
#endif
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2_multiply : NULL;
}

/* Whether this processor can: without fused operations the bits would be others. */
int products_supported(void) { return choose() != NULL; }

/* out [rows, columns], whose rows are `pitch` floats apart, = epilogue(a [rows, depth] b [depth, columns]). `panel` is
 * memory for depth * PANEL_WIDTH floats, `gate` is shaped as `out`. */
void multiply(enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows, size_t columns, size_t depth,
              float *out, size_t pitch, const float *gate, float *panel) {
    multiply_function *function = choose();
    if (b.column == 1 && epilogue != GATED && columns % MOST_LANES == 0 && depth * columns > LARGE) {
        for (size_t done = 0; done < depth; done += DEPTH_AT_ONCE) {
            const int last = depth - done <= DEPTH_AT_ONCE;
            function(done ? ONTO : FROM_ZERO, last ? epilogue : AS_IS, a, b, rows, columns,
                     last ? depth - done : DEPTH_AT_ONCE, out, pitch, NULL, panel);
            a.at += DEPTH_AT_ONCE * a.column;
            b.at += DEPTH_AT_ONCE * b.row;
        }
        return;
    }
    const size_t most = epilogue != GATED && rows * columns > LARGE ? ROWS_AT_ONCE : rows;
    for (size_t done = 0; done < rows; done += most, a.at += most * a.row)
        function(FROM_ZERO, epilogue, a, b, rows - done < most ? rows - done : most, columns, depth,
                 out + done * pitch, pitch, gate, panel);
}

#else

int products_supported(void) { return 0; }
void multiply(enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows, size_t columns, size_t depth,
              float *out, size_t pitch, const float *gate, float *panel) {
    (void)epilogue, (void)a, (void)b, (void)rows, (void)columns, (void)depth, (void)out, (void)pitch, (void)gate;
    (void)panel;
}

#endif
