// Small kernels by which the shim itself is tested. Each does one thing that a kernel may do, or must not.
#include "common.cuh"

extern "C" __global__ void place(int* out) {
  int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = block * 10000 + thread;
}

extern "C" __global__ void turn_by_shuffle(const float* x, float* y) {  // the shuffle orders no memory
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  float other = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
  y[threadIdx.x] = s[threadIdx.x ^ 1] + 0 * other;
}

template <class T> __device__ T& kept() {
  __shared__ T value;
  return value;
}
extern "C" __global__ void leftover(float* y) {  // what shared memory holds before it is written
  DYNAMIC_SHARED(float, s);
  y[4 * blockIdx.x] = kept<float>();
  y[4 * blockIdx.x + 1] = (float)kept<double>();
  y[4 * blockIdx.x + 2] = s[0];
  y[4 * blockIdx.x + 3] = s[1];
  kept<float>() = s[0] = s[1] = 1;
  kept<double>() = 1;
}

extern "C" __global__ void shuffles(const float* x, float* y, const double* u, double* v, int by, int width) {
  int i = threadIdx.x;
  y[i] = __shfl_sync(0xffffffffu, x[i], by, width);
  y[i + 32] = __shfl_up_sync(0xffffffffu, x[i], by, width);
  y[i + 64] = __shfl_down_sync(0xffffffffu, x[i], by, width);
  y[i + 96] = __shfl_xor_sync(0xffffffffu, x[i], by, width);
  v[i] = __shfl_sync(0xffffffffu, u[i], by, width);
}

extern "C" __global__ void votes(const int* x, u32* y) {
  int i = threadIdx.x;
  y[i] = __ballot_sync(0xffffffffu, x[i]);
  y[i + 32] = __any_sync(0xffffffffu, x[i] == 2) + 2 * __any_sync(0xffffffffu, x[i] == 3);
  y[i + 64] = __all_sync(0xffffffffu, x[i] < 3) + 2 * __all_sync(0xffffffffu, x[i] < 2);
  y[i + 96] = __match_any_sync(0xffffffffu, x[i]);
  u32 mask = i < 16 ? 0xffffu : 0xffff0000u;
  y[i + 128] = __ballot_sync(mask, x[i]);
  y[i + 160] = __syncthreads_count(x[i] == 1) + 100 * __syncthreads_or(x[i] == 2) + 1000 * __syncthreads_and(x[i] < 2);
}

extern "C" __global__ void exchange(const int* x, int* y, int rounds) {  // rounds of y = sum over lanes of (l + 1) x[l]
  int value = x[threadIdx.x];
  for (int r = 0; r < rounds; r++) {
    const int* all = (const int*)cpu_cuda::warp_exchange(&value, sizeof value);
    int total = 0;
    for (int l = 0; l < 32; l++) total += (l + 1) * all[l] % 1000;
    value = (total + threadIdx.x) % 1000;
    if (r % 3 == 0) value = __shfl_xor_sync(0xffffffffu, value, 5);
  }
  y[threadIdx.x] = value;
}

extern "C" __global__ void gone(float* y) {  // lane 5 has left: its value is undefined
  if (threadIdx.x == 5) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

extern "C" __global__ void leaves_early(int n) {
  if (threadIdx.x < n) return;
  __syncthreads();
}
extern "C" __global__ void leaves_late(int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
}
extern "C" __global__ void two_barriers() {
  if (threadIdx.x < 32) __syncthreads();
  else
    __syncthreads();
}
extern "C" __global__ void waits_elsewhere() {
  if (threadIdx.x == 3) __syncthreads();
  else __syncwarp();
}
extern "C" __global__ void two_masks() {
  if (threadIdx.x % 2) __syncwarp();
  else __syncwarp(0x55555555u | 2u);
}
extern "C" __global__ void two_collectives(int* y) {
  if (threadIdx.x % 2) y[0] = __shfl_sync(0xffffffffu, 1, 0);
  else y[0] = __ballot_sync(0xffffffffu, 1);
}
extern "C" __global__ void not_in_mask() { __syncwarp(0xfffffffeu); }

extern "C" __global__ void fill_shared(int from, int to) {
  DYNAMIC_SHARED(unsigned char, s);
  for (int i = from + threadIdx.x; i < to; i += blockDim.x) s[i] = 1;
}
extern "C" __global__ void write_far(float* y, i64 at) { y[at] = 1; }
extern "C" __global__ void divide(int* y, int n) { y[0] = 7 / n; }
extern "C" __global__ void forever(volatile int* y) {
  for (;;) y[0] = 1;
}
extern "C" __global__ void deep(char* y, int n) {
  volatile char big[200000];
  for (int i = 0; i < n; i++) big[i] = 1;
  y[0] = big[0];
}

extern "C" __global__ void all_write(float* y) { y[0] = 1; }
extern "C" __global__ void blocks_add(float* y) {
  if (threadIdx.x == 0) y[0] += 1;
}
extern "C" __global__ void halves_of_a_word(u16* y) { y[threadIdx.x] = (u16)threadIdx.x; }
extern "C" __global__ void count(int* y) { atomicAdd(y, 1); }
extern "C" __global__ void count_and_read(int* y) {
  atomicAdd(y, 1);
  if (threadIdx.x == 1) y[1] = y[0];
}
extern "C" __global__ void last_block(const float* x, float* parts, u32* arrived, float* y) {
  __shared__ bool last;
  float sum = warp_sum(x[blockIdx.x * 32 + threadIdx.x]);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  sum = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += 32) sum += parts[i];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) y[0] = sum;
}
extern "C" __global__ void part_of_a_warp(const float* x, float* y) {
  __shared__ float s[32];
  if (threadIdx.x < 16) {
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp(0xffffu);
    y[threadIdx.x] = s[15 - threadIdx.x];
  }
}
extern "C" __global__ void misaligned(const float* x, float* y, int at) {
  y[0] = reinterpret_cast<const float4*>(x + at)->x;
}
extern "C" __global__ void outside(float* y, int at) {
  __shared__ float s[8];
  s[at] = 1;
  y[0] = s[at];
}
extern "C" __global__ void overflow(int* y, int n) { y[0] = n * n; }
extern "C" __global__ void shift(int* y, int n) { y[0] = 1 << n; }
extern "C" __global__ void to_integer(int* y, float x) { y[0] = (int)x; }

extern "C" __global__ void converted(const u16* h, float* half, float* bfloat, const float* x, u16* to_half, u16* to_bfloat,
                                     int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  half[i] = half_to_float(h[i]);
  bfloat[i] = bfloat_to_float(h[i]);
  to_half[i] = float_to_half(x[i]);
  to_bfloat[i] = float_to_bfloat(x[i]);
}
extern "C" __global__ void bits(const u32* a, const u32* b, u32* y, const u64* u, const u64* v, u64* w) {
  int i = threadIdx.x;
  y[i] = __popc(a[i]);
  y[i + 64] = __clz(a[i]);
  y[i + 128] = __umulhi(a[i], b[i]);
  y[i + 192] = __brev(a[i]);
  y[i + 256] = __byte_perm(a[i], b[i], 0x7610);
  y[i + 320] = __funnelshift_l(a[i], b[i], 7);
  w[i] = __umul64hi(u[i], v[i]);
}
extern "C" __global__ void types(const half_t* a, float* b, const float4* c, const bool* d, i64 e, int f, u32 g,
                                 u64 h, float i, double j, bool k, void* l) {}

extern "C" __global__ void barriers(int n, int* y) {
  for (int i = 0; i < n; i++) __syncthreads();
  y[threadIdx.x] = n;
}
extern "C" __global__ void exchanges(int n, int* y) {
  int x = threadIdx.x;
  for (int i = 0; i < n; i++) x = __shfl_xor_sync(0xffffffffu, x, 1);
  y[threadIdx.x] = x;
}
#define MADE(name) extern "C" __global__ void __launch_bounds__(sizeof(int) * (8 + 8)) name(int* y) { y[0] = 1; }
MADE(made_by_a_macro)
#if WITH_MORE
extern "C" __global__ void only_with_more() {}
#endif

// Phases of one access a thread, with what stands after each. access: of phase and thread 2 * word + 1 for a write, 2 * word
// for a read, -1 for none. after: 0 nothing, 1 __syncwarp, 2 __syncthreads.
extern "C" __global__ void phases(const int* access, const int* after, int n, int* words, int* out) {
  int seen = 0;
  for (int p = 0; p < n; p++) {
    int a = access[p * blockDim.x + threadIdx.x];
    if (a >= 0 && (a & 1)) words[a >> 1] = p;
    if (a >= 0 && !(a & 1)) seen += words[a >> 1];
    if (after[p] == 1) __syncwarp();
    if (after[p] == 2) __syncthreads();
  }
  out[threadIdx.x] = seen;
}
