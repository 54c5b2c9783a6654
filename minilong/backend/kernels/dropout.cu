// Dropout with the random numbers of NumPy's Philox generator (Salmon et al. 2011), made where they are used.
// types: float32 float16 bfloat16 float64
// budget: dropout registers=64 spills=0
#include "common.cuh"
#include "vectors.cuh"

// Philox 4x64-10: 256 random bits of a block's number and a key of 128 bits.
struct Words { u64 x[4]; };

__device__ __forceinline__ Words philox(u64 block, u64 key0, u64 key1) {
  Words c = {{block, 0, 0, 0}};
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
    u64 high_a = __umul64hi(a, c.x[0]), low_a = a * c.x[0], high_b = __umul64hi(b, c.x[2]), low_b = b * c.x[2];
    c = {{high_b ^ c.x[1] ^ key0, low_b, high_a ^ c.x[3] ^ key1, low_a}};
    key0 += 0x9E3779B97F4A7C15ull;
    key1 += 0xBB67AE8584CAA73Bull;
  }
  return c;
}

__device__ __forceinline__ acc_t keep(const Words& words, int lane, u32 threshold, acc_t factor) {
  u32 bits = (u32)(words.x[lane >> 1] >> (32 * (lane & 1)));  // the low half of a word comes first
  return (bits >> 8) >= threshold ? factor : (acc_t)0;
}

// y = x keep, or keep where x is null: keep[i] = factor if the i-th number is at least threshold / 2^24, else 0. A
// thread makes the 8 numbers of a block; the first block is number 1. A dropped infinity is no number, as in x * 0.
extern "C" __global__ void __launch_bounds__(256) dropout(
    const scalar_t* x, scalar_t* y, i64 n, u64 key0, u64 key1, u32 threshold, acc_t factor) {
  bool whole = aligned(x) && aligned(y);
  i64 stride = (i64)gridDim.x * blockDim.x;
  for (i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x; 8 * block < n; block += stride) {
    Words words = philox((u64)block + 1, key0, key1);
    i64 start = 8 * block;
    if (whole && start + 8 <= n) {
      Vector<scalar_t, 8> in, out;
      if (x) in = load_vector<8>(x + start);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        acc_t kept = keep(words, i, threshold, factor);
        out.x[i] = store<scalar_t>(x ? load(in.x[i]) * kept : kept);
      }
      store_vector<8>(y + start, out);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (start + i < n) {
          acc_t kept = keep(words, i, threshold, factor);
          y[start + i] = store<scalar_t>(x ? load(x[start + i]) * kept : kept);
        }
      }
    }
  }
}
