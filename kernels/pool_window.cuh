// The windows of pool.cu, and of norm_pool.cu, which normalises what it reads: the maximum, minimum,
// average or sum of each window of a unit, and where an extreme lay.
//
// Macros: MODE; UNIT, see pool_geometry.cuh.
#pragma once
#include "pool_geometry.cuh"

// Of each element of a unit of y: the result so far, and the tap that it came from.
struct Pooled {
    Accum value[RESULTS];
    int tap[RESULTS];
};

__device__ __forceinline__ void take(Pooled& pooled, int j, Accum value, int tap) {
    const Accum best = pooled.value[j];
    if (!SELECTS) {
        pooled.value[j] += value;
    } else if (best == best && !(MODE == MAX ? value <= best : value >= best)) {
        pooled.value[j] = value;  // better, or the first NaN
        pooled.tap[j] = tap;
    }
}

__device__ __forceinline__ void take(Pooled& pooled, const Input& input, int tap) {
#pragma unroll
    for (int j = 0; j < RESULTS; ++j)
#pragma unroll
        for (int s = 0; s < ACROSS; ++s) take(pooled, j, widen(input.at[j * ACROSS + s]), tap + s);
}

// A plane of a window all of whose taps, the first on `input`, fall on the map. An extreme is found before
// its place: then no input can be used before all have been asked for, and a tap takes three
// instructions, not four.
template <int ROWS, int COLUMNS, class Read>
__device__ __forceinline__ void take_plane(Pooled& pooled, const Input* input, int row_step, int column_step, int tap,
                                           const Read& read) {
    const int TAPS = ROWS * COLUMNS * ACROSS;
    Input held[ROWS][COLUMNS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int s = 0; s < COLUMNS; ++s) held[r][s] = input[r * row_step + s * column_step];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int s = 0; s < COLUMNS; ++s) held[r][s] = read(held[r][s]);
#pragma unroll
    for (int j = 0; j < RESULTS; ++j) {
        Accum values[TAPS];
#pragma unroll
        for (int t = 0; t < TAPS; ++t) {
            const int unit = t / ACROSS;
            values[t] = widen(held[unit / COLUMNS][unit % COLUMNS].at[j * ACROSS + t % ACROSS]);
        }
        Accum extreme = values[0], sum = values[0];
#pragma unroll
        for (int t = 1; t < TAPS; ++t) {
            extreme = MODE == MIN ? math::smaller(extreme, values[t]) : math::larger(extreme, values[t]);
            sum += values[t];
        }
        if (!SELECTS) {
            take(pooled, j, sum, tap);
            continue;
        }
        int first = TAPS - 1;
#pragma unroll
        for (int t = TAPS - 2; t >= 0; --t)
            if (values[t] == extreme) first = t;
        if (sum != sum) {  // among them is a NaN, or infinities of both signs
#pragma unroll
            for (int t = TAPS - 1; t >= 0; --t)
                if (values[t] != values[t]) extreme = values[t], first = t;
        }
        take(pooled, j, extreme, tap + first);
    }
}

template <class Index> __device__ __forceinline__ void store_index(void* index, long long i, const Pooled& pooled) {
    Neighbours<Index, RESULTS> taps;
#pragma unroll
    for (int j = 0; j < RESULTS; ++j) taps.at[j] = (Index)pooled.tap[j];
    ((Neighbours<Index, RESULTS>*)index)[i] = taps;
}

// Unit i of y, and of the index where that is not null; `read` is applied to each unit of x. THREES says whether
// all inputs of a 3x3 window are held at once, which takes nine units of registers.
template <bool THREES, class Read>
__device__ __forceinline__ void pool_unit(const Input* x, Output* y, void* index, unsigned i, const PoolGeometry& g,
                                          const Read& read) {
    Place out;
    x += locate(g, i, g.by_output, pixels(g.input), out);

    Place corner;
    Span taps[AXES];
    bool empty = false;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        corner.axis[a] = corner_of(g, a, out.axis[a]);
        taps[a] = taps_on(g, a, corner.axis[a], 0, g.input[a]);
        empty |= taps[a].begin >= taps[a].end;
    }
    const int rows = taps[1].end - taps[1].begin, columns = taps[2].end - taps[2].begin;
    const bool whole = rows == g.window[1] && columns == g.window[2];
    const int column_step = g.dilation[2] * g.depth, row_step = g.dilation[1] * g.input[2] * g.depth;

    Pooled pooled;
#pragma unroll
    for (int j = 0; j < RESULTS; ++j) {
        pooled.value[j] = MODE == MAX ? -math::infinity() : MODE == MIN ? math::infinity() : 0;
        // were all taps infinite, none would be better than the start: the first is chosen
        pooled.tap[j] = empty ? pixels(g.window) * ACROSS
                              : number_of(g, {{taps[0].begin, taps[1].begin, taps[2].begin}});
    }
    Place tap;
    for (tap.axis[0] = taps[0].begin; tap.axis[0] < taps[0].end; ++tap.axis[0]) {
        const Place in = {{corner.axis[0] + tap.axis[0] * g.dilation[0], corner.axis[1], corner.axis[2]}};
        const Input* plane = x + pixel(in, g.input) * g.depth;
        tap.axis[1] = tap.axis[2] = 0;
        if (whole && rows == 2 && columns == 2 / ACROSS) {
            take_plane<2, 2 / ACROSS>(pooled, plane, row_step, column_step, number_of(g, tap), read);
        } else if (THREES && UNIT != PAIRS && whole && rows == 3 && columns == 3) {
            take_plane<3, 3>(pooled, plane, row_step, column_step, number_of(g, tap), read);
        } else {
            for (tap.axis[1] = taps[1].begin; tap.axis[1] < taps[1].end; ++tap.axis[1]) {
                const Input* row = plane + tap.axis[1] * row_step;
                const int first = number_of(g, tap);
#pragma unroll 4
                for (int s = taps[2].begin; s < taps[2].end; ++s) {
                    const Input input = row[s * column_step];
                    take(pooled, read(input), first + s * ACROSS);
                }
            }
        }
    }

    Output results;
    if (!SELECTS && g.average && !empty) {
        const Accum divided_by = taps_counted(g, out);
#pragma unroll
        for (int j = 0; j < RESULTS; ++j) pooled.value[j] /= divided_by;
    }
#pragma unroll
    for (int j = 0; j < RESULTS; ++j) {
        if (SELECTS && g.relu && !(pooled.value[j] > 0)) pooled.tap[j] = pixels(g.window) * ACROSS;
        results.at[j] = narrow(SELECTS && g.relu && pooled.value[j] <= 0 ? (Accum)0 : pooled.value[j]);
    }
    y[i] = results;
    if (!SELECTS || !index) return;
    if (g.index_bytes == 1)
        store_index<U8>(index, i, pooled);
    else if (g.index_bytes == 2)
        store_index<U16>(index, i, pooled);
    else
        store_index<U32>(index, i, pooled);
}
