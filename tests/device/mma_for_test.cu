// The functions of mma.cuh, one at a time: registers as arrays (32 lanes, registers).
// types: float16 bfloat16
#include "mma.cuh"

extern "C" __global__ void mma(const u32* a, const u32* b, const float* c, float* d) {
  const int lane = threadIdx.x;
  const u32 left[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
  float sums[4] = {c[4 * lane], c[4 * lane + 1], c[4 * lane + 2], c[4 * lane + 3]};
  mma_16816(sums[0], sums[1], sums[2], sums[3], left, b[2 * lane], b[2 * lane + 1]);
  for (int i = 0; i < 4; i++) d[4 * lane + i] = sums[i];
}

// memory: `rows` rows of 16 bytes; row[lane] is that whose address the lane gives.
extern "C" __global__ void matrices(const u32* memory, const int* row, u32* plain, u32* transposed, int rows) {
  DYNAMIC_SHARED(u32, shared);
  for (int i = threadIdx.x; i < 4 * rows; i += 32) shared[i] = memory[i];
  __syncthreads();
  const shared_t address = shared_address(shared + 4 * row[threadIdx.x]);
  u32 r[4];
  ldmatrix_x4(r, address);
  for (int i = 0; i < 4; i++) plain[4 * threadIdx.x + i] = r[i];
  ldmatrix_x4_trans(r, address);
  for (int i = 0; i < 4; i++) transposed[4 * threadIdx.x + i] = r[i];
}

// Two groups of copies; what the second wait is for cannot be seen after the first. seen: (2, 32, 8).
extern "C" __global__ void copies(const u32* from, u32* seen, int given) {
  DYNAMIC_SHARED(u32, shared);
  const int lane = threadIdx.x;
  cp_async_16(shared_address(shared + 8 * lane), from + 8 * lane, given);
  cp_async_commit();
  cp_async<8>(shared_address(shared + 8 * lane + 4), from + 8 * lane + 4, given);
  cp_async<4>(shared_address(shared + 8 * lane + 6), from + 8 * lane + 6, given);
  cp_async<4>(shared_address(shared + 8 * lane + 7), from + 8 * lane + 7, !given);
  cp_async_commit();
  cp_async_wait<1>();
  for (int i = 0; i < 8; i++) seen[8 * lane + i] = shared[8 * lane + i];
  cp_async_wait<0>();
  for (int i = 0; i < 8; i++) seen[256 + 8 * lane + i] = shared[8 * lane + i];
}

extern "C" __global__ void elements(const float* x, u32* packed, float* power) {
  packed[threadIdx.x] = pack(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
  power[threadIdx.x] = power_of_two(x[threadIdx.x]);
}
