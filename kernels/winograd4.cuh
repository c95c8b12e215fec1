// The transforms of Winograd's minimal filtering F(4x4, 3x3): 4x4 outputs of a 3x3 window from 36
// multiplications, where the direct sum takes 144. Lavin & Gray, "Fast algorithms for convolutional
// neural networks", 2016 (arXiv 1509.09308), section 4.2.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A       g the 3x3 filter, d the 6x6 patch, * element by element
//
// and, for the sum over tiles that the gradient of the filter is, the same from the other side:
//
//   dg = G^T [ (A dY A^T) * (B^T d B) ] G
//
// The matrices are those of the points 0, +-NEAR, +-FAR and infinity. Lavin & Gray's 0, +-1, +-2 give a
// root mean square error twice as large; see gpucnn/backends/cuda/algorithms/winograd4.py.
//
// Every product that is added is rounded with its sum (fmaf): that is part of the promised error. A "point"
// is one of the 36 places of a transformed patch, row by row. Shared memory: none.
#pragma once
#include "winograd_lines.cuh"

const int TILE = 4;            // a tile is TILE x TILE outputs,
const int PATCH = TILE + 2;    // a patch PATCH x PATCH inputs, a window 3 x 3
const int POINTS = PATCH * PATCH;

constexpr float NEAR = 0.625f, FAR = 1.5f;
constexpr float NEAR2 = NEAR * NEAR, FAR2 = FAR * FAR;
// What G's rows have as a factor: 1 / the product of a point's distances from the others.
constexpr float AT_ZERO = 1 / (NEAR2 * FAR2);
constexpr float AT_NEAR = 1 / (2 * NEAR2 * (NEAR2 - FAR2)), AT_FAR = 1 / (2 * FAR2 * (FAR2 - NEAR2));
// The coefficients of (v^2 - NEAR^2) (v^2 - FAR^2), for the points 0 and infinity.
constexpr float PRODUCT = NEAR2 * FAR2, SUM = NEAR2 + FAR2;

// A point and its opposite share the even and the odd half of a polynomial.
__device__ __forceinline__ void at_both(float even, float odd, float point, float& plus, float& minus) {
    plus = fmaf(point, odd, even);
    minus = fmaf(-point, odd, even);
}

struct InputLine {  // B^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[PATCH]) {
        w[0] = fmaf(PRODUCT, v[0], fmaf(-SUM, v[2], v[4]));
        at_both(fmaf(-FAR2, v[2], v[4]), fmaf(-FAR2, v[1], v[3]), NEAR, w[1], w[2]);
        at_both(fmaf(-NEAR2, v[2], v[4]), fmaf(-NEAR2, v[1], v[3]), FAR, w[3], w[4]);
        w[5] = fmaf(PRODUCT, v[1], fmaf(-SUM, v[3], v[5]));
    }
};

struct FilterLine {  // G v
    __device__ __forceinline__ static void apply(const float (&v)[3], float (&w)[PATCH]) {
        w[0] = AT_ZERO * v[0];
        at_both(AT_NEAR * fmaf(NEAR2, v[2], v[0]), AT_NEAR * v[1], NEAR, w[1], w[2]);
        at_both(AT_FAR * fmaf(FAR2, v[2], v[0]), AT_FAR * v[1], FAR, w[3], w[4]);
        w[5] = v[2];
    }
};

struct OutputLine {  // A^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[TILE]) {
        const float near = v[1] + v[2], far = v[3] + v[4], near_odd = v[1] - v[2], far_odd = v[3] - v[4];
        w[0] = v[0] + near + far;
        w[1] = fmaf(NEAR, near_odd, FAR * far_odd);
        w[2] = fmaf(NEAR2, near, FAR2 * far);
        w[3] = fmaf(NEAR * NEAR2, near_odd, fmaf(FAR * FAR2, far_odd, v[5]));
    }
};

struct OutputGradientLine {  // A v
    __device__ __forceinline__ static void apply(const float (&v)[TILE], float (&w)[PATCH]) {
        w[0] = v[0];
        at_both(fmaf(NEAR2, v[2], v[0]), fmaf(NEAR2, v[3], v[1]), NEAR, w[1], w[2]);
        at_both(fmaf(FAR2, v[2], v[0]), fmaf(FAR2, v[3], v[1]), FAR, w[3], w[4]);
        w[5] = v[3];
    }
};

struct FilterGradientLine {  // G^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[3]) {
        const float near = AT_NEAR * (v[1] + v[2]), far = AT_FAR * (v[3] + v[4]);
        w[0] = fmaf(AT_ZERO, v[0], near + far);
        w[1] = fmaf(AT_NEAR * NEAR, v[1] - v[2], AT_FAR * FAR * (v[3] - v[4]));
        w[2] = fmaf(NEAR2, near, fmaf(FAR2, far, v[5]));
    }
};
