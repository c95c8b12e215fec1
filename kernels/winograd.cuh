// The transforms of Winograd's minimal filtering F(2x2, 3x3): 2x2 outputs of a 3x3 window from 16
// multiplications, where the direct sum takes 36. Lavin & Gray, "Fast algorithms for convolutional
// neural networks", 2016 (arXiv 1509.09308), section 4.1.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A       g the 3x3 filter, d the 4x4 patch, * element by element
//
// and from the other side, summed over the tiles, the gradient of the filter:
//
//   dg = G^T [ (A dY A^T) * (B^T d B) ] G
//
//         1  0 -1  0          1    0    0
//   B^T = 0  1  1  0      G = 1/2  1/2  1/2     A^T = 1  1  1  0
//         0 -1  1  0          1/2 -1/2  1/2           0  1 -1 -1
//         0  1  0 -1          0    0    1
//
// A "point" is one of the 16 places of a transformed patch, row by row. Shared memory: none.
#pragma once
#include "winograd_lines.cuh"

const int PATCH = 4;  // a patch is PATCH x PATCH inputs, a window 3 x 3, a tile of outputs 2 x 2
const int POINTS = PATCH * PATCH;

struct InputLine {  // B^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[PATCH]) {
        w[0] = v[0] - v[2];
        w[1] = v[1] + v[2];
        w[2] = v[2] - v[1];
        w[3] = v[1] - v[3];
    }
};

struct FilterLine {  // G v
    __device__ __forceinline__ static void apply(const float (&v)[3], float (&w)[PATCH]) {
        const float ends = v[0] + v[2];
        w[0] = v[0];
        w[1] = 0.5f * (ends + v[1]);
        w[2] = 0.5f * (ends - v[1]);
        w[3] = v[2];
    }
};

struct OutputLine {  // A^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[2]) {
        w[0] = v[0] + v[1] + v[2];
        w[1] = v[1] - v[2] - v[3];
    }
};

struct OutputGradientLine {  // A v
    __device__ __forceinline__ static void apply(const float (&v)[2], float (&w)[PATCH]) {
        w[0] = v[0];
        w[1] = v[0] + v[1];
        w[2] = v[0] - v[1];
        w[3] = -v[1];
    }
};

struct FilterGradientLine {  // G^T v
    __device__ __forceinline__ static void apply(const float (&v)[PATCH], float (&w)[3]) {
        const float sum = 0.5f * (v[1] + v[2]);
        w[0] = v[0] + sum;
        w[1] = 0.5f * (v[1] - v[2]);
        w[2] = sum + v[3];
    }
};
