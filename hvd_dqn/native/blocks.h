/* Products of matrices for one instruction set; products.c includes this file once for each, and defines
 *   SET           a name, which goes before those of the functions
 *   INSTRUCTIONS  GCC's name of the instruction set
 *   LANES         floats of a vector
 *   MOST_VECTORS, MOST_ROWS  of a block of the result, as large as the registers can hold
 */
#define JOINED(set, name) set##_##name
#define IN_SET(set, name) JOINED(set, name)
#define NAME(name) IN_SET(SET, name)
#define INLINE static inline __attribute__((always_inline))
#define vector NAME(vector)
#define bits NAME(bits)

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Computes rows x (vectors * LANES) numbers of a product; `panel` is the right operand's columns for it [depth, vectors *
 * LANES]. Writes the first `columns` of each row. What is the same for a whole block is asked at run time: a copy of this
 * function for each case took three times as long to compile and was no faster. */
INLINE void NAME(block)(const int rows, const int vectors, enum start start, enum epilogue epilogue, struct matrix a,
                        const float *panel, size_t depth, size_t columns, float *out, size_t pitch, const float *gate) {
#define EACH_ROW _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
#define EACH_VECTOR _Pragma("GCC unroll 3") for (int v = 0; v < vectors; v++)
    vector sum[MOST_ROWS][MOST_VECTORS];
    if (start == FROM_ZERO) {
        EACH_ROW EACH_VECTOR sum[i][v] = (vector){0};
    } else {
        EACH_ROW EACH_VECTOR sum[i][v] = *(const vector *)(out + i * pitch + v * LANES);
    }
    const float *row[MOST_ROWS];
    EACH_ROW row[i] = a.at + i * a.row;
    for (size_t k = 0, place = 0; k < depth; k++, place += a.column, panel += vectors * LANES) {
        vector right[MOST_VECTORS];
        EACH_VECTOR right[v] = *(const vector *)(panel + v * LANES);
        EACH_ROW EACH_VECTOR sum[i][v] += row[i][place] * right[v];
    }
    if (vectors == 1 && columns < LANES) {
        float numbers[MOST_ROWS][LANES];
        EACH_ROW *(vector *)numbers[i] = sum[i][0];
        for (int i = 0; i < rows; i++)
            for (size_t j = 0; j < columns; j++) {
                const size_t place = i * pitch + j;
                const int dropped = epilogue == RECTIFIED ? numbers[i][j] < 0.0f
                                                          : epilogue == GATED && !(gate[place] > 0.0f);
                out[place] = dropped ? 0.0f : numbers[i][j];
            }
        return;
    }
    if (epilogue == RECTIFIED) {
        EACH_ROW EACH_VECTOR sum[i][v] = (vector)((bits)sum[i][v] & ~(sum[i][v] < 0.0f));
    } else if (epilogue == GATED) {
        EACH_ROW EACH_VECTOR sum[i][v] =
            (vector)((bits)sum[i][v] & (*(const vector *)(gate + i * pitch + v * LANES) > 0.0f));
    }
    EACH_ROW EACH_VECTOR *(vector *)(out + i * pitch + v * LANES) = sum[i][v];
#undef EACH_ROW
#undef EACH_VECTOR
}

/* Transposes the numbers of LANES vectors: swaps ever smaller blocks across the diagonal. */
INLINE void NAME(transpose)(vector *rows) {
    bits lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
#pragma GCC unroll 4
    for (int step = LANES / 2; step; step /= 2) {
        const bits second = (lane & step) != 0;
        const bits upper = (lane & ~second) | ((lane - step + LANES) & second);
        const bits lower = ((lane + step) & ~second) | ((lane + LANES) & second);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & step)) {
                const vector a = rows[i], b = rows[i + step];
                rows[i] = __builtin_shuffle(a, b, upper);
                rows[i + step] = __builtin_shuffle(a, b, lower);
            }
    }
}

/* Copies columns of a matrix [depth, columns] into a panel [depth, width], with zeros behind them. */
INLINE void NAME(pack)(struct matrix b, size_t depth, size_t columns, size_t width, float *panel) {
    size_t done = 0;
    if (b.row == 1 && columns == width) { /* a transposed matrix, whose columns are contiguous */
        for (; done + LANES <= depth; done += LANES)
            for (size_t j = 0; j < columns; j += LANES) {
                vector part[LANES];
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) part[i] = *(const vector *)(b.at + (j + i) * b.column + done);
                NAME(transpose)(part);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) *(vector *)(panel + (done + i) * width + j) = part[i];
            }
    }
    for (size_t k = done; k < depth; k++) {
        for (size_t j = 0; j < columns; j++) panel[k * width + j] = b.at[k * b.row + j * b.column];
        for (size_t j = columns; j < width; j++) panel[k * width + j] = 0.0f;
    }
}

/* Computes as many columns of a product as lie in `vectors` vectors. */
INLINE void NAME(columns)(const int vectors, enum start start, enum epilogue epilogue, struct matrix a,
                          struct matrix b, size_t rows, size_t columns, size_t depth, float *out,
                          size_t pitch, const float *gate, float *panel) {
    if (b.column == 1) /* said once more, so that the compiler knows */
        NAME(pack)((struct matrix){b.at, b.row, 1}, depth, columns, vectors * LANES, panel);
    else
        NAME(pack)((struct matrix){b.at, 1, b.column}, depth, columns, vectors * LANES, panel);
    size_t i = 0;
#define ROWS_AT_ONCE(count)                                                                                             \
    for (; i + (count) <= rows; i += (count)) {                                                                         \
        const struct matrix part = {a.at + i * a.row, a.row, a.column};                                                 \
        NAME(block)(count, vectors, start, epilogue, part, panel, depth, columns, out + i * pitch, pitch,               \
                    epilogue == GATED ? gate + i * pitch : NULL);                                                       \
    }
    ROWS_AT_ONCE(MOST_ROWS)
    ROWS_AT_ONCE(4)
    ROWS_AT_ONCE(2)
    ROWS_AT_ONCE(1)
#undef ROWS_AT_ONCE
}

/* The last columns are computed together with some before them a second time, so that whole vectors are written. */
INLINE void NAME(product)(enum start start, enum epilogue epilogue, struct matrix a, struct matrix b,
                          size_t rows, size_t columns, size_t depth, float *out, size_t pitch,
                          const float *gate, float *panel) {
    const size_t fit = columns / LANES;
    for (size_t done = 0; done < columns;) {
        const size_t left = (columns - done + LANES - 1) / LANES;
        size_t vectors = left == 4 ? 2 : left < MOST_VECTORS ? left : MOST_VECTORS; /* of four, two and two */
        if (vectors > fit) vectors = fit ? fit : 1;
        const size_t width = vectors * LANES, count = columns < LANES ? columns : width;
        const size_t first = done + count > columns ? columns - count : done;
        const struct matrix part = {b.at + first * b.column, b.row, b.column};
        const float *part_gate = gate ? gate + first : NULL;
#define VECTORS_AT_ONCE(number)                                                                                         \
    if (number <= MOST_VECTORS && vectors == number)                                                                    \
        NAME(columns)(number, start, epilogue, a, part, rows, count, depth, out + first, pitch, part_gate, panel);
        VECTORS_AT_ONCE(1)
        VECTORS_AT_ONCE(2)
        VECTORS_AT_ONCE(3)
#undef VECTORS_AT_ONCE
        done = first + count;
    }
}

__attribute__((target(INSTRUCTIONS), noinline)) static void NAME(plain)(enum start start, enum epilogue epilogue,
                                                                        struct matrix a, struct matrix b, size_t rows,
                                                                        size_t columns, size_t depth, float *out,
                                                                        size_t pitch, const float *gate, float *panel) {
    NAME(product)(start, epilogue, a, b, rows, columns, depth, out, pitch, gate, panel);
}

/* Computes a product of fewer columns than a vector has as its transpose, so that vectors run along the rows. */
__attribute__((target(INSTRUCTIONS), noinline)) static void NAME(narrow)(struct matrix a, struct matrix b, size_t rows,
                                                                         size_t columns, size_t depth, float *out,
                                                                         size_t pitch, float *panel) {
    float part[LANES * PANEL_WIDTH]; /* [columns, PANEL_WIDTH] */
    const struct matrix b_transposed = {b.at, b.column, b.row};
    for (size_t first = 0; first < rows; first += PANEL_WIDTH) {
        const size_t count = rows - first < PANEL_WIDTH ? rows - first : PANEL_WIDTH;
        const struct matrix a_transposed = {a.at + first * a.row, a.column, a.row};
        NAME(plain)(FROM_ZERO, AS_IS, b_transposed, a_transposed, columns, count, depth, part, PANEL_WIDTH, NULL, panel);
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < columns; j++) out[(first + i) * pitch + j] = part[j * PANEL_WIDTH + i];
    }
}

static void NAME(multiply)(enum start start, enum epilogue epilogue, struct matrix a, struct matrix b, size_t rows,
                           size_t columns, size_t depth, float *out, size_t pitch, const float *gate, float *panel) {
    if (columns < LANES && start == FROM_ZERO && epilogue == AS_IS)
        NAME(narrow)(a, b, rows, columns, depth, out, pitch, panel);
    else
        NAME(plain)(start, epilogue, a, b, rows, columns, depth, out, pitch, gate, panel);
}

#undef JOINED
#undef IN_SET
#undef NAME
#undef INLINE
#undef vector
#undef bits
#undef SET
#undef INSTRUCTIONS
#undef LANES
#undef MOST_VECTORS
#undef MOST_ROWS
