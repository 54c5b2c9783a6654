// Activation functions, elementwise, and their vector-Jacobian products computed from the input.
// types: float32 float16 bfloat16 float64
// defines: WIDE=0; WIDE=1
// budget: gelu_vjp registers=72; silu float64 spills=32
#include "elementary.cuh"
#include "packs.cuh"

#define SQRT_HALF ((acc_t)0.70710678118654752440)
#define SQRT_TWO_OVER_PI ((acc_t)0.79788456080286535588)

// x Phi(x).
struct Gelu {
  static __device__ __forceinline__ acc_t phi(acc_t x) {
    return (acc_t)0.5 + (acc_t)0.5 * error_function(x * SQRT_HALF);
  }
  static __device__ __forceinline__ acc_t value(acc_t x) { return x * phi(x); }
  static __device__ __forceinline__ acc_t slope(acc_t x) {
    return phi(x) + x * exponential((acc_t)-0.5 * x * x) * ((acc_t)0.5 * SQRT_TWO_OVER_PI);
  }
};

// x h(u), h(u) = (1 + tanh u) / 2, u = x (c + 0.044715 c x^2) and c = sqrt(2 / pi).
struct GeluTanh {
  static __device__ __forceinline__ acc_t half(acc_t x, acc_t cubic) {
    return (acc_t)0.5 + (acc_t)0.5 * hyperbolic_tangent(x * (SQRT_TWO_OVER_PI + cubic));
  }
  static __device__ __forceinline__ acc_t cubic(acc_t x) { return (acc_t)0.044715 * SQRT_TWO_OVER_PI * x * x; }
  static __device__ __forceinline__ acc_t value(acc_t x) { return x * half(x, cubic(x)); }
  static __device__ __forceinline__ acc_t slope(acc_t x) {  // h (1 + 2 x u' (1 - h))
    acc_t s = cubic(x), h = half(x, s);
    return h * (1 + 2 * x * (SQRT_TWO_OVER_PI + 3 * s) * (1 - h));
  }
};

// x sigmoid(x).
struct Silu {
  static __device__ __forceinline__ acc_t sigmoid(acc_t x) { return 1 / (1 + exponential(-x)); }
  static __device__ __forceinline__ acc_t value(acc_t x) { return x * sigmoid(x); }
  static __device__ __forceinline__ acc_t slope(acc_t x) {
    acc_t s = sigmoid(x);
    return s * (1 + x * (1 - s));
  }
};

// max(x, 0); a NaN stays.
struct Relu {
  static __device__ __forceinline__ acc_t value(acc_t x) { return x <= 0 ? 0 : x; }
  static __device__ __forceinline__ acc_t slope(acc_t x) { return x > 0 ? 1 : 0; }
};

// out = f(in) for each of n elements, by threads that stride over them: LANES at a time, and those left over singly.
template <u32 IN, u32 OUT, class F>
__device__ __forceinline__ void elementwise(const scalar_t* const (&in)[IN], scalar_t* const (&out)[OUT], i64 n, F f) {
  i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x, packs = 0;
  acc_t x[IN], y[OUT];
#if WIDE
  packs = n / LANES;
  for (i64 pack = thread; pack < packs; pack += threads) {
    acc_t read[IN][LANES], made[OUT][LANES];
#pragma unroll
    for (u32 i = 0; i < IN; i++) read_wide(in[i] + pack * LANES, read[i]);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) {
#pragma unroll
      for (u32 i = 0; i < IN; i++) x[i] = read[i][k];
      f(x, y);
#pragma unroll
      for (u32 i = 0; i < OUT; i++) made[i][k] = y[i];
    }
#pragma unroll
    for (u32 i = 0; i < OUT; i++) write_wide(out[i] + pack * LANES, made[i]);
  }
#endif
  for (i64 at = packs * LANES + thread; at < n; at += threads) {
#pragma unroll
    for (u32 i = 0; i < IN; i++) x[i] = load(in[i][at]);
    f(x, y);
#pragma unroll
    for (u32 i = 0; i < OUT; i++) out[i][at] = store<scalar_t>(y[i]);
  }
}

#define ACTIVATION(name, Function)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                                                 \
  name(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 n) {                                           \
    elementwise<1, 1>({x}, {y}, n, [](const acc_t* in, acc_t* out) { out[0] = Function::value(in[0]); });           \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256)                                                                 \
  name##_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ x, scalar_t* __restrict__ gx, i64 n) {    \
    elementwise<2, 1>({g, x}, {gx}, n, [](const acc_t* in, acc_t* out) { out[0] = in[0] * Function::slope(in[1]); }); \
  }

ACTIVATION(gelu, Gelu)
ACTIVATION(gelu_tanh, GeluTanh)
ACTIVATION(silu, Silu)
ACTIVATION(relu, Relu)

// silu(gate) up.
extern "C" __global__ void __launch_bounds__(256)
swiglu(const scalar_t* __restrict__ gate, const scalar_t* __restrict__ up, scalar_t* __restrict__ y, i64 n) {
  elementwise<2, 1>({gate, up}, {y}, n, [](const acc_t* in, acc_t* out) { out[0] = Silu::value(in[0]) * in[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ gate, const scalar_t* __restrict__ up,
           scalar_t* __restrict__ g_gate, scalar_t* __restrict__ g_up, i64 n) {
  elementwise<3, 2>({g, gate, up}, {g_gate, g_up}, n, [](const acc_t* in, acc_t* out) {
    out[0] = in[0] * in[2] * Silu::slope(in[1]);
    out[1] = in[0] * Silu::value(in[1]);
  });
}
