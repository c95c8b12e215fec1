// How Winograd's transforms are applied: matrix * pixels * transposed matrix, where the matrix is given
// as what it does to one line, a column or a row. Columns first, then rows. Shared memory: none.
//
// A line: static void apply(const float (&v)[FROM], float (&w)[TO]).
#pragma once

template <class Line, int FROM, int TO>
__device__ __forceinline__ void transform(const float (&from)[FROM][FROM], float (&to)[TO][TO]) {
    float rows[TO][FROM];
#pragma unroll
    for (int j = 0; j < FROM; ++j) {
        float column[FROM], turned[TO];
#pragma unroll
        for (int i = 0; i < FROM; ++i) column[i] = from[i][j];
        Line::apply(column, turned);
#pragma unroll
        for (int i = 0; i < TO; ++i) rows[i][j] = turned[i];
    }
#pragma unroll
    for (int i = 0; i < TO; ++i) Line::apply(rows[i], to[i]);
}
