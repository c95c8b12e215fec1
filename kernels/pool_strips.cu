// Pooling with 3x3 windows, two columns apart, where columns lie side by side in memory: channels first.
//
// As pool.cu, and with its arguments, but a thread computes a strip of four neighbouring y: what lies under
// them in a row are eight neighbours of x, which it moves together, and one more, at their left where a column
// of padding comes first and at their right where none does. It asks for all of the three rows before it uses
// the first; a tap in the padding is no better than any other. Rows of x are whole strips, and no strip begins
// beyond them. A launch counts fewer than 2^31 strips.
//
// Macros: MODE; UNIT, here ONE, see pool_geometry.cuh.
#include "pool_geometry.cuh"

const int STRIP = 4;  // outputs of a thread
const int UNDER = 2 * STRIP;
const int TAPS = 3;  // of a window along each axis

// The strip's columns of a row, and whether they are on the map.
struct Row {
    Elements<UNDER> under;
    Element beside;
    bool exists, beside_exists;
};

struct Left { static const int left = 1; };
struct Right { static const int left = 0; };

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 3)
NAME(pool_strips)(const Element* __restrict__ x, Element* __restrict__ y, U8* __restrict__ index, int count,
                  const __grid_constant__ PoolGeometry g, const __grid_constant__ Divisor by_strips) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    int strip;
    Place out = {};
    const unsigned map = divide(divide((unsigned)i, by_strips, strip), g.by_output[1], out.axis[1]);
    out.axis[2] = strip * STRIP;
    x += (long long)map * g.input[1] * g.input[2];

    const bool left = g.pad[2] == 1;
    const int first = strip * UNDER, beside = left ? first - 1 : first + UNDER;
    const int corner = corner_of(g, 1, out.axis[1]);
    Row rows[TAPS];
#pragma unroll
    for (int r = 0; r < TAPS; ++r) {
        const int h = corner + r * g.dilation[1];
        rows[r].exists = (unsigned)h < (unsigned)g.input[1];
        rows[r].beside_exists = rows[r].exists && (unsigned)beside < (unsigned)g.input[2];
        const Element* row = x + (rows[r].exists ? h : 0) * g.input[2];  // one that is there
        rows[r].under = *(const Elements<UNDER>*)(row + first);
        rows[r].beside = row[rows[r].beside_exists ? beside : first];
    }

    const Accum worst = MODE == MAX ? -math::infinity() : MODE == MIN ? math::infinity() : 0;
    const Span taps = taps_on(g, 1, corner, 0, g.input[1]);
    Accum best[STRIP];
    int chosen[STRIP];
#pragma unroll
    for (int j = 0; j < STRIP; ++j) {
        best[j] = worst;
        // were all taps infinite, none would be better than the start: the first on the map is chosen
        const bool cut = j == 0 && left && strip == 0;
        chosen[j] = taps.begin < taps.end ? taps.begin * TAPS + (cut ? 1 : 0) : TAPS * TAPS;
    }
    const auto take = [&](auto side) {
#pragma unroll
        for (int r = 0; r < TAPS; ++r) {
            if (!rows[r].exists) continue;
            Accum values[UNDER + 1];  // from the first tap of the first window
#pragma unroll
            for (int t = 0; t < UNDER; ++t) values[side.left + t] = widen(rows[r].under.at[t]);
            values[side.left ? 0 : UNDER] = rows[r].beside_exists ? widen(rows[r].beside) : worst;
#pragma unroll
            for (int j = 0; j < STRIP; ++j)
#pragma unroll
                for (int s = 0; s < TAPS; ++s) {
                    const Accum value = values[2 * j + s];
                    if (!SELECTS) {
                        best[j] += value;
                    } else if (best[j] == best[j] && !(MODE == MAX ? value <= best[j] : value >= best[j])) {
                        best[j] = value;  // better, or the first NaN
                        chosen[j] = r * TAPS + s;
                    }
                }
        }
    };
    if (left)
        take(Left());
    else
        take(Right());

    Elements<STRIP> results;
    Neighbours<U8, STRIP> places;
#pragma unroll
    for (int j = 0; j < STRIP; ++j) {
        const Place at = {{0, out.axis[1], out.axis[2] + j}};
        if (!SELECTS && g.average && taps.begin < taps.end) best[j] /= taps_counted(g, at);
        if (SELECTS && g.relu && !(best[j] > 0)) chosen[j] = TAPS * TAPS;
        results.at[j] = narrow(SELECTS && g.relu && best[j] <= 0 ? (Accum)0 : best[j]);
        places.at[j] = (U8)chosen[j];
    }
    const long long o = ((long long)map * g.output[1] + out.axis[1]) * g.output[2] + out.axis[2];
    if (g.output[2] % STRIP == 0) {
        *(Elements<STRIP>*)(y + o) = results;
        if (SELECTS && index) *(Neighbours<U8, STRIP>*)(index + o) = places;
        return;
    }
#pragma unroll
    for (int j = 0; j < STRIP; ++j) {
        if (out.axis[2] + j >= g.output[2]) break;
        y[o + j] = results.at[j];
        if (SELECTS && index) index[o + j] = places.at[j];
    }
}
