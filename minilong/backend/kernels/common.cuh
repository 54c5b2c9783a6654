// What all kernels share: storage types, conversions, reductions. Included as text by launch.py; needs no header.
// Compiled once for each type: -DDTYPE=0 float32, 1 float16, 2 bfloat16, 3 float64.
//
// Each .cu file begins with comment lines that say what is compiled, and what it may use (a test compiles all of it):
//   // types: float32 float16 bfloat16 float64
//   // defines: HEAD=64; HEAD=128 STAGES=2         macros: one build for each list between semicolons
//   // budget: flash_forward registers=168 spills=0 shared=49152
//   // budget: flash_forward float16 HEAD=128 sm_80 registers=255 spills=8       where all of these conditions hold
// For each kernel and build the last budget that fits counts for what it names. Without one, no spills are allowed. A
// test shows that each barrier is needed and each planted mistake is found: tests/device/cases_NAME.py, of NAME.cu.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name)                          \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  type* name = reinterpret_cast<type*>(name##_bytes)
#endif

#define INFINITE __int_as_float(0x7f800000)

struct half_t { u16 bits; };
struct bfloat_t { u16 bits; };

// Sums and elementary functions are computed in acc_t: float, or double where the data are.
#if DTYPE == 0
typedef float scalar_t;
typedef float acc_t;
#elif DTYPE == 1
typedef half_t scalar_t;
typedef float acc_t;
#elif DTYPE == 2
typedef bfloat_t scalar_t;
typedef float acc_t;
#else
typedef double scalar_t;
typedef double acc_t;
#endif

#ifdef __CUDACC__
__device__ __forceinline__ float half_to_float(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
__device__ __forceinline__ u16 float_to_half(float f) { u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
#else
__device__ __forceinline__ float half_to_float(u16 h) { _Float16 x; memcpy(&x, &h, 2); return (float)x; }
__device__ __forceinline__ u16 float_to_half(float f) { _Float16 x = (_Float16)f; u16 h; memcpy(&h, &x, 2); return h; }
#endif

__device__ __forceinline__ float bfloat_to_float(u16 b) { return __int_as_float((int)((u32)b << 16)); }

// Round to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u16 float_to_bfloat(float f) {
  u32 x = (u32)__float_as_int(f);
  if ((x & 0x7fffffffu) > 0x7f800000u) return (u16)((x >> 16) | 0x40u);
  return (u16)((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ float load(float x) { return x; }
__device__ __forceinline__ double load(double x) { return x; }
__device__ __forceinline__ float load(half_t x) { return half_to_float(x.bits); }
__device__ __forceinline__ float load(bfloat_t x) { return bfloat_to_float(x.bits); }

template <class T> __device__ __forceinline__ T store(acc_t x);
template <> __device__ __forceinline__ float store<float>(acc_t x) { return (float)x; }
template <> __device__ __forceinline__ double store<double>(acc_t x) { return (double)x; }
template <> __device__ __forceinline__ half_t store<half_t>(acc_t x) { half_t h; h.bits = float_to_half((float)x); return h; }
template <> __device__ __forceinline__ bfloat_t store<bfloat_t>(acc_t x) { bfloat_t b; b.bits = float_to_bfloat((float)x); return b; }

// Reductions over the 32 lanes of a warp, and over a block of whole warps (at most 1024 threads, one dimension). All
// threads must take part; all get the result. The order of the additions is fixed, so results are reproducible.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

template <class T> __device__ __forceinline__ T warp_max(T x) {
  for (int offset = 16; offset > 0; offset >>= 1) {
    T other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x || other != other ? other : x;  // a NaN wins, so that it is seen
  }
  return x;
}

__device__ acc_t block_sum(acc_t x) {
  __shared__ acc_t parts[32];
  x = warp_sum(x);
  __syncthreads();  // the parts of an earlier call have been read
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  acc_t total = 0;
  for (int i = 0; i < (int)(blockDim.x >> 5); i++) total += parts[i];
  return total;
}

__device__ acc_t block_max(acc_t x) {
  __shared__ acc_t parts[32];
  x = warp_max(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  acc_t top = parts[0];
  for (int i = 1; i < (int)(blockDim.x >> 5); i++) top = parts[i] > top || parts[i] != parts[i] ? parts[i] : top;
  return top;
}
