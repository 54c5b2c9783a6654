// What a kernel may call: barriers and collectives by their CUDA names, vector types, intrinsics, atomics.
#pragma once

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static constexpr int warpSize = 32;

#define threadIdx (cpu_cuda::self->index)
#define blockIdx (cpu_cuda::block_index)
#define blockDim (cpu_cuda::block_size)
#define gridDim (cpu_cuda::grid_size)

// The line is that of the source, for messages, and because threads that wait at different barriers are an error.
#define __syncthreads() ((void)cpu_cuda::barrier(__LINE__))
#define __syncthreads_count(p) ((int)cpu_cuda::barrier(__LINE__, (p) != 0))
#define __syncthreads_or(p) ((int)(cpu_cuda::barrier(__LINE__, (p) != 0) > 0))
#define __syncthreads_and(p) ((int)(cpu_cuda::barrier(__LINE__, (p) != 0) == blockDim.x * blockDim.y * blockDim.z))
#define __syncwarp(...) cpu_cuda::collective(cpu_cuda::SYNC, cpu_cuda::mask_or_all(__VA_ARGS__), __LINE__)
#define __shfl_sync(...) cpu_cuda::shuffle_index(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) cpu_cuda::shuffle_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) cpu_cuda::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) cpu_cuda::shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) cpu_cuda::ballot(__LINE__, mask, (p) != 0)
#define __any_sync(mask, p) ((int)(cpu_cuda::ballot(__LINE__, mask, (p) != 0) != 0))
#define __all_sync(mask, p) ((int)(cpu_cuda::ballot(__LINE__, mask, (p) != 0) == cpu_cuda::alive_in(mask)))
#define __match_any_sync(mask, value) cpu_cuda::match(__LINE__, mask, value)
// Which lanes run together is not defined; the least that may be relied upon is the calling lane.
#define __activemask() (1u << (cpu_cuda::self->number & 31))
// A test numbers the barriers of a text so, and leaves out one at a launch.
#define CPU_CUDA_UNLESS(number) if (cpu_cuda::reach(number))
namespace cpu_cuda {
CPU_CUDA_INTERNAL static bool reach(int number) {
  if (launch->reached) launch->reached[number] = 1;
  return launch->skip != number;
}
}  // namespace cpu_cuda

static inline void __threadfence() { cpu_cuda::fenced(); }
static inline void __threadfence_block() {}
static inline void __trap() { cpu_cuda::fail("__trap()"); }

#define CPU_CUDA_VECTORS(type, name, A2, A4)                                                                      \
  struct name##1 { type x; };                                                                                     \
  struct __attribute__((aligned(A2))) name##2 { type x, y; };                                                     \
  struct name##3 { type x, y, z; };                                                                               \
  struct __attribute__((aligned(A4))) name##4 { type x, y, z, w; };                                               \
  static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                         \
  static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                              \
  static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CPU_CUDA_VECTORS(float, float, 8, 16)
CPU_CUDA_VECTORS(double, double, 16, 16)
CPU_CUDA_VECTORS(int, int, 8, 16)
CPU_CUDA_VECTORS(short, short, 4, 8)
CPU_CUDA_VECTORS(unsigned short, ushort, 4, 8)
CPU_CUDA_VECTORS(signed char, char, 2, 4)
CPU_CUDA_VECTORS(unsigned char, uchar, 2, 4)
CPU_CUDA_VECTORS(long long, longlong, 16, 16)
CPU_CUDA_VECTORS(unsigned long long, ulonglong, 16, 16)
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define CPU_CUDA_EXTREMA(type)                                                \
  static inline type min(type a, type b) { return b < a ? b : a; }            \
  static inline type max(type a, type b) { return a < b ? b : a; }
CPU_CUDA_EXTREMA(int)
CPU_CUDA_EXTREMA(unsigned)
CPU_CUDA_EXTREMA(long)
CPU_CUDA_EXTREMA(unsigned long)
CPU_CUDA_EXTREMA(long long)
CPU_CUDA_EXTREMA(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// CUDA overloads the functions of C for float.
#define CPU_CUDA_FLOAT(name) static inline float name(float x) { return name##f(x); }
CPU_CUDA_FLOAT(exp) CPU_CUDA_FLOAT(exp2) CPU_CUDA_FLOAT(expm1) CPU_CUDA_FLOAT(log) CPU_CUDA_FLOAT(log2)
CPU_CUDA_FLOAT(log10) CPU_CUDA_FLOAT(log1p) CPU_CUDA_FLOAT(sqrt) CPU_CUDA_FLOAT(cbrt) CPU_CUDA_FLOAT(sin)
CPU_CUDA_FLOAT(cos) CPU_CUDA_FLOAT(tan) CPU_CUDA_FLOAT(sinh) CPU_CUDA_FLOAT(cosh) CPU_CUDA_FLOAT(tanh)
CPU_CUDA_FLOAT(asin) CPU_CUDA_FLOAT(acos) CPU_CUDA_FLOAT(atan) CPU_CUDA_FLOAT(erf) CPU_CUDA_FLOAT(erfc)
CPU_CUDA_FLOAT(fabs) CPU_CUDA_FLOAT(floor) CPU_CUDA_FLOAT(ceil) CPU_CUDA_FLOAT(trunc) CPU_CUDA_FLOAT(round)
CPU_CUDA_FLOAT(rint)
#undef CPU_CUDA_FLOAT
#define CPU_CUDA_FLOAT(name) static inline float name(float x, float y) { return name##f(x, y); }
CPU_CUDA_FLOAT(pow) CPU_CUDA_FLOAT(atan2) CPU_CUDA_FLOAT(fmod) CPU_CUDA_FLOAT(fmin) CPU_CUDA_FLOAT(fmax)
CPU_CUDA_FLOAT(copysign)
#undef CPU_CUDA_FLOAT
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline float ldexp(float x, int n) { return ldexpf(x, n); }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
#undef isnan
#undef isinf
#undef isfinite
#undef signbit
#define CPU_CUDA_IS(type)                                                   \
  static inline bool isnan(type x) { return __builtin_isnan(x); }           \
  static inline bool isinf(type x) { return __builtin_isinf(x) != 0; }      \
  static inline bool isfinite(type x) { return __builtin_isfinite(x); }     \
  static inline bool signbit(type x) { return __builtin_signbit(x) != 0; }
CPU_CUDA_IS(float)
CPU_CUDA_IS(double)
#undef CPU_CUDA_IS

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
// Macros, since glibc has functions of these names. On a GPU exp goes through base 2, and so is rounded twice.
#define __expf(x) exp2f((x) * 1.44269504f)
#define __exp10f(x) exp2f((x) * 3.32192809f)
#define __logf(x) (log2f(x) * 0.693147181f)
#define __log2f(x) log2f(x)
#define __log10f(x) (log2f(x) * 0.301029996f)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) exp2f((y) * log2f(x))
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline void sincospif(float x, float* s, float* c) { *s = sinf(x * 3.14159274f), *c = cosf(x * 3.14159274f); }

static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_ru(float x) { return (int)ceilf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
static inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __double2float_rn(double x) { return (float)x; }
template <class To, class From> static inline To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "as many bytes");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline int __float_as_int(float x) { return same_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
  return y;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by) {
  return (unsigned)((((unsigned long long)hi << 32 | lo) << (by & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by) {
  return (unsigned)(((unsigned long long)hi << 32 | lo) >> (by & 31));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long both = (unsigned long long)y << 32 | x;
  unsigned z = 0;
  for (int i = 0; i < 4; i++) {
    unsigned s = selector >> (4 * i) & 15, byte = (unsigned)(both >> (8 * (s & 7))) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    z |= byte << (8 * i);
  }
  return z;
}
static inline int __mulhi(int x, int y) { return (int)((long long)x * y >> 32); }
static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long long)x * y >> 32); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)((unsigned __int128)x * y >> 64);
}
static inline long long __mul64hi(long long x, long long y) { return (long long)((__int128)x * y >> 64); }
static inline unsigned __umul24(unsigned x, unsigned y) { return (x & 0xffffffu) * (y & 0xffffffu); }
static inline int __mul24(int x, int y) { return (int)((unsigned)(x << 8 >> 8) * (unsigned)(y << 8 >> 8)); }

template <class T> static inline T __ldg(const T* at) { return *at; }
template <class T> static inline T __ldcs(const T* at) { return *at; }
template <class T> static inline T __ldcg(const T* at) { return *at; }
template <class T> static inline void __stcs(T* at, T value) { *at = value; }
template <class T> static inline void __stcg(T* at, T value) { *at = value; }

// An atomic operation: the old value; `become` makes the new one of it.
namespace cpu_cuda {
template <class T, class F> CPU_CUDA_INTERNAL static T atomically(T* at, F become) {
  touch(at, sizeof(T), ATOMIC, __builtin_return_address(0));
  T old = *at;
  *at = become(old);
  return old;
}
}  // namespace cpu_cuda
#define CPU_CUDA_ATOMIC(function, type, new_value) \
  CPU_CUDA_INTERNAL static type function(type* at, type x) { \
    return cpu_cuda::atomically(at, [=](type old) { return (type)(new_value); }); \
  }
#define CPU_CUDA_ATOMICS(type)                   \
  CPU_CUDA_ATOMIC(atomicSub, type, old - x)      \
  CPU_CUDA_ATOMIC(atomicMin, type, x < old ? x : old) \
  CPU_CUDA_ATOMIC(atomicMax, type, old < x ? x : old) \
  CPU_CUDA_ATOMIC(atomicAnd, type, old & x)      \
  CPU_CUDA_ATOMIC(atomicOr, type, old | x)       \
  CPU_CUDA_ATOMIC(atomicXor, type, old ^ x)      \
  CPU_CUDA_ATOMIC(atomicAdd, type, old + x)      \
  CPU_CUDA_ATOMIC(atomicExch, type, x)           \
  CPU_CUDA_INTERNAL static type atomicCAS(type* at, type expected, type x) { \
    return cpu_cuda::atomically(at, [=](type old) { return old == expected ? x : old; }); \
  }
CPU_CUDA_ATOMICS(int)
CPU_CUDA_ATOMICS(unsigned)
CPU_CUDA_ATOMICS(unsigned long long)
CPU_CUDA_ATOMIC(atomicAdd, float, old + x)
CPU_CUDA_ATOMIC(atomicExch, float, x)
CPU_CUDA_ATOMIC(atomicAdd, double, old + x)
static inline unsigned atomicInc(unsigned* at, unsigned most) {
  return cpu_cuda::atomically(at, [=](unsigned old) { return old >= most ? 0u : old + 1u; });
}
