// The activation functions, one struct each:
//   forward(x, alpha)           y = f(x)
//   backward(dy, saved, alpha)  dx = dy * f'(x); saved is y for those of the first part, else x
// alpha is the slope of LeakyRelu and Elu, the ceiling of ClippedRelu. Comparisons are written so that
// a NaN stays a NaN, and formulas so that small results keep their digits: 1 - sigmoid(x) is
// sigmoid(-x), and so on. At the infinities f and f' are their limits (but Softsign's f is NaN there).
#pragma once
#include "common.cuh"
#include "math.cuh"

// Results of 16 bits, where memory leaves time for some twenty instructions an element, get exponentials and
// quotients of a few: within 2^-16 of the result, 1/16 of what rounding to float16 adds at most.
const bool COARSE = sizeof(Element) == 2;
const Accum LOG2_E = (Accum)1.44269504088896340736;
__device__ __forceinline__ Accum exponential(Accum v) { return COARSE ? math::exp2(LOG2_E * v) : math::exp(v); }
__device__ __forceinline__ Accum quotient(Accum a, Accum b) { return COARSE ? math::quotient(a, b) : a / b; }

__device__ __forceinline__ Accum sigmoid(Accum x) {
    const Accum e = exponential(-math::abs(x));  // never overflows
    return math::quotient(x >= 0 ? (Accum)1 : e, 1 + e);
}

// Where x goes into a product with a gate that falls to 0, or a slope, it is cut to where these are
// constant to the last bit: infinity * 0 would be NaN.
const int FAR_OUT = 1000;
__device__ __forceinline__ Accum above_far(Accum x) { return x < -FAR_OUT ? -FAR_OUT : x; }
__device__ __forceinline__ Accum within_far(Accum x) { return x > FAR_OUT ? FAR_OUT : above_far(x); }

// ---- f' is a function of y ---------------------------------------------------------------------

struct Relu {
    static __device__ Accum forward(Accum x, Accum) { return x <= 0 ? 0 : x; }
    static __device__ Accum backward(Accum dy, Accum y, Accum) { return y > 0 ? dy : 0; }
};

struct Relu6 {
    static __device__ Accum forward(Accum x, Accum) { return x <= 0 ? 0 : x >= 6 ? 6 : x; }
    static __device__ Accum backward(Accum dy, Accum y, Accum) { return y > 0 && y < 6 ? dy : 0; }
};

struct ClippedRelu {
    static __device__ Accum forward(Accum x, Accum alpha) { return x <= 0 ? 0 : x >= alpha ? alpha : x; }
    static __device__ Accum backward(Accum dy, Accum y, Accum alpha) { return y > 0 && y < alpha ? dy : 0; }
};

struct LeakyRelu {
    static __device__ Accum forward(Accum x, Accum alpha) { return x <= 0 ? alpha * x : x; }
    static __device__ Accum backward(Accum dy, Accum y, Accum alpha) { return y > 0 ? dy : alpha * dy; }
};

// Clevert et al., "Fast and accurate deep network learning by exponential linear units", 2016.
struct Elu {
    static __device__ Accum forward(Accum x, Accum alpha) { return x <= 0 ? alpha * math::expm1(x) : x; }
    static __device__ Accum backward(Accum dy, Accum y, Accum alpha) { return y > 0 ? dy : dy * (y + alpha); }
};

// Klambauer et al., "Self-normalizing neural networks", 2017.
struct Selu {
    static constexpr Accum SCALE = (Accum)1.0507009873554804934193349852946;
    static constexpr Accum ALPHA = (Accum)1.6732632423543772848170429916717;
    static __device__ Accum forward(Accum x, Accum) { return SCALE * (x <= 0 ? ALPHA * math::expm1(x) : x); }
    static __device__ Accum backward(Accum dy, Accum y, Accum) { return dy * (y > 0 ? SCALE : y + SCALE * ALPHA); }
};

struct Sigmoid {
    static __device__ Accum forward(Accum x, Accum) { return sigmoid(x); }
    static __device__ Accum backward(Accum dy, Accum y, Accum) { return dy * y * (1 - y); }
};

struct Tanh {
    static __device__ Accum forward(Accum x, Accum) { return math::tanh(x); }
    static __device__ Accum backward(Accum dy, Accum y, Accum) { return dy * ((1 - y) * (1 + y)); }
};

// ---- f' is a function of x ---------------------------------------------------------------------

struct Softplus {
    static __device__ Accum forward(Accum x, Accum) {
        return (x <= 0 ? 0 : x) + math::log1p(math::exp(-math::abs(x)));
    }
    static __device__ Accum backward(Accum dy, Accum x, Accum) { return dy * sigmoid(x); }
};

struct Softsign {
    static __device__ Accum forward(Accum x, Accum) { return x / (1 + math::abs(x)); }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        const Accum d = 1 + math::abs(x);
        return dy / (d * d);
    }
};

// x Phi(x), Phi the normal distribution. Hendrycks & Gimpel, "Gaussian error linear units", 2016.
struct Gelu {
    static constexpr Accum SQRT_HALF = (Accum)0.70710678118654752440;
    static constexpr Accum INVERSE_SQRT_2_PI = (Accum)0.39894228040143267794;
    static __device__ Accum phi(Accum x) { return (Accum)0.5 * math::erfc(-x * SQRT_HALF); }

    // For results of 16 bits: exp(-a^2 / 2), a >= 0, and Phi(-a) as its product with a polynomial in 1 / (1 + a P),
    // a form of Hastings, "Approximations for digital computers", 1955. Least relative error for a < 14: 5e-6.
    static __device__ Accum bell(Accum a) { return math::exp2(a * (a * (LOG2_E / -2))); }
    static __device__ Accum tail(Accum a) {
        const Accum t = math::quotient(1, 1 + (Accum)0.31 * a);
        Accum sum = (Accum)-0.07392929681566272;
        sum = math::fma(sum, t, (Accum)0.18045081765513588);
        sum = math::fma(sum, t, (Accum)0.015744224588374447);
        sum = math::fma(sum, t, (Accum)0.13342997428320533);
        sum = math::fma(sum, t, (Accum)0.1204412611993406);
        sum = math::fma(sum, t, (Accum)0.12386069916408222);
        return sum * t * bell(a);
    }

    static __device__ Accum forward(Accum x, Accum) {
        if (!COARSE) return above_far(x) * phi(x);
        const Accum a = math::smaller(math::abs(x), FAR_OUT);
        return (x <= 0 ? 0 : x) - a * tail(a);
    }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        if (COARSE) {
            const Accum a = math::smaller(math::abs(x), FAR_OUT), left = tail(a) - a * INVERSE_SQRT_2_PI * bell(a);
            return dy * (x > 0 ? 1 - left : x <= 0 ? left : x);  // a NaN stays one
        }
        x = within_far(x);
        return dy * (phi(x) + x * INVERSE_SQRT_2_PI * math::exp((Accum)-0.5 * x * x));
    }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct GeluTanh {
    static constexpr Accum TWICE_SQRT_2_OVER_PI = (Accum)1.59576912160573071176;
    static constexpr Accum CUBIC = (Accum)0.044715;
    static __device__ Accum twice_u(Accum x) { return TWICE_SQRT_2_OVER_PI * x * (1 + CUBIC * x * x); }
    static __device__ Accum forward(Accum x, Accum) { return above_far(x) * sigmoid(twice_u(x)); }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        x = within_far(x);
        const Accum s = sigmoid(twice_u(x)), slope = TWICE_SQRT_2_OVER_PI * (1 + 3 * CUBIC * x * x);
        return dy * (s + x * s * sigmoid(-twice_u(x)) * slope);
    }
};

// Swish. Ramachandran et al., "Searching for activation functions", 2017.
struct Silu {
    static __device__ Accum forward(Accum x, Accum) { return above_far(x) * sigmoid(x); }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        x = within_far(x);
        return dy * sigmoid(x) * (1 + x * sigmoid(-x));
    }
};

// x tanh(softplus(x)). Misra, "Mish: a self regularized non-monotonic activation function", 2020.
// With e = exp(x) the tanh is n / d, n = e^2 + 2e, d = n + 2, and 1 - tanh is 2 / d; for x > 0 all are
// divided by e^2, so that nothing overflows.
struct Mish {
    Accum n, d, rest;  // tanh = n / d, 1 - tanh = rest / d
    __device__ explicit Mish(Accum x) {
        const Accum e = exponential(-math::abs(x));
        n = x > 0 ? 1 + 2 * e : e * (e + 2);
        rest = x > 0 ? 2 * e * e : 2;
        d = n + rest;
    }
    static __device__ Accum forward(Accum x, Accum) {
        const Mish m(x);
        return above_far(x) * quotient(m.n, m.d);
    }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        x = within_far(x);
        const Mish m(x);
        const Accum t = quotient(m.n, m.d);
        return dy * (t + x * quotient(m.rest, m.d) * (1 + t) * sigmoid(x));
    }
};

// relu6(x + 3) / 6. Howard et al., "Searching for MobileNetV3", 2019.
const Accum SIXTH = (Accum)0.16666666666666666667;
struct HardSigmoid {
    static __device__ Accum forward(Accum x, Accum) { return x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) * SIXTH; }
    static __device__ Accum backward(Accum dy, Accum x, Accum) { return x > -3 && x < 3 ? dy / 6 : 0; }
};

struct HardSilu {
    static __device__ Accum forward(Accum x, Accum) { return x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) * SIXTH; }
    static __device__ Accum backward(Accum dy, Accum x, Accum) {
        return x <= -3 ? 0 : x >= 3 ? dy : dy * (2 * x + 3) / 6;
    }
};
