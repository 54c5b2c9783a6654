// Adam and AdamW on flat vectors, in one pass.
// types: float32 float64
// defines: HALF=0; HALF=1; HALF=2
// budget: adamw registers=64 spills=0
// budget: adamw float64 registers=80 spills=0
#include "common.cuh"
#include "control.cuh"
#include "vectors.cuh"

#ifndef HALF
#define HALF 0
#endif

#define WIDTH ((int)(16 / sizeof(scalar_t)))

typedef of_code<HALF>::type rounded_t;

// Products and sums that the compiler may not join into one rounding, so that a step here is a step of NumPy.
#ifdef __CUDACC__
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }
#else
__device__ __forceinline__ acc_t times(acc_t a, acc_t b) { return a * b; }
__device__ __forceinline__ acc_t plus(acc_t a, acc_t b) { return a + b; }
#endif

// What all elements share, rounded to their type once.
struct Rates { acc_t factor, beta1, rest1, beta2, rest2, inverse2, eps, rate, shrink, decay; };

__device__ __forceinline__ double power(double x, i64 n) {
  double y = 1;
  for (; n > 0; n >>= 1, x *= x) if (n & 1) y *= x;
  return y;
}

struct Element { acc_t theta, m, v; };

// The step of one parameter, with the roundings of `Adam` in optim.py.
__device__ __forceinline__ Element step(const Rates& r, Element e, acc_t g, bool decays) {
  g = times(g, r.factor);
  if (decays) {
    g = plus(g, times(r.decay, e.theta));     // L2: decay is 0 where the decay is decoupled
    e.theta = times(e.theta, r.shrink);       // decoupled: shrink is 1 where it is not
  }
  e.v = plus(times(e.v, r.beta2), times(times(g, g), r.rest2));
  e.m = plus(times(e.m, r.beta1), times(g, r.rest1));
  acc_t root = plus(sqrt(times(e.v, r.inverse2)), r.eps);
  e.theta = plus(e.theta, -times(e.m / root, r.rate));
  return e;
}

template <int W>
__device__ __forceinline__ void update(const Rates& r, i64 i, scalar_t* theta, const scalar_t* g, scalar_t* m,
                                       scalar_t* v, rounded_t* rounded, i64 decayed) {
  Vector<scalar_t, W> a = load_vector<W>(theta + i), b = load_vector<W>(g + i), c = load_vector<W>(m + i),
                    d = load_vector<W>(v + i);
  Vector<rounded_t, W> low;
#pragma unroll
  for (int k = 0; k < W; k++) {
    Element e = step(r, {a.x[k], c.x[k], d.x[k]}, b.x[k], i + k < decayed);
    a.x[k] = e.theta;
    c.x[k] = e.m;
    d.x[k] = e.v;
    low.x[k] = store<rounded_t>(e.theta);
  }
  store_vector<W>(theta + i, a);
  store_vector<W>(m + i, c);
  store_vector<W>(v + i, d);
  if (rounded) store_vector<W>(rounded + i, low);
}

extern "C" __global__ void __launch_bounds__(256) adamw(
    scalar_t* theta, const scalar_t* __restrict__ g, scalar_t* m, scalar_t* v, rounded_t* rounded, i64 n, i64 decayed,
    const double* __restrict__ control, double lr, double beta1, double beta2, double eps, double weight_decay,
    int decoupled) {
  if (control[BAD] != 0) return;
  __shared__ Rates shared;
  if (threadIdx.x == 0) {
    i64 taken = (i64)control[TAKEN];
    double correction1 = 1 - power(beta1, taken), correction2 = 1 - power(beta2, taken);
    shared = {(acc_t)control[FACTOR],
              (acc_t)beta1,
              (acc_t)(1 - beta1),
              (acc_t)beta2,
              (acc_t)(1 - beta2),
              (acc_t)(1 / correction2),
              (acc_t)eps,
              (acc_t)(lr / correction1),
              (acc_t)(decoupled ? 1 - lr * weight_decay : 1),
              (acc_t)(decoupled ? 0 : weight_decay)};
  }
  __syncthreads();
  Rates r = shared;
  i64 stride = (i64)gridDim.x * blockDim.x, thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  bool whole = aligned(theta) && aligned(g) && aligned(m) && aligned(v) && aligned(rounded);
  i64 vectors = whole ? n / WIDTH : 0;
  for (i64 i = thread; i < vectors; i += stride) update<WIDTH>(r, i * WIDTH, theta, g, m, v, rounded, decayed);
  for (i64 i = vectors * WIDTH + thread; i < n; i += stride) update<1>(r, i, theta, g, m, v, rounded, decayed);
}
