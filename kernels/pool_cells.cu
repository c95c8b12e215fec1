// The gradient of a pooling whose windows are few over any input: dilation 1, and along the last two axes
// no more than two, along the first no more than one. The stride cuts the map, from where the padding
// begins, into cells; the windows over a cell are the one that begins with it and those just before:
//
//   dx[n, h, w, c] = sum of dy over the windows that chose (h, w)          max, min
//                  = sum of dy / count over the windows that cover (h, w)  average (sum: count = 1)
//
// in ascending order. Shapes as in pool.cu; index of one byte each. One thread asks for the dy and the
// indices of all windows over a cell, one in pool_cells and four in pool_shared_cells, and then writes the
// cell's units of dx. A launch counts fewer than 2^31 units.
//
// Macros: MODE, here MAX for the minimum, too; UNIT, see pool_geometry.cuh.
#include "pool_geometry.cuh"

typedef Neighbours<U8, RESULTS> Index;

// The inputs of cell c along axis a.
__device__ __forceinline__ Span cell_of(const PoolGeometry& g, int a, int c) {
    const int corner = corner_of(g, a, c);
    return {max(corner, 0), min(corner + g.stride[a], g.input[a])};
}

// Of the windows over a cell, OVERLAP along each of the last axes, the k-th in ascending order.
template <int OVERLAP> __device__ __forceinline__ Place window_over(const Place& cell, int k) {
    return {{cell.axis[0], cell.axis[1] - (OVERLAP - 1) + k / OVERLAP, cell.axis[2] - (OVERLAP - 1) + k % OVERLAP}};
}

template <int OVERLAP>
__device__ __forceinline__ void fill(const PoolGeometry& g, const Output* dy, const Index* index, Input* dx,
                                     const Place& cell) {
    const int WINDOWS = OVERLAP * OVERLAP;
    Output held[WINDOWS] = {};  // of a window outside the map, zeros
    Index chosen[WINDOWS] = {};
#pragma unroll
    for (int k = 0; k < WINDOWS; ++k) {
        const Place out = window_over<OVERLAP>(cell, k);
        if (!inside(out, g.output)) continue;
        const int o = pixel(out, g.output) * g.depth;
        held[k] = dy[o];
        if (SELECTS) chosen[k] = index[o];
    }
    Accum parts[WINDOWS][RESULTS];
#pragma unroll
    for (int k = 0; k < WINDOWS; ++k) {
        const Place out = window_over<OVERLAP>(cell, k);
        const Accum divided_by = !SELECTS && g.average && inside(out, g.output) ? taps_counted(g, out) : 1;
#pragma unroll
        for (int j = 0; j < RESULTS; ++j) {
            parts[k][j] = widen(held[k].at[j]);
            if (!SELECTS && g.average) parts[k][j] /= divided_by;
            if (OVERLAP == 1) held[k].at[j] = narrow(parts[k][j]);  // no sum follows
        }
    }

    Span inputs[AXES];
#pragma unroll
    for (int a = 0; a < AXES; ++a) inputs[a] = cell_of(g, a, cell.axis[a]);
    Place in, tap;
    for (in.axis[0] = inputs[0].begin; in.axis[0] < inputs[0].end; ++in.axis[0])
        for (in.axis[1] = inputs[1].begin; in.axis[1] < inputs[1].end; ++in.axis[1])
#pragma unroll 1
            for (in.axis[2] = inputs[2].begin; in.axis[2] < inputs[2].end; ++in.axis[2]) {
                Accum sum[WIDTH] = {};
                Input result = {};
#pragma unroll
                for (int k = 0; k < WINDOWS; ++k) {
                    const Place out = window_over<OVERLAP>(cell, k);
#pragma unroll
                    for (int a = 0; a < AXES; ++a) tap.axis[a] = in.axis[a] - corner_of(g, a, out.axis[a]);
                    if (!inside(tap, g.window)) continue;
                    const int number = number_of(g, tap);
#pragma unroll
                    for (int j = 0; j < WIDTH; ++j) {
                        if (SELECTS && chosen[k].at[j / ACROSS] != number + j % ACROSS) continue;
                        sum[j] += parts[k][j / ACROSS];
                        result.at[j] = held[k].at[j / ACROSS];
                    }
                }
                if (OVERLAP > 1)
#pragma unroll
                    for (int j = 0; j < WIDTH; ++j) result.at[j] = narrow(sum[j]);
                dx[pixel(in, g.input) * g.depth] = result;
            }
}

template <int OVERLAP>
__device__ __forceinline__ void fill_cell(const PoolGeometry& g, const Output* dy, const Index* index, Input* dx,
                                          int count) {
    const long long i = global_thread();
    if (i >= count) return;
    int column;
    Place cell;
    const unsigned n = split(divide(i, g.by_depth, column), g.by_cells, cell);
    const int first = n * pixels(g.output) * g.depth + column;
    fill<OVERLAP>(g, dy + first, SELECTS ? index + first : index, dx + n * pixels(g.input) * g.depth + column, cell);
}

extern "C" __global__ void NAME(pool_cells)(const Output* __restrict__ dy, const Index* __restrict__ index,
                                            Input* __restrict__ dx, int count,
                                            const __grid_constant__ PoolGeometry g) {
    after_kernels_before();
    fill_cell<1>(g, dy, index, dx, count);
}

// Two blocks on a multiprocessor at least: left alone, ptxas takes registers for one.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2)
NAME(pool_shared_cells)(const Output* __restrict__ dy, const Index* __restrict__ index, Input* __restrict__ dx,
                        int count, const __grid_constant__ PoolGeometry g) {
    after_kernels_before();
    fill_cell<2>(g, dy, index, dx, count);
}
