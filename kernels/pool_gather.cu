// The gradient of a pooling: every dx gathers from the windows over it, in ascending order. Nothing is
// atomic, and the result is deterministic where windows overlap, too.
//
//   dx[n, h, w, c] = sum of dy over the windows that chose (h, w)          max, min
//                  = sum of dy / count over the windows that cover (h, w)  average (sum: count = 1)
//
// Shapes and index as in pool.cu. One thread computes one unit of dx, from any number of windows; where
// they are few, pool_cells.cu is faster. A launch counts fewer than 2^31 units.
//
// Macros: MODE, here MAX for the minimum, too; UNIT, see pool_geometry.cuh.
#include "pool_geometry.cuh"

static_assert(ACROSS == 1, "windows of two columns, side by side, are pool_cells.cu's");

// The windows along axis a that reach input coordinate h, with a tap or between two.
__device__ __forceinline__ Span windows_over(const PoolGeometry& g, int a, int h) {
    const int padded = h + g.pad[a];
    return {(int)divide(max(padded - g.reach[a], -1) + g.stride[a], g.by_stride[a]),
            min(g.output[a], (int)divide(padded, g.by_stride[a]) + 1)};
}

// The tap of window o along axis a that lies on input coordinate h; false if h lies between two.
__device__ __forceinline__ bool tap_on(const PoolGeometry& g, int a, int h, int o, int& tap) {
    int between;
    tap = divide(h - corner_of(g, a, o), g.by_dilation[a], between);
    return between == 0;
}

// A window's part of dx.
template <class Index>
__device__ __forceinline__ void add(const PoolGeometry& g, Accum (&sum)[WIDTH], const Output& dy,
                                    const Neighbours<Index, WIDTH>& index, const Place& out, int tap) {
    const Accum divided_by = !SELECTS && g.average ? taps_counted(g, out) : 1;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        if (SELECTS)
            sum[j] += (int)index.at[j] == tap ? widen(dy.at[j]) : 0;
        else
            sum[j] += g.average ? widen(dy.at[j]) / divided_by : widen(dy.at[j]);
    }
}

template <class Index>
__device__ __forceinline__ void gather(const PoolGeometry& g, Accum (&sum)[WIDTH], const Output* dy,
                                       const Neighbours<Index, WIDTH>* index, int channels, const Place& in) {
    const Span planes = windows_over(g, 0, in.axis[0]), rows = windows_over(g, 1, in.axis[1]);
    const Span columns = windows_over(g, 2, in.axis[2]);
    Place out, tap;
    for (out.axis[0] = planes.begin; out.axis[0] < planes.end; ++out.axis[0]) {
        if (!tap_on(g, 0, in.axis[0], out.axis[0], tap.axis[0])) continue;
        for (out.axis[1] = rows.begin; out.axis[1] < rows.end; ++out.axis[1]) {
            if (!tap_on(g, 1, in.axis[1], out.axis[1], tap.axis[1])) continue;
            for (out.axis[2] = columns.begin; out.axis[2] < columns.end; ++out.axis[2]) {
                if (!tap_on(g, 2, in.axis[2], out.axis[2], tap.axis[2])) continue;
                const int o = channels + pixel(out, g.output) * g.depth;
                const Output gradient = dy[o];
                Neighbours<Index, WIDTH> chosen = {};
                if (SELECTS) chosen = index[o];
                add(g, sum, gradient, chosen, out, number_of(g, tap));
            }
        }
    }
}

extern "C" __global__ void NAME(pool_gather)(const Output* __restrict__ dy, const void* __restrict__ index,
                                             Input* __restrict__ dx, int count,
                                             const __grid_constant__ PoolGeometry g) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    Place in;
    const int channels = locate(g, i, g.by_input, pixels(g.output), in);
    Accum sum[WIDTH] = {};
    if (!SELECTS || g.index_bytes == 1)
        gather(g, sum, dy, (const Neighbours<U8, WIDTH>*)index, channels, in);
    else if (g.index_bytes == 2)
        gather(g, sum, dy, (const Neighbours<U16, WIDTH>*)index, channels, in);
    else
        gather(g, sum, dy, (const Neighbours<U32, WIDTH>*)index, channels, in);
    Input result;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) result.at[j] = narrow(sum[j]);
    dx[i] = result;
}
