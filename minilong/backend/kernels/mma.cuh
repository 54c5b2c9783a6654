// The only PTX of the attention kernels: products of small matrices by a warp, and copies into shared memory that run
// beside computation. Each function has a plain C++ twin, for the CPU, that follows the same layouts (PTX ISA, chapters
// "Matrix Fragments for mma.m16n8k16", "ldmatrix", "cp.async"). Needs compute capability 8.0, copies excepted.
//
// mma.m16n8k16 with float accumulators: D (16 x 8) += A (16 x 16) B (16 x 8). Lane l has g = l / 4, t = l % 4 and holds
//   A: a[0] = A[g][2t, 2t+1]      a[1] = A[g+8][2t, 2t+1]    a[2] = A[g][2t+8, 2t+9]    a[3] = A[g+8][2t+8, 2t+9]
//   B: b[0] = B[2t, 2t+1][g]      b[1] = B[2t+8, 2t+9][g]
//   D: d0, d1 = D[g][2t, 2t+1]    d2, d3 = D[g+8][2t, 2t+1]
// where the first of two elements takes the lower half of a register.
//
// ldmatrix.x4: four 8 x 8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
// aligned) and receives in register i of matrix i the elements [l / 4][2 (l % 4), +1]; with .trans of its transpose.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
typedef u32 shared_t;  // an address in shared memory
#if __CUDA_ARCH__ >= 800
#define AMPERE 1
#endif
#define NEEDS_AMPERE asm volatile("trap;")
#if DTYPE == 2
#define HALF_NAME "bf16"
#else
#define HALF_NAME "f16"
#endif

__device__ __forceinline__ shared_t shared_address(const void* p) {
  shared_t a;
  asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(a) : "l"(p));
  return a;
}

__device__ __forceinline__ void mma_16816(float& d0, float& d1, float& d2, float& d3, const u32 (&a)[4], u32 b0, u32 b1) {
#ifdef AMPERE
  asm("mma.sync.aligned.m16n8k16.row.col.f32." HALF_NAME "." HALF_NAME ".f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  NEEDS_AMPERE;
#endif
}

__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], shared_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], shared_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

// Two numbers rounded to the storage type, the first in the lower half.
__device__ __forceinline__ u32 pack(float low, float high) {
  u32 r = 0;
#ifdef AMPERE
  asm("cvt.rn." HALF_NAME "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
  NEEDS_AMPERE;
#endif
  return r;
}

// Two to the power of x, with an error of two units in the last place; 0 for minus infinity.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x, but unknown to the compiler: what is computed from it is computed anew in each iteration, and takes no registers
// in between.
__device__ __forceinline__ int anew(int x) { asm volatile("" : "+r"(x)); return x; }

// Begin to copy 16, or BYTES, bytes from global to shared memory; zeros instead where nothing is `given`.
__device__ __forceinline__ void cp_async_16(shared_t to, const void* from, bool given) {
#ifdef AMPERE
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(given ? 16 : 0) : "memory");
#else
  u32 x[4] = {0, 0, 0, 0};
  if (given) asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                          : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "l"(from));
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" :: "r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
#endif
}

template <int BYTES> __device__ __forceinline__ void cp_async(shared_t to, const void* from, bool given) {
  static_assert(BYTES == 4 || BYTES == 8, "what cp.async.ca copies here");
#ifdef AMPERE
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
               :: "r"(to), "l"(from), "n"(BYTES), "r"(given ? BYTES : 0) : "memory");
#else
#pragma unroll
  for (int i = 0; i < BYTES; i += 4) {
    u32 x = given ? *reinterpret_cast<const u32*>(static_cast<const char*>(from) + i) : 0;
    asm volatile("st.shared.u32 [%0], %1;" :: "r"(to + i), "r"(x) : "memory");
  }
#endif
}

// The copies begun since the last commit form a group; a wait returns once all but the newest N groups of this thread
// have arrived. Other threads see them after a barrier.
__device__ __forceinline__ void cp_async_commit() {
#ifdef AMPERE
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> __device__ __forceinline__ void cp_async_wait() {
#ifdef AMPERE
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
#endif
}

#else  // the twins

typedef u64 shared_t;

inline int anew(int x) { return x; }
inline shared_t shared_address(const void* p) { return (shared_t)p; }
inline float power_of_two(float x) { return exp2f(x); }
#if DTYPE == 1 || DTYPE == 2
inline u32 pack(float low, float high) {
  return (u32)store<scalar_t>(low).bits | (u32)store<scalar_t>(high).bits << 16;
}
inline float half_of(u32 pair, int which) {
  scalar_t x;
  x.bits = (u16)(pair >> 16 * which);
  return load(x);
}

inline void mma_16816(float& d0, float& d1, float& d2, float& d3, const u32 (&a)[4], u32 b0, u32 b1) {
  const u32 mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const u32* all = reinterpret_cast<const u32*>(cpu_cuda::warp_exchange(mine, sizeof mine));
  const int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
  float sums[4] = {0, 0, 0, 0};
  for (int k = 0; k < 16; k++) {
    const int holder = k % 8 / 2, high = k / 8;  // of column k of A, and of row k of B
    for (int i = 0; i < 4; i++) {
      const u32 left = all[(g * 4 + holder) * 6 + 2 * high + i / 2];
      const u32 right = all[((2 * t + i % 2) * 4 + holder) * 6 + 4 + high];
      sums[i] += half_of(left, k % 2) * half_of(right, k % 2);
    }
  }
  d0 += sums[0], d1 += sums[1], d2 += sums[2], d3 += sums[3];
}
#endif

inline void ldmatrix_x4(u32 (&r)[4], shared_t row) {
  const shared_t* rows = reinterpret_cast<const shared_t*>(cpu_cuda::warp_exchange(&row, sizeof row));
  const int lane = threadIdx.x & 31;
  for (int i = 0; i < 4; i++) r[i] = reinterpret_cast<const u32*>(rows[8 * i + lane / 4])[lane % 4];
}

inline void ldmatrix_x4_trans(u32 (&r)[4], shared_t row) {
  const shared_t* rows = reinterpret_cast<const shared_t*>(cpu_cuda::warp_exchange(&row, sizeof row));
  const int lane = threadIdx.x & 31;
  for (int i = 0; i < 4; i++) {
    const u16 first = reinterpret_cast<const u16*>(rows[8 * i + 2 * (lane % 4)])[lane / 4];
    const u16 second = reinterpret_cast<const u16*>(rows[8 * i + 2 * (lane % 4) + 1])[lane / 4];
    r[i] = (u32)first | (u32)second << 16;
  }
}

// A copy is done by the wait that it must have, not before: until then its place holds NaN.
constexpr int IN_FLIGHT = 512;  // of one thread; those beyond never arrive
struct Copies {
  struct { void* to; const void* from; int bytes, group; } queue[IN_FLIGHT];
  int first, last, group;
};
static Copies copies_of[1024];

inline Copies& my_copies() {
  return copies_of[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}
inline void write_words(void* to, const void* from, int bytes, u32 otherwise) {  // plain accesses, which can be checked
  for (int i = 0; i < bytes / 4; i++) static_cast<u32*>(to)[i] = from ? static_cast<const u32*>(from)[i] : otherwise;
}
inline void begin_copy(shared_t to, const void* from, int bytes, bool given) {
  Copies& c = my_copies();
  if (c.first == c.last) c.first = c.last = 0;
  write_words((void*)to, nullptr, bytes, 0xffffffffu);
  if (c.last < IN_FLIGHT) c.queue[c.last++] = {(void*)to, given ? from : nullptr, bytes, c.group};
}
inline void cp_async_16(shared_t to, const void* from, bool given) { begin_copy(to, from, 16, given); }
template <int BYTES> inline void cp_async(shared_t to, const void* from, bool given) { begin_copy(to, from, BYTES, given); }
inline void cp_async_commit() { my_copies().group++; }
template <int N> inline void cp_async_wait() {
  Copies& c = my_copies();
  for (; c.first < c.last && c.queue[c.first].group < c.group - N; c.first++) {
    const auto& copy = c.queue[c.first];
    const u64 at = (unsigned char*)copy.to - cpu_cuda::launch->shared;
    if (at + copy.bytes <= cpu_cuda::launch->bytes)  // else left over from another launch
      write_words(copy.to, copy.from, copy.bytes, 0);
  }
}
#endif
