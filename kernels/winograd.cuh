// The transforms of Winograd's minimal filtering F(2x2, 3x3): 2x2 outputs of a 3x3 window from 16
// multiplications, where the direct sum takes 36. Lavin & Gray, "Fast algorithms for convolutional
// neural networks", 2016 (arXiv 1509.09308), section 4.1.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A       g the 3x3 filter, d the 4x4 patch, * element by element
//
//         1  0 -1  0          1    0    0
//   B^T = 0  1  1  0      G = 1/2  1/2  1/2     A^T = 1  1  1  0
//         0 -1  1  0          1/2 -1/2  1/2           0  1 -1 -1
//         0  1  0 -1          0    0    1
//
// Every matrix is applied to the columns first, then to the rows. A "point" is one of the 16 places
// of a transformed patch, row by row. Shared memory: none.
#pragma once

const int POINTS = 16;
const int PATCH = 4;  // a patch is PATCH x PATCH inputs, a window 3 x 3, a tile of outputs 2 x 2

// v := B^T v
__device__ __forceinline__ void transform_input_line(float& v0, float& v1, float& v2, float& v3) {
    const float sum = v1 + v2, difference = v2 - v1;
    v0 -= v2;
    v3 = v1 - v3;
    v1 = sum;
    v2 = difference;
}

// d := B^T d B
__device__ __forceinline__ void transform_input(float (&d)[PATCH][PATCH]) {
#pragma unroll
    for (int j = 0; j < PATCH; ++j) transform_input_line(d[0][j], d[1][j], d[2][j], d[3][j]);
#pragma unroll
    for (int i = 0; i < PATCH; ++i) transform_input_line(d[i][0], d[i][1], d[i][2], d[i][3]);
}

// (w0, w1, w2, w3) = G (v0, v1, v2)
__device__ __forceinline__ void transform_filter_line(float v0, float v1, float v2, float& w0, float& w1, float& w2,
                                                      float& w3) {
    const float ends = v0 + v2;
    w0 = v0;
    w1 = 0.5f * (ends + v1);
    w2 = 0.5f * (ends - v1);
    w3 = v2;
}

// u = G g G^T
__device__ __forceinline__ void transform_filter(const float (&g)[3][3], float (&u)[PATCH][PATCH]) {
    float columns[PATCH][3];
#pragma unroll
    for (int s = 0; s < 3; ++s)
        transform_filter_line(g[0][s], g[1][s], g[2][s], columns[0][s], columns[1][s], columns[2][s], columns[3][s]);
#pragma unroll
    for (int i = 0; i < PATCH; ++i)
        transform_filter_line(columns[i][0], columns[i][1], columns[i][2], u[i][0], u[i][1], u[i][2], u[i][3]);
}

// y = A^T m A
__device__ __forceinline__ void transform_output(const float (&m)[PATCH][PATCH], float (&y)[2][2]) {
    float rows[2][PATCH];
#pragma unroll
    for (int j = 0; j < PATCH; ++j) {
        rows[0][j] = m[0][j] + m[1][j] + m[2][j];
        rows[1][j] = m[1][j] - m[2][j] - m[3][j];
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        y[i][0] = rows[i][0] + rows[i][1] + rows[i][2];
        y[i][1] = rows[i][1] - rows[i][2] - rows[i][3];
    }
}
