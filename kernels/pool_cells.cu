// The gradient of a pooling whose windows lie side by side or apart: window <= stride, dilation 1. Then
// the stride cuts the map into cells of one window each:
//
//   dx[n, h, w, c] = dy where the window of the cell chose (h, w), else 0  max, min
//                  = dy / count                                            average (sum: count = 1)
//
// and 0 between windows and beyond the last one, whose cell reaches to the end of the map. Shapes and
// index as in pool.cu. One thread reads one unit of dy and of the index, and writes the units of its
// cell. A launch counts fewer than 2^31 units.
//
// Macros: MODE, here MAX for the minimum, too; UNIT, see pool_geometry.cuh.
#include "pool_geometry.cuh"

// The inputs of output o's cell along axis a.
__device__ __forceinline__ Span cell_of(const PoolGeometry& g, int a, int o) {
    const int corner = corner_of(g, a, o), last = o == g.output[a] - 1;
    return {max(corner, 0), last ? g.input[a] : min(corner + g.stride[a], g.input[a])};
}

template <class Index>
__device__ __forceinline__ void load_index(const void* index, long long i, int (&chosen)[RESULTS]) {
    const Neighbours<Index, RESULTS> loaded = ((const Neighbours<Index, RESULTS>*)index)[i];
#pragma unroll
    for (int j = 0; j < RESULTS; ++j) chosen[j] = (int)loaded.at[j];
}

extern "C" __global__ void NAME(pool_cells)(const Output* __restrict__ dy, const void* __restrict__ index,
                                            Input* __restrict__ dx, int count,
                                            const __grid_constant__ PoolGeometry g) {
    const long long i = global_thread();
    if (i >= count) return;
    Output gradient = dy[i];
    int chosen[RESULTS] = {};
    if (SELECTS) {
        if (g.index_bytes == 1)
            load_index<U8>(index, i, chosen);
        else if (g.index_bytes == 2)
            load_index<U16>(index, i, chosen);
        else
            load_index<U32>(index, i, chosen);
    }
    Place out, in, tap;
    dx += locate(g, i, g.by_output, pixels(g.input), out);
    if (!SELECTS && g.average) {
        const Accum divided_by = taps_counted(g, out);
#pragma unroll
        for (int j = 0; j < RESULTS; ++j) gradient.at[j] = narrow(widen(gradient.at[j]) / divided_by);
    }

    Span cell[AXES];
#pragma unroll
    for (int a = 0; a < AXES; ++a) cell[a] = cell_of(g, a, out.axis[a]);
    for (in.axis[0] = cell[0].begin; in.axis[0] < cell[0].end; ++in.axis[0])
        for (in.axis[1] = cell[1].begin; in.axis[1] < cell[1].end; ++in.axis[1])
            for (in.axis[2] = cell[2].begin; in.axis[2] < cell[2].end; ++in.axis[2]) {
#pragma unroll
                for (int a = 0; a < AXES; ++a) tap.axis[a] = in.axis[a] - corner_of(g, a, out.axis[a]);
                const bool covered = inside(tap, g.window);
                const int number = number_of(g, tap);
                Input result;
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) {
                    const bool meant = covered && (!SELECTS || chosen[j / ACROSS] == number + j % ACROSS);
                    result.at[j] = meant ? gradient.at[j / ACROSS] : narrow(0);
                }
                dx[pixel(in, g.input) * g.depth] = result;
            }
}
