// The transpose of a gather: the sum of the rows that share an index, in a fixed order and without atomics.
// types: float32 float16 bfloat16 float64
// budget: sum_chunks registers=64 spills=0
// budget: join_chunks registers=64 spills=0
#include "common.cuh"
#include "vectors.cuh"

#define CHUNK 64
#define WIDTH (sizeof(scalar_t) == 8 ? 2 : 4)  // columns of a thread where vectors can be read
#define AHEAD 4
#define LANES 8

// Sorted position p holds row order[p], whose index is key(p). A segment is a run of equal keys. Chunks of CHUNK
// positions are summed apart: a segment inside one chunk is done; of the others each chunk keeps its part, in
// parts[chunk][0] where the segment began earlier and in parts[chunk][1] where it begins here.
struct Sorted {
  const int* indices;
  const i64* order;
  i64 m;
  __device__ __forceinline__ int key(i64 p) const { return indices[order[p]]; }
};

template <int W>
__device__ __forceinline__ void sum_columns(const scalar_t* rows, const int* keys, const i64* from, int count,
                                            bool earlier, bool later, i64 column, i64 width, acc_t* parts, acc_t* out) {
  Vector<acc_t, W> sum = {};
  bool begun_here = !earlier;
  for (int i = 0; i < count; i += AHEAD) {
    Vector<scalar_t, W> next[AHEAD];  // in flight at once: the rows lie anywhere
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (i + a < count) next[a] = load_vector<W>(rows + from[i + a] * width + column);
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      int p = i + a;
      if (p >= count) break;
#pragma unroll
      for (int k = 0; k < W; k++) sum.x[k] += load(next[a].x[k]);
      bool last = p + 1 == count;
      if (last || keys[p + 1] != keys[p]) {
        bool whole = begun_here && !(last && later);
        acc_t* to = whole ? out + (i64)keys[p] * width : parts + (begun_here ? width : 0);
        store_vector<W>(to + column, sum);
        sum = {};
        begun_here = true;
      }
    }
  }
}

// Grid (chunks, tiles of columns). out (n, width) is zero before; parts (chunks, 2, width).
extern "C" __global__ void __launch_bounds__(256) sum_chunks(
    const int* __restrict__ indices, const i64* __restrict__ order, const scalar_t* __restrict__ rows, i64 m, i64 width,
    acc_t* parts, acc_t* out) {
  __shared__ int keys[CHUNK];
  __shared__ i64 from[CHUNK];
  Sorted sorted = {indices, order, m};
  i64 start = (i64)blockIdx.x * CHUNK, end = start + CHUNK < m ? start + CHUNK : m;
  int count = (int)(end - start);
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    from[i] = order[start + i];
    keys[i] = indices[from[i]];
  }
  __syncthreads();
  bool earlier = start > 0 && sorted.key(start - 1) == keys[0];
  bool later = end < m && sorted.key(end) == keys[count - 1];
  parts += (i64)blockIdx.x * 2 * width;
  i64 thread = (i64)blockIdx.y * blockDim.x + threadIdx.x;
  if (width % WIDTH == 0 && aligned(rows) && aligned(parts) && aligned(out)) {
    if (thread * WIDTH < width)
      sum_columns<WIDTH>(rows, keys, from, count, earlier, later, thread * WIDTH, width, parts, out);
  } else {
    for (i64 column = thread * WIDTH; column < thread * WIDTH + WIDTH && column < width; column++)
      sum_columns<1>(rows, keys, from, count, earlier, later, column, width, parts, out);
  }
}

// A tile of 32 W columns from the parts of chunks [first, last], the first of which has the segment's beginning: each
// lane (threadIdx.y) adds up every LANES-th part, then the lanes are added in their order.
template <int W>
__device__ __forceinline__ void join_columns(const acc_t* parts, i64 first, i64 last, i64 width, acc_t* out) {
  __shared__ Vector<acc_t, W> lanes[LANES][32];
  for (i64 tile = blockIdx.y; tile * 32 * W < width; tile += gridDim.y) {
    i64 column = (tile * 32 + threadIdx.x) * W;
    Vector<acc_t, W> sum = {};
    if (column < width) {
#pragma unroll 4
      for (i64 c = first + threadIdx.y; c <= last; c += LANES) {
        Vector<acc_t, W> part = load_vector<W>(parts + (2 * c + (c == first)) * width + column);
#pragma unroll
        for (int k = 0; k < W; k++) sum.x[k] += part.x[k];
      }
    }
    __syncthreads();  // the sums of the tile before have been read
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
      for (int i = 1; i < LANES; i++)
#pragma unroll
        for (int k = 0; k < W; k++) sum.x[k] += lanes[i][threadIdx.x].x[k];
      store_vector<W>(out + column, sum);
    }
  }
}

// Grid (chunks, any), blocks of 32 x LANES: the block of a chunk where a segment begins and goes on joins its parts.
extern "C" __global__ void __launch_bounds__(256) join_chunks(
    const int* __restrict__ indices, const i64* __restrict__ order, i64 m, i64 width, const acc_t* __restrict__ parts,
    acc_t* __restrict__ out) {
  Sorted sorted = {indices, order, m};
  i64 chunk = blockIdx.x, start = chunk * CHUNK, end = start + CHUNK;
  if (end >= m) return;
  int key = sorted.key(end - 1);
  if (sorted.key(end) != key || (start > 0 && sorted.key(start - 1) == key)) return;
  i64 last = chunk + 1, beyond = (m + CHUNK - 1) / CHUNK;  // the last chunk with a part is in [last, beyond)
  while (beyond - last > 1) {
    i64 middle = (last + beyond) / 2;
    if (sorted.key(middle * CHUNK) == key) last = middle;
    else beyond = middle;
  }
  out += (i64)key * width;
  if (width % WIDTH == 0 && aligned(parts) && aligned(out))
    join_columns<WIDTH>(parts, chunk, last, width, out);
  else
    join_columns<1>(parts, chunk, last, width, out);
}
